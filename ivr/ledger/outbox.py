"""From settled payments to the ledger and back: an outbox, carried by a worker to this institution's node.

An entry is written in the transaction that settles. It is handed in again and again until its proof is there: the
node forgets what waits when it ends, and a record that comes twice is one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import requests
import structlog
from sqlalchemy import or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ivr.customers.models import Bill
from ivr.ledger.chain import Invalid
from ivr.ledger.models import LedgerEntry
from ivr.ledger.wire import Record
from ivr.payments.models import Payment
from ivr.settings import Settings
from ivr.store.db import Database

PAGE = 500
POLL_S = 0.2
AGAIN_S = 10.0
"""How long after handing an entry in it is handed in again, if it is not final by then."""
LONGEST_WAIT_S = 30.0
TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


class NodeUnavailable(Exception):
    """The node gave no usable answer."""


def settled(session: Session, payment: Payment, now: datetime) -> None:
    """A payment was debited."""
    record(session, "payment", payment.id, payment.id, _details(session, payment, now), now)


def refunded(session: Session, payment: Payment, refund_id: str, refunded_minor: int, now: datetime) -> None:
    """Money of a payment was given back."""
    details = _details(session, payment, now) | {"refund": refund_id, "refunded_minor": refunded_minor}
    record(session, "refund", refund_id, payment.id, details, now)


def settlement_closed(
    session: Session, day: date, lines: Iterable[Sequence[str | int | None]], now: datetime
) -> LedgerEntry:
    """A day of settlement: the hash of its lines, as ``ivr payments settlement`` prints them."""
    written = [json.dumps(line, separators=(",", ":")) for line in lines]
    total = hashlib.sha256("\n".join(written).encode()).hexdigest()
    details = {"day": day.isoformat(), "lines": len(written), "sha256": total}
    return record(session, "settlement", day.isoformat(), None, details, now)


def _details(session: Session, payment: Payment, now: datetime) -> dict[str, Any]:
    merchant = session.get_one(Bill, payment.bill_id).merchant
    details = {"payment": payment.id, "amount_minor": payment.debit_minor, "currency": payment.currency}
    return {**details, "merchant": merchant, "at": now.isoformat()}


def record(
    session: Session, kind: str, subject: str, payment_id: str | None, details: Mapping[str, Any], now: datetime
) -> LedgerEntry:
    """Write an entry in the caller's transaction; the same kind and subject give the entry written first.

    ``details`` are what the commitment is opened with, to whoever has to see: still nothing personal.
    """
    query = select(LedgerEntry).where(LedgerEntry.kind == kind, LedgerEntry.subject == subject)
    if first := session.scalar(query):
        return first
    entry = LedgerEntry(
        kind=kind,
        subject=subject,
        payment_id=payment_id,
        details=dict(details),
        salt=secrets.token_hex(32),
        created_at=now,
    )
    session.add(entry)
    session.flush()
    return entry


def commitment(salt: str, details: Mapping[str, Any]) -> str:
    """SHA-256 over 32 random bytes and the details: tells nothing to whoever lacks the salt."""
    written = json.dumps(details, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(bytes.fromhex(salt) + written).hexdigest()


def receipt_of(session: Session, subject: str) -> list[dict[str, Any]]:
    """What proves that a payment and its refunds, or a day's settlement, are on the ledger; the rest is left out."""
    query = select(LedgerEntry).where(
        or_(LedgerEntry.payment_id == subject, LedgerEntry.subject == subject), LedgerEntry.height.is_not(None)
    )
    shown = ("kind", "subject", "details", "salt", "proof")
    return [{name: getattr(e, name) for name in shown} for e in session.scalars(query.order_by(LedgerEntry.id))]


def check_receipt(receipt: Mapping[str, Any], found: Record) -> None:
    """Whether salt and details open the commitment of a record that was proved. Raises Invalid."""
    opened = commitment(receipt["salt"], receipt["details"])
    if (found.kind, getattr(found, "id", ""), getattr(found, "commitment", "")) != (
        receipt["kind"],
        receipt["subject"],
        opened,
    ):
        raise Invalid("the details are not those that were committed to")


