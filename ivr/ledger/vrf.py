"""A verifiable random function: ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381, on libsodium's group operations.

The owner of a key computes, for any input, one output that nobody else can compute and everybody can check; there is
no other output that would pass, so that its owner cannot choose. (A plain Ed25519 signature is none: its owner can
make many.) Section numbers are those of the RFC.
"""

from __future__ import annotations

import hashlib

from nacl import bindings as sodium
from nacl.exceptions import CryptoError

_SUITE = b"\x03"
_FIELD = 2**255 - 19
_CHALLENGE_BYTES = 16
PROOF_BYTES = 80


class BadProof(Exception):
    """Not the proof of this key for this input."""


def public_key(secret: bytes) -> bytes:
    """32 bytes, the same as the Ed25519 public key of this 32-byte seed."""
    return sodium.crypto_scalarmult_ed25519_base_noclamp(_expand(secret)[0])


def prove(secret: bytes, alpha: bytes) -> bytes:
    """The 80-byte proof for ``alpha`` (section 5.1); ``output`` gives the random value in it."""
    x, prefix = _expand(secret)
    public = sodium.crypto_scalarmult_ed25519_base_noclamp(x)
    h = _encode_to_curve(public, alpha)
    gamma = sodium.crypto_scalarmult_ed25519_noclamp(x, h)
    k = sodium.crypto_core_ed25519_scalar_reduce(hashlib.sha512(prefix + h).digest())
    u, v = sodium.crypto_scalarmult_ed25519_base_noclamp(k), sodium.crypto_scalarmult_ed25519_noclamp(k, h)
    c = _challenge(public, h, gamma, u, v)
    s = sodium.crypto_core_ed25519_scalar_add(k, sodium.crypto_core_ed25519_scalar_mul(_scalar(c), x))
    return gamma + c + s


def verify(public: bytes, alpha: bytes, proof: bytes) -> bytes:
    """The 64-byte output, if the proof is right (section 5.3, the key validated). Raises BadProof."""
    gamma, c, s = proof[:32], proof[32:48], proof[48:]
    try:
        if len(proof) != PROOF_BYTES or int.from_bytes(s, "little") >= _ORDER:
            raise BadProof
        # Points of the prime-order subgroup only: a proof is honest or refused, with nothing between.
        if not all(sodium.crypto_core_ed25519_is_valid_point(point) for point in (public, gamma)):
            raise BadProof
        h = _encode_to_curve(public, alpha)
        # U = sB - cY, V = sH - cGamma
        u = sodium.crypto_core_ed25519_sub(
            sodium.crypto_scalarmult_ed25519_base_noclamp(s),
            sodium.crypto_scalarmult_ed25519_noclamp(_scalar(c), public),
        )
        v = sodium.crypto_core_ed25519_sub(
            sodium.crypto_scalarmult_ed25519_noclamp(s, h),
            sodium.crypto_scalarmult_ed25519_noclamp(_scalar(c), gamma),
        )
    except (CryptoError, TypeError, ValueError):
        raise BadProof from None
    if _challenge(public, h, gamma, u, v) != c:
        raise BadProof
    return output(proof)


def output(proof: bytes) -> bytes:
    """The 64 random bytes of a proof that was verified, or that one made oneself (section 5.2)."""
    return hashlib.sha512(_SUITE + b"\x03" + _times_cofactor(proof[:32]) + b"\x00").digest()


_ORDER = 2**252 + 27742317777372353535851937790883648493


def _expand(secret: bytes) -> tuple[bytes, bytes]:
    """The secret scalar, reduced, and the prefix of nonces, as in Ed25519 (RFC 8032, 5.1.5)."""
    digest = bytearray(hashlib.sha512(secret).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return sodium.crypto_core_ed25519_scalar_reduce(bytes(digest[:32]) + bytes(32)), bytes(digest[32:])


def _encode_to_curve(public: bytes, alpha: bytes) -> bytes:
    """A point of which nobody knows the logarithm: try and increment (section 5.4.1.1)."""
    for counter in range(256):
        candidate = hashlib.sha512(_SUITE + b"\x01" + public + alpha + bytes([counter]) + b"\x00").digest()[:32]
        if int.from_bytes(candidate, "little") & (2**255 - 1) >= _FIELD:
            continue
        try:
            return _times_cofactor(candidate)
        except (CryptoError, ValueError):  # not on the curve: half of all are not
            continue
    raise BadProof  # one in 2**256


def _times_cofactor(point: bytes) -> bytes:
    for _ in range(3):
        point = sodium.crypto_core_ed25519_add(point, point)
    return point


def _challenge(*points: bytes) -> bytes:
    return hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()[:_CHALLENGE_BYTES]


def _scalar(challenge: bytes) -> bytes:
    return challenge + bytes(32 - _CHALLENGE_BYTES)
