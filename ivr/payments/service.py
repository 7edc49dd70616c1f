"""Starting payments, moving them, and what a move brings with it. Every change of a payment passes here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval.telling import tell_approvers
from ivr.customers import audit
from ivr.customers.bills import has_live_payment
from ivr.customers.cards import authorised_cards
from ivr.customers.models import Bill, BillStatus, Card, Customer, new_id
from ivr.customers.notices import notify
from ivr.ledger import outbox as ledger
from ivr.log import scrub_value
from ivr.payments import books
from ivr.payments.models import Payment, PaymentEvent
from ivr.payments.processor import IdempotencyConflict as IdempotencyConflict
from ivr.payments.processor import PaymentError as PaymentError
from ivr.payments.processor import execute
from ivr.payments.receipts import new_receipt_number
from ivr.payments.states import FAILED, Event, State, move
from ivr.webhooks import outbox

DEBIT_JOB = "payment.debit"
DEBITED_AGAIN = ("approved", "expiry", "post", "release")
"""Why a worker carries on a payment that waited for others to agree, or was only held at first."""


class BillNotOpen(PaymentError):
    """The bill is unknown, another customer's, paid, cancelled, or has a payment under way."""


class CardNotAuthorised(PaymentError):
    """The card is unknown, another customer's, expired or revoked."""


class AmountAboveLimit(PaymentError):
    """The bill is above what this call, or this card, may pay."""


class WrongBank(PaymentError):
    """A test customer at a real bank, or a real customer at the sandbox."""


class TooLate(PaymentError):
    """The payment was confirmed so long ago that the caller no longer expects it."""


def payment_by_key(session: Session, idempotency_key: str) -> Payment | None:
    """The payment started under this key."""
    return session.scalar(select(Payment).where(Payment.idempotency_key == idempotency_key))


def start_payment(
    session: Session,
    *,
    bill_id: str,
    customer_id: str,
    card_id: str,
    idempotency_key: str,
    call_sid: str,
    evidence: Mapping[str, Any],
    now: datetime,
    limit_minor: int | None = None,
    ship_to: str | None = None,
    awaiting: str | None = None,
    bank: str = "sandbox",
    test_bank: bool = True,
) -> Payment:
    """Record that the caller confirmed, and queue the debit, in the caller's transaction.

    ``awaiting`` says why somebody else must agree first: nothing is queued then (``ivr.approval``).

    The same key gives the payment started first. ``evidence`` names the factors of the call, nothing secret.
    ``limit_minor`` is what this call may pay at most, in the bill's currency. ``test_bank``: the bank's money is
    play money. Raises PaymentError's kinds.
    """
    command = Start(
        bill_id=bill_id,
        customer_id=customer_id,
        card_id=card_id,
        bank=bank,
        test_bank=test_bank,
        call_sid=call_sid,
        evidence=evidence,
        limit_minor=limit_minor,
        idempotency_key=idempotency_key,
        ship_to=ship_to,
        awaiting=awaiting,
    )
    answer = execute(session, command, key=f"start:{idempotency_key}", who=f"call:{call_sid}", now=now)
    return session.get_one(Payment, answer["payment_id"])


