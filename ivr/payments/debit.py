"""The debit of one payment: authorise, then capture. What a worker does with the job that a payment queued.

No transaction is open while the bank is asked. The state is stored before the bank is asked for the next
step, and each request has its own stored key, so a worker that dies anywhere leaves a payment that the next
worker carries on by the identical request.

When the bank does not answer, the request is repeated after growing waits; after ``PATIENT_ATTEMPTS`` the
payment is ``unknown`` and will be undone instead: whatever the bank holds for it is voided or, if the debit
did happen, it is paid. What is still not certain after ``KEY_LIFE`` is left to a person. Where no caller waits,
because an amount is held first and posted later, the bank is asked for as long as that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from redis import RedisError
from sqlalchemy.orm import Session

from ivr.customers.models import Bill, BillStatus, Card
from ivr.jobs import Again, GiveUp, Held
from ivr.payments import service
from ivr.payments.bank import Authorised, Bank, BankError, Captured, Declined, Voided
from ivr.payments.keeper import as_pending
from ivr.payments.models import Payment
from ivr.payments.pending import PendingDebits
from ivr.payments.states import Event, State

PATIENT_ATTEMPTS = 6
"""How often the bank is asked, over some 15 seconds, before the payment is given up as unknown."""
FIRST_WAIT = timedelta(seconds=0.5)
LONGEST_WAIT = timedelta(minutes=10)
KEY_LIFE = timedelta(hours=23)
"""How long after its start a payment's keys are used: banks forget them, Stripe after 24 hours."""


@dataclass(frozen=True)
class Order:
    """What the bank is told besides what the payment itself says."""

    card_token: str = field(repr=False)
    merchant: str


Answer = Authorised | Declined | Captured | Voided
log = structlog.get_logger(__name__)


def debit(held: Held, bank: Bank, pending: PendingDebits | None = None) -> None:
    """Carry a payment on to its end from wherever it stands. A bank that confirms debits needs ``pending``.

    Raises Again when the bank gave no answer, GiveUp when a person is needed, LeaseLost.
    """
    payment, order = _begin(held, bank)
    while ask := _STEPS.get(payment.state):
        if datetime.now(UTC) - _keys_used_since(payment) > KEY_LIFE:
            log.error("payment needs a person", payment=payment.id, state=payment.state)
            raise GiveUp("KeyLifeOver")
        try:
            if pending and payment.state is State.AUTHORISED:  # before the bank asks for it; stored is it already
                pending.put(as_pending(payment, order.card_token, order.merchant), datetime.now(UTC))
            answer = ask(bank, payment, order)
        except (BankError, RedisError) as error:
            log.warning(
                "bank gave no answer", payment=payment.id, state=payment.state, error=type(error).__name__
            )
            if _caller_waits(payment) and held.attempts >= PATIENT_ATTEMPTS:
                payment = _record(held, payment.id, Event.LOSE, why=type(error).__name__)
                _forget(pending, payment, order)
            raise Again(wait_before(held.attempts + 1), type(error).__name__) from error
        payment = _record_answer(held, payment, answer)
        _forget(pending, payment, order)


def wait_before(attempt: int) -> timedelta:
    """How long to wait before attempt number 2, 3, ...: doubling, from half a second to ten minutes."""
    return min(LONGEST_WAIT, FIRST_WAIT * (1 << min(attempt - 2, 20)))


def _forget(pending: PendingDebits | None, payment: Payment, order: Order) -> None:
    """Take out of the index what is pending no more. What a lost Redis or worker leaves there is never confirmed."""
    if pending and payment.bank_reference and payment.state is not State.AUTHORISED:
        with suppress(RedisError):
            pending.drop(as_pending(payment, order.card_token, order.merchant).debit)


def _caller_waits(payment: Payment) -> bool:
    return payment.state is State.DEBITING or (payment.state is State.AUTHORISED and not payment.hold_only)


def _keys_used_since(payment: Payment) -> datetime:
    """When the keys that are in use may have been sent first: of what was held, only when it was posted or released."""
    later = payment.hold_only and payment.state in (State.AUTHORISED, State.VOIDING)
    return payment.updated_at if later else payment.created_at


