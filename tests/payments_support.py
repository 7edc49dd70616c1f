"""What the tests of payments share: a customer with a bill, and looks at what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.models import Bill, Card, Contact, Customer, new_id
from ivr.jobs import Job
from ivr.payments.models import Payment, PaymentEvent
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.service import start_payment
from ivr.speech.pan import luhn_check_digit
from ivr.store.db import Database


def new_pan(prefix: str = "424242") -> str:
    """A card number never used before."""
    body = prefix + str(int(new_id(), 16) % 10**9).zfill(9)
    return body + luhn_check_digit(body)


@dataclass(frozen=True)
class Payer:
    customer_id: str
    card_id: str
    bill_id: str


def add_payer(
    session: Session,
    token: str = "tok",
    *,
    test: bool = True,
    amount_minor: int = 4210,
    limit_minor: int | None = None,
) -> Payer:
    """A customer with one contact, one card and one open bill."""
    now = datetime.now(UTC)
    number = str(int(new_id(), 16) % 10**7).zfill(7)
    customer = Customer(id=new_id(), number=number, locale="en", test=test, created_at=now)
    session.add(customer)
    session.flush()
    card = Card(
        id=new_id(),
        customer_id=customer.id,
        bank_token=token,
        brand="visa",
        exp_year=now.year + 2,
        exp_month=1,
        last4="1234",
        pan_hash=bytes(32),
        pan_key_id="k",
        authorised_by="test",
        authorised_at=now,
        text_version="1",
        limit_minor=limit_minor,
    )
    bill = Bill(
        id=new_id(),
        customer_id=customer.id,
        merchant="City Water",
        amount_minor=amount_minor,
        currency="USD",
        created_at=now,
    )
    session.add_all([card, bill, Contact(customer_id=customer.id, kind="sms", address="+14155550123")])
    return Payer(customer.id, card.id, bill.id)


def confirm(
    session: Session, payer: Payer, key: str = "key", limit_minor: int | None = None, bank: str = "sandbox"
) -> Payment:
    """What a call does when the caller has confirmed."""
    return start_payment(
        session,
        bill_id=payer.bill_id,
        customer_id=payer.customer_id,
        card_id=payer.card_id,
        idempotency_key=key,
        call_sid="CA1",
        evidence={"card": "spoken", "voice": "match"},
        now=datetime.now(UTC),
        limit_minor=limit_minor,
        bank=bank,
    )


def history(database: Database, payment_id: str) -> list[str]:
    """The states that a payment went through."""
    with database.transaction() as session:
        query = (
            select(PaymentEvent.to_state)
            .where(PaymentEvent.payment_id == payment_id)
            .order_by(PaymentEvent.id)
        )
        return [state.value for state in session.scalars(query)]


def make_due(database: Database) -> None:
    """Let every wait be over."""
    with database.transaction() as session:
        for job in session.scalars(select(Job).where(Job.done_at.is_(None))):
            job.run_at -= timedelta(days=1)


def status(database: Database, payment_id: str) -> tuple[str, str]:
    """State of the payment, status of its bill."""
    with database.transaction() as session:
        payment = session.get_one(Payment, payment_id)
        return payment.state.value, session.get_one(Bill, payment.bill_id).status.value


def captures(bank: SandboxBank, payment_id: str) -> list[int]:
    """The amounts that the bank debited for a payment."""
    return [row["amount_minor"] for row in bank.books()["captures"] if row["reference"] == payment_id]