class NodeClient:
    """This institution's node."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._http = url.rstrip("/"), requests.Session()
        self._http.headers["Authorization"] = f"Bearer {token}"
        self._member = ""

    def submit(self, entries: Sequence[LedgerEntry]) -> dict[str, str]:
        """Hand entries in; why the node refuses some of them, by subject. Raises NodeUnavailable."""
        body = [{"kind": e.kind, "id": e.subject, "commitment": commitment(e.salt, e.details)} for e in entries]
        refused: dict[str, str] = self._ask("POST", "/entries", {"entries": body})["refused"]
        return refused

    def proofs(self, entries: Sequence[LedgerEntry]) -> dict[int, dict[str, Any]]:
        """The proofs of those that are final, by the entry's id. Raises NodeUnavailable."""
        self._member = self._member or str(self._ask("GET", "/status")["member"])
        keys = {f"{entry.kind}:{self._member}:{entry.subject}": entry.id for entry in entries}
        found = self._ask("POST", "/proofs", {"keys": list(keys)})["proofs"]
        return {keys[key]: proof for key, proof in found.items()}

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, f"{self._url}{path}", json=body, timeout=TIMEOUT_S)
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise NodeUnavailable(type(error).__name__) from None
        return told


class Carrier:
    """Takes what waits to the node, and its proofs back. Several at a time do no harm."""

    def __init__(self, database: Database, node: NodeClient) -> None:
        self._database, self._node = database, node
        self._handed_in: dict[int, float] = {}

    def step(self) -> int:
        """One round; how many entries still wait. Raises NodeUnavailable, SQLAlchemyError."""
        with self._database.transaction() as session:
            query = select(LedgerEntry).where(LedgerEntry.height.is_(None), LedgerEntry.refused.is_(None))
            waiting = session.scalars(query.order_by(LedgerEntry.id).limit(PAGE)).all()
        if not waiting:
            return 0
        handed_in = [entry for entry in waiting if entry.id in self._handed_in]
        proofs = self._node.proofs(handed_in) if handed_in else {}
        now = time.monotonic()
        due = [
            entry
            for entry in waiting
            if entry.id not in proofs and now - self._handed_in.get(entry.id, -AGAIN_S) >= AGAIN_S
        ]
        refused = self._node.submit(due) if due else {}
        self._handed_in |= {entry.id: now for entry in due}
        with self._database.transaction() as session:
            for entry in waiting:
                if (proof := proofs.get(entry.id)) is not None:
                    self._finish(session.get_one(LedgerEntry, entry.id), proof)
        for subject, why in refused.items():  # a full node, or a member that left: again later, and somebody must look
            log.error("ledger entry refused", subject=subject, why=why)
        return len(waiting) - len(proofs)

    def _finish(self, entry: LedgerEntry, proof: dict[str, Any]) -> None:
        self._handed_in.pop(entry.id, None)
        inclusion = proof["inclusion"]
        if inclusion["record"]["commitment"] != commitment(entry.salt, entry.details):
            entry.refused = "another commitment of this id is on the ledger"
            log.error("ledger entry needs a person", entry=entry.id, subject=entry.subject, why=entry.refused)
            return
        entry.height, entry.proof = inclusion["header"]["height"], proof
        log.info("ledger entry final", kind=entry.kind, subject=entry.subject, height=entry.height)


def carry(database: Database, settings: Settings, stop: threading.Event) -> None:
    """A worker's lane: carry entries until ``stop`` is set. For settings that name a node."""
    assert settings.ledger_url is not None
    carrier = Carrier(database, NodeClient(settings.ledger_url, settings.ledger_token.get_secret_value()))
    wait_s = POLL_S
    while not stop.is_set():
        try:
            carrier.step()
            wait_s = POLL_S
        except (NodeUnavailable, SQLAlchemyError) as error:
            log.warning("ledger out of reach", reason=type(error).__name__)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        stop.wait(wait_s)
