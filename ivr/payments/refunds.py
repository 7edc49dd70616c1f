"""Refunds, whole and part: asked for by a command, given back by a worker, recorded by a second command."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.customers import audit
from ivr.customers.models import new_id
from ivr.jobs import Again, GiveUp, Held
from ivr.ledger import outbox as ledger
from ivr.payments import books, service
from ivr.payments.bank import Bank, BankError, Declined, Refunded
from ivr.payments.debit import KEY_LIFE, wait_before
from ivr.payments.models import Payment, Refund, RefundState
from ivr.payments.processor import PaymentError, execute
from ivr.payments.service import tell
from ivr.payments.states import Event, State
from ivr.webhooks import outbox

REFUND_JOB = "payment.refund"
log = structlog.get_logger(__name__)


class NotRefundable(PaymentError):
    """The payment is unknown, not paid, or the amount is more than what is left of it."""


@dataclass(frozen=True)
class RequestRefund:
    """Give back ``amount_minor`` of a payment; all that is left of it when None. The answer names the refund."""

    name: ClassVar[str] = "request_refund"
    payment_id: str
    amount_minor: int | None
    why: str = field(compare=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        payment = session.get(Payment, self.payment_id, with_for_update=True)
        if payment is None or payment.state not in (State.PAID, State.PART_REFUNDED):
            raise NotRefundable(
                f"there is no paid payment {self.payment_id!r}; `ivr payments settlement DAY` lists those of a day"
            )
        left = payment.debit_minor - _sum(session, payment.id, RefundState.REQUESTED, RefundState.DONE)
        amount = left if self.amount_minor is None else self.amount_minor
        if not 0 < amount <= left:
            raise NotRefundable(f"payment {payment.id} has {left} minor units left to give back")
        refund = Refund(
            id=new_id(),
            payment_id=payment.id,
            amount_minor=amount,
            state=RefundState.REQUESTED,
            bank_key=new_id() + new_id(),
            why=self.why,
            created_at=now,
            updated_at=now,
        )
        session.add(refund)
        session.flush()
        audit.record(session, who, "refund.requested", payment.id, now, refund=refund.id, amount_minor=amount)
        jobs.put(session, REFUND_JOB, {"refund_id": refund.id}, f"{REFUND_JOB}:{refund.id}", now)
        return {"refund_id": refund.id, "amount_minor": amount}


@dataclass(frozen=True)
class ResolveRefund:
    """The bank gave the refund back, or will not. ``why`` says how that is known."""

    name: ClassVar[str] = "resolve_refund"
    refund_id: str
    done: bool
    why: str = field(compare=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        refund = session.get_one(Refund, self.refund_id)
        payment = session.get_one(Payment, refund.payment_id, with_for_update=True)
        refund.state = RefundState.DONE if self.done else RefundState.REFUSED
        refund.updated_at = now
        session.flush()
        audit.record(session, who, f"refund.{refund.state}", payment.id, now, refund=refund.id, why=self.why)
        if self.done:
            books.book_refund(session, payment, refund.id, refund.amount_minor, now)
            whole = _sum(session, payment.id, RefundState.DONE) == payment.debit_minor
            event = Event.REFUND if whole else Event.REFUND_PART
            service.apply(session, payment, event, who=who, why=refund.why, now=now)
            tell(session, payment, "payment.refunded", now, refund.amount_minor)
            outbox.emit(session, payment, "payment.refunded", now, refunded_minor=refund.amount_minor)
            ledger.refunded(session, payment, refund.id, refund.amount_minor, now)
        return {"state": refund.state.value}


def request_refund(
    session: Session, payment_id: str, amount_minor: int | None, *, key: str, who: str, why: str, now: datetime
) -> Refund:
    """Queue a refund; the same key gives the refund asked for first. Raises NotRefundable, IdempotencyConflict."""
    answer = execute(session, RequestRefund(payment_id, amount_minor, why), key=f"refund:{key}", who=who, now=now)
    return session.get_one(Refund, answer["refund_id"])


def resolve(session: Session, refund_id: str, done: bool, *, who: str, why: str, now: datetime) -> RefundState:
    """Record what became of a refund, once; its state. Raises IdempotencyConflict when it ended otherwise."""
    answer = execute(session, ResolveRefund(refund_id, done, why), key=f"refund-resolved:{refund_id}", who=who, now=now)
    return RefundState(answer["state"])


def give_back(held: Held, bank: Bank) -> None:
    """Have the bank give a refund back, by the identical request until it answers.

    Raises Again when the bank gave no answer, GiveUp when a person is needed, LeaseLost.
    """
    with held.transaction() as session:
        refund = session.get_one(Refund, held.payload["refund_id"])
        payment = session.get_one(Payment, refund.payment_id)
    if refund.state is not RefundState.REQUESTED:
        return
    if payment.bank != bank.name:
        raise GiveUp("WrongBank")
    if payment.bank_reference is None:  # a person said that it was paid, and the bank never named it to us
        raise GiveUp("NoBankReference")
    if datetime.now(UTC) - refund.created_at > KEY_LIFE:
        log.error("refund needs a person", refund=refund.id)
        raise GiveUp("KeyLifeOver")
    try:
        answer = bank.refund(payment.bank_reference, refund.amount_minor, key=refund.bank_key)
    except BankError as error:
        log.warning("bank gave no answer to a refund", refund=refund.id, error=type(error).__name__)
        raise Again(wait_before(held.attempts + 1), type(error).__name__) from error
    why = f"declined by the bank: {answer.reason}" if isinstance(answer, Declined) else "given back by the bank"
    with held.transaction() as session:
        who, now = f"worker:{held.holder}", datetime.now(UTC)
        state = resolve(session, refund.id, isinstance(answer, Refunded), who=who, why=why, now=now)
    (log.info if state is RefundState.DONE else log.error)("refund ended", refund=refund.id, state=state, why=why)


def _sum(session: Session, payment_id: str, *states: RefundState) -> int:
    query = select(func.coalesce(func.sum(Refund.amount_minor), 0))
    return int(session.scalar(query.where(Refund.payment_id == payment_id, Refund.state.in_(states))) or 0)