@dataclass(frozen=True)
class Start:
    """Pay a bill with a card. The answer names the payment."""

    name: ClassVar[str] = "start"
    bill_id: str
    customer_id: str
    card_id: str
    bank: str = field(compare=False)
    test_bank: bool = field(compare=False)
    call_sid: str = field(compare=False)
    evidence: Mapping[str, Any] = field(compare=False)
    limit_minor: int | None = field(compare=False)
    idempotency_key: str
    ship_to: str | None = field(default=None, compare=False)
    awaiting: str | None = field(default=None, compare=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        # The bill's row is the lock: two starts of one bill come one after the other, on both databases.
        locked = session.get(Bill, self.bill_id, with_for_update=True)
        bill = _check_bill(session, locked, self.customer_id)
        card = check_card(session, self.card_id, self.customer_id, now)
        check_bank(session, self.customer_id, self.test_bank)
        _check_limits(bill, self.limit_minor, card.limit_minor)
        if scrub_value(self.evidence) != self.evidence:
            raise ValueError("the evidence holds what looks like a card number")

        payment = Payment(
            id=new_id(),
            bill_id=self.bill_id,
            customer_id=self.customer_id,
            card_id=self.card_id,
            amount_minor=bill.amount_minor,
            currency=bill.currency,
            hold_only=bill.hold_only,
            state=State.CREATED,
            idempotency_key=self.idempotency_key,
            bank=self.bank,
            bank_idempotency_key=new_id() + new_id(),
            capture_key=new_id() + new_id(),
            void_key=new_id() + new_id(),
            ship_to=self.ship_to,
            call_sid=self.call_sid,
            evidence=dict(self.evidence),
            created_at=now,
            updated_at=now,
        )
        session.add(payment)
        session.flush()
        _record(session, payment, None, who=who, why="confirmed by the caller")
        if self.awaiting is None:
            jobs.put(session, DEBIT_JOB, {"payment_id": payment.id}, f"{DEBIT_JOB}:{payment.id}", now)
        else:
            apply(session, payment, Event.VERIFY, who=who, why=self.awaiting, now=now)
            apply(session, payment, Event.ASK, who=who, why=self.awaiting, now=now)
        return {"payment_id": payment.id}


@dataclass(frozen=True)
class Move:
    """Something happened to a payment. Its key names payment and event: each happens once."""

    name: ClassVar[str] = "move"
    payment_id: str
    event: Event
    why: str = field(compare=False)
    bank_reference: str | None = None
    decline_reason: str | None = None
    link: str | None = field(default=None, compare=False, repr=False)
    hold_expires_at: datetime | None = field(default=None, compare=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        payment = session.get_one(Payment, self.payment_id, with_for_update=True)
        apply(
            session,
            payment,
            self.event,
            who=who,
            why=self.why,
            now=now,
            bank_reference=self.bank_reference,
            decline_reason=self.decline_reason,
            hold_expires_at=self.hold_expires_at,
        )
        if self.link:
            tell(session, payment, "payment.link", now, link=self.link)
        return {"state": payment.state.value}


def record_move(session: Session, move: Move, *, who: str, now: datetime) -> Payment:
    """Carry out a Move through the processor; the payment after it. Raises IllegalMove."""
    execute(session, move, key=f"{move.payment_id}:{move.event}", who=who, now=now)
    return session.get_one(Payment, move.payment_id, with_for_update=True)


def apply(
    session: Session,
    payment: Payment,
    event: Event,
    *,
    who: str,
    why: str,
    now: datetime,
    bank_reference: str | None = None,
    decline_reason: str | None = None,
    hold_expires_at: datetime | None = None,
) -> None:
    """Move a payment (its row locked by the caller), write its history, and settle its bill when it is final.

    Raises IllegalMove.
    """
    before, payment.state = payment.state, move(payment.state, event)
    payment.updated_at = now
    payment.bank_reference = bank_reference or payment.bank_reference
    payment.decline_reason = decline_reason or payment.decline_reason
    payment.hold_expires_at = hold_expires_at or payment.hold_expires_at
    _record(session, payment, before, who=who, why=why)
    books.book_move(session, payment, event, now)
    if payment.state is State.PAID:
        _settle(session, payment, now)
    elif payment.state is State.HELD:
        _keep(session, payment, now)
    elif payment.state in FAILED:
        bill = session.get_one(Bill, payment.bill_id, with_for_update=True)
        if bill.one_payment:
            bill.status = BillStatus.CANCELLED
        tell(session, payment, "payment.refused", now)
        outbox.emit(session, payment, "payment.refused", now)


def check_card(session: Session, card_id: str, customer_id: str, now: datetime) -> Card:
    """The card, if this customer may pay with it now. Raises CardNotAuthorised."""
    for card in authorised_cards(session, customer_id, now.date()):
        if card.id == card_id:
            return card
    raise CardNotAuthorised(f"card {card_id} is not authorised")


def check_bank(session: Session, customer_id: str, test_only: bool) -> None:
    """Play money for test customers only, and real money never for them. Raises WrongBank."""
    customer = session.get_one(Customer, customer_id)
    if customer.test != test_only:
        raise WrongBank(
            "a test bank debits test customers only" if test_only else "a test customer has no real card"
        )


def _check_bill(session: Session, bill: Bill | None, customer_id: str) -> Bill:
    """The bill, if it is this customer's to pay now."""
    if bill is None or bill.customer_id != customer_id or bill.status != BillStatus.OPEN:
        raise BillNotOpen("there is no such open bill of this customer")
    if has_live_payment(session, bill.id):
        raise BillNotOpen(f"a payment of bill {bill.id} is under way")
    return bill


def _check_limits(bill: Bill, *limits_minor: int | None) -> None:
    for limit in limits_minor:
        if limit is not None and bill.amount_minor > limit:
            raise AmountAboveLimit(f"bill {bill.id} is above the limit of {limit} minor units")


def _settle(session: Session, payment: Payment, now: datetime) -> None:
    session.get_one(Bill, payment.bill_id, with_for_update=True).status = BillStatus.PAID
    payment.receipt_number = new_receipt_number(session)
    tell(session, payment, "payment.made", now)
    outbox.emit(session, payment, "payment.paid", now)
    ledger.settled(session, payment, now)


def _keep(session: Session, payment: Payment, now: datetime) -> None:
    """Tell of what is held, and look after it again when the bank lets go of it."""
    tell(session, payment, "payment.held", now)
    outbox.emit(session, payment, "payment.held", now)
    if payment.hold_expires_at:
        queue_debit(session, payment, "expiry", payment.hold_expires_at)


def queue_debit(session: Session, payment: Payment, why: str, run_at: datetime) -> None:
    """Have a worker carry the payment on again, at ``run_at``; once for each ``why``."""
    jobs.put(session, DEBIT_JOB, {"payment_id": payment.id}, f"{DEBIT_JOB}:{payment.id}:{why}", run_at)


def tell(
    session: Session,
    payment: Payment,
    template: str,
    now: datetime,
    amount_minor: int | None = None,
    **more: str,
) -> None:
    """A notice to the customer; of the whole amount unless another is given."""
    card, bill = session.get_one(Card, payment.card_id), session.get_one(Bill, payment.bill_id)
    values: dict[str, Any] = {
        "merchant": bill.merchant,
        "amount_minor": payment.debit_minor if amount_minor is None else amount_minor,
        "currency": payment.currency,
        "last4": card.last4,
        **more,
    }
    if payment.receipt_number:
        values["receipt"] = payment.receipt_number
    notify(session, payment.customer_id, template, values, now)
    if template in _TOLD_TO_APPROVERS:
        tell_approvers(session, payment.customer_id, _TOLD_TO_APPROVERS[template], values, now)


_TOLD_TO_APPROVERS = {
    "payment.made": "ward.made",
    "payment.held": "ward.made",
    "payment.refused": "ward.refused",
}


def _record(session: Session, payment: Payment, before: State | None, *, who: str, why: str) -> None:
    session.add(
        PaymentEvent(
            payment_id=payment.id,
            at=payment.updated_at,
            from_state=before,
            to_state=payment.state,
            who=who,
            why=why,
        )
    )
    moved = {"from": before.value if before else None, "to": payment.state.value, "why": why}
    audit.record(session, who, "payment.moved", payment.id, payment.updated_at, **moved)
