"""The debit of one payment: authorise, then capture. What a worker does with the job that a payment queued.

No transaction is open while the bank is asked. The state is stored before the bank is asked for the next
step, and each request has its own stored key, so a worker that dies anywhere leaves a payment that the next
worker carries on by the identical request.

When the bank does not answer, the request is repeated after growing waits; after ``PATIENT_ATTEMPTS`` the
payment is ``unknown`` and will be undone instead: whatever the bank holds for it is voided or, if the debit
did happen, it is paid. What became of the authorisation is learnt from its reference, by look-up where the bank
has one, by the identical request within its key's life, and then from the bank's list. What is in none of them
after ``KEY_LIFE`` is left to a person. Where no caller waits, because an amount is held first and posted later, the
bank is asked for as long as that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from redis import RedisError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr import tracing
from ivr.customers.models import Bill, BillStatus, Card, Contact
from ivr.jobs import Again, GiveUp, Held
from ivr.payments import service
from ivr.payments.bank import (
    Authorised,
    Bank,
    BankError,
    BankUnavailable,
    Captured,
    Declined,
    DeclineReason,
    KeyReused,
    Linked,
    SetupMissing,
    Voided,
)
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
LINK_LIFE = timedelta(hours=1)
"""How long a customer may take to agree at her bank; her bill waits meanwhile."""
FIRST_LOOK = timedelta(seconds=5)


@dataclass(frozen=True)
class Order:
    """What the bank is told besides what the payment itself says, and whether its customer can be sent a link."""

    card_token: str = field(repr=False)
    merchant: str
    reachable: bool


Answer = Authorised | Linked | Declined | Captured | Voided
log = structlog.get_logger(__name__)


def debit(held: Held, bank: Bank, pending: PendingDebits | None = None) -> None:
    """Carry a payment on to its end from wherever it stands. A bank that confirms debits needs ``pending``.

    Raises Again when the bank gave no answer, GiveUp when a person is needed, LeaseLost.
    """
    payment, order = _begin(held, bank)
    if payment.bank != bank.name and payment.state in _STEPS:
        log.error("payment needs a person", payment=payment.id, why=f"it is being debited at {payment.bank}")
        raise GiveUp("WrongBank")
    while ask := _STEPS.get(payment.state):
        if payment.state in _SENT_BY_KEY and datetime.now(UTC) - _keys_used_since(payment) > KEY_LIFE:
            if not _caller_waits(payment):
                log.error("payment needs a person", payment=payment.id, state=payment.state)
                raise GiveUp("KeyLifeOver")
            payment = _record(held, payment.id, Event.LOSE, why="its keys are too old")
            continue
        try:
            if pending and payment.state is State.AUTHORISED:  # before the bank asks for it; stored is it already
                pending.put(as_pending(payment, order.card_token, order.merchant), datetime.now(UTC))
            with tracing.span("bank", payment.call_sid, payment=payment.id, state=payment.state):
                answer = ask(bank, payment, order)
        except SetupMissing as error:
            log.error("payment needs a person", payment=payment.id, error=type(error).__name__, why=str(error))
            raise GiveUp(type(error).__name__) from error
        except (BankError, RedisError) as error:
            log.warning(
                "bank gave no answer", payment=payment.id, state=payment.state, error=type(error).__name__
            )
            if _caller_waits(payment) and held.attempts >= PATIENT_ATTEMPTS:
                payment = _record(held, payment.id, Event.LOSE, why=type(error).__name__)
                _forget(pending, payment, order)
            if payment.state is State.LINKED:
                raise _later(payment) from error
            raise Again(wait_before(held.attempts + 1), type(error).__name__) from error
        if isinstance(answer, Linked) and payment.state is State.LINKED:
            raise _later(payment)
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
        contact = select(Contact.id).where(Contact.customer_id == payment.customer_id).limit(1)
        return payment, Order(
            card.bank_token,
            session.get_one(Bill, payment.bill_id).merchant,
            reachable=session.scalar(contact) is not None,
        )


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


def _send(bank: Bank, payment: Payment, order: Order) -> Authorised | Linked | Declined:
    found = _authorise(bank, payment, order)
    if isinstance(found, Linked) and not order.reachable:
        bank.void(found.reference, key=payment.void_key)
        return Declined(DeclineReason.AUTHENTICATION_REQUIRED)
    return found


def _authorise(bank: Bank, payment: Payment, order: Order) -> Authorised | Linked | Declined:
    return bank.authorise(
        order.card_token,
        payment.amount_minor,
        payment.currency,
        key=payment.bank_idempotency_key,
        reference=payment.id,
        merchant=order.merchant,
        channel=payment.channel,
    )


def _await_customer(bank: Bank, payment: Payment, order: Order) -> Answer:
    assert payment.bank_reference is not None, "a linked payment has the bank's reference"
    found = bank.status(payment.bank_reference)
    if isinstance(found, Linked) and datetime.now(UTC) - payment.updated_at > LINK_LIFE:
        # Void also what she agrees to in this moment: it was not debited, and she is told so.
        return bank.void(payment.bank_reference, key=payment.void_key)
    return found


def _later(payment: Payment) -> Again:
    """Look again at a linked payment, ever more rarely. No failed attempt: those of the capture are still to come."""
    since_link = datetime.now(UTC) - payment.updated_at
    return Again(max(FIRST_LOOK, since_link / 8), "CustomerNotYet", counted=False)


def _capture(bank: Bank, payment: Payment, order: Order) -> Captured | Voided:
    assert payment.bank_reference is not None, "an authorised payment has the bank's reference"
    return bank.capture(payment.bank_reference, payment.debit_minor, key=payment.capture_key)


def _void(bank: Bank, payment: Payment, order: Order) -> Captured | Voided:
    assert payment.bank_reference is not None, "a held payment has the bank's reference"
    return bank.void(payment.bank_reference, key=payment.void_key)


def _resolve(bank: Bank, payment: Payment, order: Order) -> Declined | Captured | Voided:
    # A void resolves the hold: neither a late capture nor a late customer can then do anything.
    found = _recover(bank, payment, order)
    if isinstance(found, Authorised | Linked):
        return bank.void(found.reference, key=payment.void_key)
    return found


def _recover(bank: Bank, payment: Payment, order: Order) -> Answer:
    """What became of the authorisation. Raises GiveUp when nothing tells."""
    if payment.bank_reference is not None:
        return Authorised(payment.bank_reference)
    by_key = bank.capabilities.look_up_by_key
    if by_key and (found := bank.look_up(payment.bank_idempotency_key)):
        return found
    if datetime.now(UTC) - payment.created_at <= KEY_LIFE:
        # A bank that never saw the authorisation is sent it now: its key is then used up, and the lost request,
        # should it still be under way, can do nothing more.
        try:
            return _authorise(bank, payment, order)
        except (BankUnavailable, KeyReused):
            # Some banks repeat under a key even a failure of their own, and a setting that changed since the first
            # request makes this one another. What did the first one leave?
            if by_key or (found := bank.find(payment.id, payment.created_at)) is None:
                raise
            return found
    if found := bank.find(payment.id, payment.created_at):
        return found
    log.error("payment needs a person", payment=payment.id, state=payment.state)
    raise GiveUp("KeyLifeOver")


_SENT_BY_KEY = (State.DEBITING, State.AUTHORISED, State.VOIDING)
"""What is under way is repeated by its key, until the payment is given up as unknown."""

_STEPS: dict[State, Callable[[Bank, Payment, Order], Answer]] = {
    State.DEBITING: _send,
    State.LINKED: _await_customer,
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
        case Linked(reference, url):
            named = {"bank_reference": reference, "link": url}
            return _record(held, payment.id, Event.LINK, why="the customer must agree at her bank", **named)
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
