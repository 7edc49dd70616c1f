"""How members reach each other: an interface, and HTTP as the default.

Whatever carries it, what travels is an envelope: messages with sender and receiver, signed by the sender. One sent
twice, or from a recording, does no harm: the rules ignore what they know, and whoever lost its disk asks with a nonce.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol

import aiohttp
from pydantic import Field, ValidationError

from ivr.ledger.crypto import Checks, Secret
from ivr.ledger.wire import Member, Message, Name, Wire, digest

MOST_MESSAGES = 64
"""Of one envelope."""
LONGEST_ENVELOPE = 8 * 1024 * 1024
TIMEOUT_S = 5.0
SIGNATURE_BYTES = 128  # hex, in front of the body
_HEAD = re.compile(rb'\{"sender":"([a-z0-9-]{1,32})","to":"([a-z0-9-]{1,32})",')
"""What ``pack`` begins with: enough to know whose signature it must be, before anything else is read."""


class NotDelivered(Exception):
    """The member could not be reached, or another answered in its place."""


class Busy(Exception):
    """Too much is waiting; the sender may try again."""


class NotAuthentic(Exception):
    """Not from a member, not for us, or not signed by its sender."""


class Envelope(Wire):
    sender: Name
    to: Name
    messages: Annotated[tuple[Message, ...], Field(max_length=MOST_MESSAGES)]


Deliver = Callable[[bytes], Awaitable[bytes]]
"""Takes a signed envelope and gives the signed receipt. Raises NotAuthentic and Busy."""


class Transport(Protocol):
    async def start(self, deliver: Deliver) -> None:
        """From now on hand in what arrives for this member."""

    async def send(self, to: Member, sealed: bytes) -> bytes:
        """Hand an envelope to a member; its receipt. Raises NotDelivered."""

    async def stop(self) -> None: ...


def pack(secret: Secret, chain: str, to: str, messages: list[bytes]) -> bytes:
    """A signed envelope of messages that are JSON already: a broadcast is written once."""
    body = b'{"sender":"%s","to":"%s","messages":[%s]}' % (secret.name.encode(), to.encode(), b",".join(messages))
    return secret.sign(_statement("envelope", chain, body)).encode() + body


def unpack(sealed: bytes, me: str, chain: str, members: Callable[[str], Member | None], checks: Checks) -> Envelope:
    """The envelope of a member to this one. Raises NotAuthentic."""
    signature, body = sealed[:SIGNATURE_BYTES].decode("latin-1"), sealed[SIGNATURE_BYTES:]
    head = _HEAD.match(body)
    if head is None:
        raise NotAuthentic("no envelope")
    name, to = (found.decode() for found in head.groups())
    sender = members(name)
    if sender is None or to != me:
        raise NotAuthentic("not from a member, or not for this one")
    if not checks.signed(sender, _statement("envelope", chain, body), signature):
        raise NotAuthentic("not signed by its sender")
    try:
        envelope = Envelope.model_validate_json(body)
    except ValidationError as error:
        raise NotAuthentic(f"no envelope: {error.error_count()} faults") from None
    if (envelope.sender, envelope.to) != (name, to):
        raise NotAuthentic("an envelope of two senders")
    return envelope


def receipt(secret: Secret, chain: str, sealed: bytes) -> bytes:
    """What shows the sender that it was this member who took the envelope."""
    return secret.sign(_statement("receipt", chain, sealed)).encode()


def check_receipt(member: Member, chain: str, sealed: bytes, given: bytes, checks: Checks) -> None:
    """Raises NotDelivered."""
    if not checks.signed(member, _statement("receipt", chain, sealed), given.decode("latin-1")):
        raise NotDelivered("the receipt is not that member's")


def _statement(what: str, chain: str, body: bytes) -> str:
    return digest(what, chain, hashlib.sha256(body).hexdigest())


class HttpTransport:
    """``POST /messages`` at the URL of the member. The node's web application hands in what arrives."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def start(self, deliver: Deliver) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def send(self, to: Member, sealed: bytes) -> bytes:
        assert self._session is not None
        try:
            async with self._session.post(f"{to.url}/messages", data=sealed, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise NotDelivered(f"answered {answer.status}")
                return await answer.content.read(SIGNATURE_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: a host that is none
            raise NotDelivered(type(error).__name__) from None

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
