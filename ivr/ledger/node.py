"""The process of one member: it takes messages and records, keeps the rules, stores, and only then sends.

One loop does it all, in batches: whatever has arrived is worked through, stored in one transaction, and answered. The
web application and the senders only fill and empty bounded queues around it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import structlog
from pydantic import Field, ValidationError

from ivr.ledger.crypto import Sodium, SodiumSecret
from ivr.ledger.rules import Core
from ivr.ledger.store import Store
from ivr.ledger.transport import (
    LONGEST_ENVELOPE,
    MOST_MESSAGES,
    Busy,
    NotAuthentic,
    NotDelivered,
    Transport,
    check_receipt,
    pack,
    receipt,
    unpack,
)
from ivr.ledger.wire import Change, Entry, Genesis, Member, Record, Records, Wire

MOST_INBOX = 512
MOST_OUTBOX = 256
"""Messages that wait for one member. When there are more the oldest are dropped, as a network would."""
BATCH = 64
GATHER_S = 0.02
"""How long records wait for others to travel with, if nothing more urgent goes to that member."""
FIRST_REST_S, LONGEST_REST_S = 0.05, 1.0
"""How long a member that cannot be reached is left alone."""

log = structlog.get_logger(__name__)


class Unusable(Exception):
    """A file of the node is missing or wrong."""


class Identity(Wire):
    """A member's secrets, in a file that only its owner can read."""

    name: str
    seed: str = Field(repr=False)
    token: str = Field(repr=False)  # of its own institution's service

    @classmethod
    def fresh(cls, name: str) -> Identity:
        return cls(name=name, seed=secrets.token_hex(32), token=secrets.token_urlsafe(32))

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Raises Unusable."""
        path = folder / "member.json"
        try:
            if path.stat().st_mode & 0o077:
                raise Unusable(f"{path} is open to others: chmod 600 {path}")
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise Unusable(f"{path} is no member file ({type(error).__name__}): ivr ledger keygen") from None

    @property
    def secret(self) -> SodiumSecret:
        return SodiumSecret(self.name, bytes.fromhex(self.seed))


def load_genesis(path: Path) -> Genesis:
    """Raises Unusable."""
    try:
        return Genesis.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Unusable(f"{path} is no genesis file ({type(error).__name__}): ivr ledger genesis") from None


@dataclass(frozen=True)
class NewEntry:
    """What the service hands in, to be signed here."""

    kind: str
    id: str
    commitment: str


class Node:
    """Build it, ``await run()``, cancel that to end it."""

    def __init__(
        self, identity: Identity, genesis: Genesis, store: Store, transport: Transport, *, patience_s: float
    ) -> None:
        self.identity, self.genesis, self.store, self.transport = identity, genesis, store, transport
        self.secret, self.checks = identity.secret, Sodium()
        self.core = Core(
            self.secret,
            self.checks,
            store.state,
            store,
            store.memory,
            now=time.monotonic(),
            new_nonce=lambda: secrets.token_hex(32),
            patience_s=patience_s,
        )
        self._work: asyncio.Queue[Callable[[], None]] = asyncio.Queue(MOST_INBOX)
        self._waiting: Counter[str] = Counter()  # envelopes of each member
        self._outboxes: dict[str, deque[bytes]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._senders: dict[str, asyncio.Task[None]] = {}
        self.dropped = 0

    # In

    async def deliver(self, sealed: bytes) -> bytes:
        """A signed envelope from anywhere; the signed receipt. Raises NotAuthentic, Busy."""
        if len(sealed) > LONGEST_ENVELOPE:
            raise NotAuthentic("an envelope longer than any")
        envelope = unpack(sealed, self.secret.name, self.genesis.chain, self.member, self.checks)

        if self._waiting[envelope.sender] >= max(4, MOST_INBOX // len(self.core.state.roster)):
            raise Busy  # no member can fill the room of the others

        def work() -> None:
            self._waiting[envelope.sender] -= 1
            for message in envelope.messages:
                self.core.receive(envelope.sender, message, time.monotonic())

        try:
            self._work.put_nowait(work)
        except asyncio.QueueFull:
            raise Busy from None
        self._waiting[envelope.sender] += 1
        return receipt(self.secret, self.genesis.chain, sealed)

    async def submit(self, entries: Sequence[NewEntry]) -> list[str]:
        """Sign entries of this institution and tell everybody; why each was refused, or "". Raises Full, Busy."""
        return await self._hand_in([self._signed(entry) for entry in entries])

    async def submit_change(self, change: Change) -> list[str]:
        return await self._hand_in([change])

    def _signed(self, new: NewEntry) -> Entry:
        values: dict[str, Any] = {"kind": new.kind, "id": new.id, "commitment": new.commitment}
        draft = Entry(**values, member=self.secret.name, signature="0" * 128)
        return draft.replaced(signature=self.secret.sign(draft.statement(self.genesis.chain)))

    async def _hand_in(self, records: Sequence[Record]) -> list[str]:
        done: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(self.core.submit(records, time.monotonic()))
            except Exception as error:
                done.set_exception(error)

        try:
            self._work.put_nowait(work)
        except asyncio.QueueFull:
            raise Busy from None
        return await done

    def member(self, name: str) -> Member | None:
        """A member by its name: one now, one soon, or one that began the chain (of whom late joiners ask)."""
        state = self.core.state
        for member in (*state.roster, *state.upcoming, *self.genesis.members):
            if member.name == name:
                return member
        return None

    # The loop

    async def run(self) -> None:
        await self.transport.start(self.deliver)
        try:
            log.info("ledger node started", member=self.secret.name, height=self.core.state.height)
            self._flush()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self.core.wake_at - time.monotonic())):
                        (await self._work.get())()
                for _ in range(BATCH):
                    if self._work.empty():
                        break
                    self._work.get_nowait()()
                if time.monotonic() >= self.core.wake_at:
                    self.core.tick(time.monotonic())
                self._flush()
                await asyncio.sleep(0)  # let the senders and the web application have their turn
        finally:
            for task in self._senders.values():
                task.cancel()
            await self.transport.stop()

    def _flush(self) -> None:
        """Store, then send: nobody may forget what it signed."""
        self.store.commit(self.core.memory)
        outbox, self.core.outbox = self.core.outbox, []
        state = self.core.state
        names = {member.name for member in (*state.roster, *state.upcoming)} | {m.name for m in self.genesis.members}
        names.discard(self.secret.name)
        written: dict[int, bytes] = {}
        for to, message in outbox:
            body = written.setdefault(id(message), b"") or message.model_dump_json().encode()
            written[id(message)] = body
            for name in names if to is None else {to} & names:
                self._queue(name, body, urgent=not isinstance(message, Records))

    def _queue(self, name: str, body: bytes, *, urgent: bool) -> None:
        if name not in self._senders:
            self._outboxes[name] = deque(maxlen=MOST_OUTBOX)
            self._wakes[name] = asyncio.Event()
            self._senders[name] = asyncio.create_task(self._keep_sending(name))
        outbox = self._outboxes[name]
        self.dropped += len(outbox) == outbox.maxlen
        outbox.append(body)
        if urgent:
            self._wakes[name].set()
        elif len(outbox) == 1:
            asyncio.get_running_loop().call_later(GATHER_S, self._wakes[name].set)

    async def _keep_sending(self, name: str) -> None:
        """Empty one member's queue. What cannot be delivered is dropped: the rules send again what matters."""
        outbox, wake, rest_s = self._outboxes[name], self._wakes[name], FIRST_REST_S
        while True:
            await wake.wait()
            wake.clear()
            while outbox:
                messages = [outbox.popleft()]
                size = len(messages[0])
                while outbox and len(messages) < MOST_MESSAGES and size + len(outbox[0]) < LONGEST_ENVELOPE // 2:
                    messages.append(outbox.popleft())
                    size += len(messages[-1])
                try:
                    await self._send(name, messages)
                    rest_s = FIRST_REST_S
                except NotDelivered as error:
                    log.debug("member not reached", member=name, reason=str(error))
                    await asyncio.sleep(rest_s)
                    rest_s = min(2 * rest_s, LONGEST_REST_S)

    async def _send(self, name: str, messages: list[bytes]) -> None:
        member = self.member(name)
        if member is None:
            return
        sealed = pack(self.secret, self.genesis.chain, name, messages)
        given = await self.transport.send(member, sealed)
        check_receipt(member, self.genesis.chain, sealed, given, self.checks)


def lock(folder: Path) -> IO[str]:
    """One node at a time uses a folder's store: of two, each would sign what the other knows nothing of.

    Held until the file is closed. Raises Unusable.
    """
    file = open(folder / "lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Unusable(f"a node is running in {folder}") from None
    return file


def write_private(path: Path, text: str) -> None:
    """A file that only its owner can read; never over another. Raises Unusable."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        raise Unusable(f"{path} is there already: a member's key is made once") from None