def _begin(held: Held, bank: Bank) -> tuple[Payment, Order]:
    """The payment and what the bank is told of it; a new payment is ``debiting``, or refused, when this returns."""
    with held.transaction() as session:
        payment = session.get_one(Payment, held.payload["payment_id"], with_for_update=True)
        card = session.get_one(Card, payment.card_id)
        now = datetime.now(UTC)
        if payment.state is State.HELD and payment.hold_expires_at and payment.hold_expires_at <= now:
            found = service.Move(payment.id, Event.RELEASE, "nobody posted it in time")
            payment = service.record_move(session, found, who=f"worker:{held.holder}", now=now)
        if payment.state in (State.CREATED, State.APPROVED):
            event, why = Event.SEND, "taken up"
            try:
                _check(session, payment, bank, now)
            except service.TooLate as error:
                event, why = Event.EXPIRE, type(error).__name__
            except service.PaymentError as error:
                event, why = Event.DECLINE, type(error).__name__
            found = service.Move(payment.id, event, why)
            payment = service.record_move(session, found, who=f"worker:{held.holder}", now=now)
        return payment, Order(card.bank_token, session.get_one(Bill, payment.bill_id).merchant)


def _check(session: Session, payment: Payment, bank: Bank, now: datetime) -> None:
    """What was so when the caller confirmed must still be so. Raises service.PaymentError."""
    if payment.bank != bank.name:
        raise service.WrongBank(f"this worker debits at {bank.name}, not at {payment.bank}")
    if now - payment.created_at > KEY_LIFE:
        raise service.TooLate("nobody took the payment up in time")
    if session.get_one(Bill, payment.bill_id, with_for_update=True).status is not BillStatus.OPEN:
        raise service.BillNotOpen(f"bill {payment.bill_id} is not open")
    service.check_bank(session, payment.customer_id, bank.test_only)
    service.check_card(session, payment.card_id, payment.customer_id, now)


def _authorise(bank: Bank, payment: Payment, order: Order) -> Authorised | Declined:
    return bank.authorise(
        order.card_token,
        payment.amount_minor,
        payment.currency,
        key=payment.bank_idempotency_key,
        reference=payment.id,
        merchant=order.merchant,
    )


def _capture(bank: Bank, payment: Payment, order: Order) -> Captured | Voided:
    assert payment.bank_reference is not None, "an authorised payment has the bank's reference"
    return bank.capture(payment.bank_reference, payment.debit_minor, key=payment.capture_key)


def _void(bank: Bank, payment: Payment, order: Order) -> Captured | Voided:
    assert payment.bank_reference is not None, "a held payment has the bank's reference"
    return bank.void(payment.bank_reference, key=payment.void_key)


def _resolve(bank: Bank, payment: Payment, order: Order) -> Declined | Captured | Voided:
    # A bank that never saw the authorisation is sent it now: its key is then used up, and the lost request,
    # should it still be under way, can do nothing more. A void resolves the hold: a late capture cannot.
    found = bank.look_up(payment.bank_idempotency_key) or _authorise(bank, payment, order)
    return bank.void(found.reference, key=payment.void_key) if isinstance(found, Authorised) else found


_STEPS: dict[State, Callable[[Bank, Payment, Order], Answer]] = {
    State.DEBITING: _authorise,
    State.AUTHORISED: _capture,
    State.VOIDING: _void,
    State.UNKNOWN: _resolve,
}


def _record_answer(held: Held, payment: Payment, answer: Answer) -> Payment:
    match answer:
        case Authorised(reference, expires_at):
            event = Event.HOLD if payment.hold_only else Event.AUTHORISE
            named = {"bank_reference": reference, "hold_expires_at": expires_at}
            return _record(held, payment.id, event, why="held by the bank", **named)
        case Declined(reason):
            return _record(held, payment.id, Event.DECLINE, why="declined by the bank", decline_reason=reason)
        case Captured():
            return _record(held, payment.id, Event.CAPTURE, why="debited by the bank")
        case Voided():
            return _record(held, payment.id, Event.VOID, why="held by the bank no longer")


def _record(held: Held, payment_id: str, event: Event, *, why: str, **learnt: Any) -> Payment:
    with held.transaction() as session:
        found = service.Move(payment_id, event, why, **learnt)
        payment = service.record_move(session, found, who=f"worker:{held.holder}", now=datetime.now(UTC))
        log.info("payment moved", payment=payment.id, state=payment.state, why=why)
        return payment
