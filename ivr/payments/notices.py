"""The bank's notices of debits that it is about to make, and our answers: confirmed, or refused with a reason.

1. An answer that was given before is given again.
2. The index in Redis finds the pending debit and claims it; one that is not there yet is waited for, briefly.
3. The database confirms: a command under the notice's key, the payment's row locked, a unique index over what was
   confirmed. Only what is committed here is answered.
4. The index learns that the debit is confirmed.

A process that dies after 2 leaves a claim that lapses and that the repeated notice has anyway; after 3 the repeated
notice finds its answer, and another notice of the same debit is refused by the database. Nothing is lost with Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar

import structlog
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from ivr.customers import audit
from ivr.payments.models import DebitNotice, Payment
from ivr.payments.pending import Debit, PendingDebits, Verdict
from ivr.payments.processor import answered, execute
from ivr.payments.states import State
from ivr.store.db import Database

WAIT_S = 1.0
"""How long a notice waits for its payment; less than the bank waits for us."""
POLL_S = 0.02
MOST_WAITING = 16
"""Notices that wait at a time in one process, so that those for which there is a payment find a thread."""

log = structlog.get_logger(__name__)


class NotKnownYet(Exception):
    """The index is being rebuilt, and what is not found may be pending all the same: the bank is to ask again."""


@dataclass(frozen=True)
class Notice:
    """The bank is about to debit. Its id is the bank's own, and stays when the notice is repeated."""

    id: str
    bank: str
    debit: Debit

    @property
    def key(self) -> str:
        """The idempotency key of our answer."""
        return f"notice:{self.bank}:{self.id}"


@dataclass(frozen=True)
class Answer:
    """Decide on a notice and record that: for the payment that the index found, or against, for its reason."""

    name: ClassVar[str] = "answer_notice"
    notice: Notice
    # What the index says changes with time, and the first answer stands.
    payment_id: str | None = field(compare=False)
    verdict: Verdict = field(compare=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        debit = self.notice.debit
        reason = self._refusal(session, now) if self.verdict is Verdict.FOUND else self.verdict
        row = DebitNotice(
            bank=self.notice.bank,
            id=self.notice.id,
            payment_id=self.payment_id,
            amount_minor=debit.amount_minor,
            currency=debit.currency,
            reference=debit.reference,
            reason=reason.value if reason else None,
            at=now,
        )
        session.add(row)
        what = "debit.refused" if reason else "debit.confirmed"
        details = {"notice": self.notice.id, "reason": row.reason}
        audit.record(session, who, what, self.payment_id or self.notice.id, now, **details)
        answer = {"notice": self.notice.id, "amount_minor": debit.amount_minor, "currency": debit.currency}
        if reason:
            return answer | {"decision": "refused", "reason": reason.value}
        return answer | {"decision": "confirmed", "payment": self.payment_id}

    def _refusal(self, session: Session, now: datetime) -> Verdict | None:
        """Why the payment that the index found must not be debited now; None when it may."""
        payment = session.get_one(Payment, self.payment_id, with_for_update=True)
        confirmed = select(DebitNotice.id).where(DebitNotice.payment_id == payment.id, DebitNotice.reason.is_(None))
        if session.scalar(confirmed) is not None:
            return Verdict.ALREADY_CONFIRMED
        if payment.state is not State.AUTHORISED or payment.bank != self.notice.bank:
            return Verdict.NO_SUCH_PAYMENT
        if (payment.debit_minor, payment.currency) != (self.notice.debit.amount_minor, self.notice.debit.currency):
            return Verdict.OTHER_AMOUNT
        if payment.hold_expires_at is not None and payment.hold_expires_at <= now:
            return Verdict.EXPIRED
        return None


_SINGLED_OUT = (Verdict.FOUND, Verdict.TWO_CANDIDATES)
"""What the index says by card, merchant and amount alone."""


class Confirmations:
    """Answers notices. Share one a process."""

    def __init__(self, database: Database, pending: PendingDebits, clock: Callable[[], datetime]) -> None:
        self._database, self._pending, self._clock = database, pending, clock
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def answer(self, notice: Notice) -> dict[str, Any]:
        """The decision, as JSON; to the same notice always the same.

        Raises NotKnownYet, IdempotencyConflict when the notice's id came with another debit, and the errors of both
        stores; then nothing is decided.
        """
        with self._database.transaction() as session:
            first = answered(session, Answer(notice, None, Verdict.REBUILDING), key=notice.key)
        if first:
            return first
        verdict, payment_id = self._match(notice)
        if notice.debit.reference is None and verdict in _SINGLED_OUT and self._sweep(notice):
            verdict, payment_id = self._match(notice)
        if verdict is Verdict.REBUILDING:
            raise NotKnownYet
        command = Answer(notice, payment_id, verdict)
        with self._database.transaction() as session:
            answer = execute(session, command, key=notice.key, who=f"bank:{notice.bank}", now=self._clock())
            reference = session.get_one(Payment, payment_id).bank_reference if payment_id else None
        log.info("notice answered", notice=notice.id, payment=payment_id, reason=answer.get("reason"))
        if reference and answer["decision"] == "confirmed":
            self._pending.confirmed(notice.id, reference)
        return answer

    def _sweep(self, notice: Notice) -> bool:
        """Take out of the index what looks like this notice's debit and is over; whether there was any.

        A worker that died, or could not reach Redis, leaves such entries. Where the notice has a reference they harm
        nobody; without one they would stand beside the debit that is meant.
        """
        ids = self._pending.candidates(notice.debit)
        of_payment = (DebitNotice.payment_id == Payment.id, DebitNotice.reason.is_(None))
        query = select(Payment, DebitNotice.id).outerjoin(DebitNotice, and_(*of_payment)).where(Payment.id.in_(ids))
        with self._database.transaction() as session:
            found = session.execute(query).all()
        over = [(payment, by) for payment, by in found if by or payment.state is not State.AUTHORISED]
        for payment, by in over:
            if by and payment.bank_reference:
                self._pending.confirmed(by, payment.bank_reference)
            self._pending.drop(replace(notice.debit, reference=payment.bank_reference))
        return bool(over)

    def _match(self, notice: Notice) -> tuple[Verdict, str | None]:
        found = self._pending.match(notice.id, notice.debit, self._clock())
        if not _may_come(notice, found[0]) or not self._places.acquire(blocking=False):
            return found
        try:
            deadline = time.monotonic() + WAIT_S
            while _may_come(notice, found[0]) and time.monotonic() < deadline:
                time.sleep(POLL_S)
                found = self._pending.match(notice.id, notice.debit, self._clock())
            return found
        finally:
            self._places.release()


def _may_come(notice: Notice, verdict: Verdict) -> bool:
    """Whether the payment of the notice may be under way to the index."""
    if verdict is Verdict.OTHER_AMOUNT:
        return notice.debit.reference is None  # then it is another payment of this card
    return verdict in (Verdict.NO_SUCH_PAYMENT, Verdict.REBUILDING)
