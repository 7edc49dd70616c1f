"""The keys of a member, and what others can check of it: Ed25519, ECVRF, sealed boxes.

The rules use only the two interfaces, so that a simulation of ten thousand runs can take hashes in their place. It is
libsodium, here, throughout: ECVRF and sealed boxes need it, and two libraries could differ on what a signature is.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Protocol

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey

from ivr.ledger import vrf
from ivr.ledger.wire import Member

_REMEMBERED = 4096
"""Answers kept: the same signature comes with the vote, the certificate and the chain."""


class Secret(Protocol):
    """What only one member can do."""

    name: str

    def sign(self, statement: str) -> str: ...

    def prove(self, alpha: str) -> str:
        """The proof of this member's draw over ``alpha``: there is only one that passes."""

    def unseal(self, sealed: str) -> str | None:
        """What was sealed to this member; None if it was sealed to another."""


class Checks(Protocol):
    """What everybody can do with public keys."""

    def signed(self, member: Member, statement: str, signature: str) -> bool: ...

    def drawn(self, member: Member, alpha: str, proof: str) -> bytes | None:
        """The member's draw over ``alpha``, at least 16 random bytes; None if the proof is not its own."""

    def seal(self, member: Member, text: str) -> str:
        """Readable by this member only, and nobody else can tell by whom."""


class SodiumSecret:
    """A member's keys, derived from one 32-byte seed. No repr shows them."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        keys = [hashlib.blake2b(seed, person=use, digest_size=32).digest() for use in (b"sign", b"vrf", b"seal")]
        self._sign, self._vrf, seal = SigningKey(keys[0]), keys[1], PrivateKey(keys[2])
        self._box, self._seal_public = SealedBox(seal), bytes(seal.public_key)

    def member(self, url: str) -> Member:
        """The public side of it."""
        return Member(
            name=self.name,
            sign=bytes(self._sign.verify_key).hex(),
            vrf=vrf.public_key(self._vrf).hex(),
            seal=self._seal_public.hex(),
            url=url,
        )

    def sign(self, statement: str) -> str:
        return self._sign.sign(statement.encode()).signature.hex()

    def prove(self, alpha: str) -> str:
        return vrf.prove(self._vrf, alpha.encode()).hex()

    def unseal(self, sealed: str) -> str | None:
        try:
            return self._box.decrypt(bytes.fromhex(sealed)).decode("ascii")
        except (CryptoError, ValueError):
            return None

    def __repr__(self) -> str:
        return f"SodiumSecret({self.name})"


class Sodium:
    """The public side."""

    def signed(self, member: Member, statement: str, signature: str) -> bool:
        return _signed(member.sign, statement, signature)

    def drawn(self, member: Member, alpha: str, proof: str) -> bytes | None:
        return _drawn(member.vrf, alpha, proof)

    def seal(self, member: Member, text: str) -> str:
        try:
            return bytes(SealedBox(PublicKey(bytes.fromhex(member.seal))).encrypt(text.encode())).hex()
        except CryptoError:  # no key that anybody has the secret of: nobody shall open it
            return ""


@lru_cache(_REMEMBERED)
def _signed(key: str, statement: str, signature: str) -> bool:
    try:
        VerifyKey(bytes.fromhex(key)).verify(statement.encode(), bytes.fromhex(signature))
    except (CryptoError, ValueError):
        return False
    return True


@lru_cache(_REMEMBERED)
def _drawn(key: str, alpha: str, proof: str) -> bytes | None:
    try:
        if bytes.fromhex(proof).hex() != proof:  # capitals, spaces: what no header may hold
            return None
        return vrf.verify(bytes.fromhex(key), alpha.encode(), bytes.fromhex(proof))
    except (vrf.BadProof, ValueError):
        return None
