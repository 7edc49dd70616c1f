"""The payments that wait at the start of a run, and what became of them: our records, the bank's, the merchant's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ivr.customers.bills import create_bill
from ivr.customers.models import Bill, BillStatus, Card, Customer, new_id
from ivr.keys import Keyring
from ivr.payments.models import DebitNotice, Payment
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.service import start_payment
from ivr.payments.states import FINAL, State
from ivr.payments.verify import problems
from ivr.settings import Settings
from ivr.speech.pan import luhn_check_digit
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from ivr.webhooks.models import WebhookDelivery
from ivr.webhooks.register import add_endpoint

MERCHANT = "City Water"
DECLINED_EVERY = 10


@dataclass
class Result:
    """What became of the payments under one fault."""

    fault: str
    payments: int
    paid: int = 0
    refused: int = 0
    voided: int = 0
    lost: int = 0
    twice: int = 0
    unproven: int = 0
    killed: int = 0
    acts: int = 0
    webhooks: int = 0
    webhooks_again: int = 0
    seconds: float = 0.0


def queue_payments(settings: Settings, bank: SandboxBank, merchant_url: str, count: int) -> None:
    """Customers who have each confirmed one payment; amounts differ, so that no two can be taken for each other."""
    good, bad = (
        bank.open_account(body + luhn_check_digit(body), balance_minor=10**12).token
        for body in ("42424212345678" + "0", "40000112345678" + "0")
    )
    with database_of(settings) as database:
        upgrade(database)
        now = datetime.now(UTC)
        with database.transaction() as session:
            add_endpoint(
                session,
                Keyring.load(settings),
                merchant=MERCHANT,
                url=merchant_url,
                now=now,
                allow_private=True,
            )
        for first in range(0, count, 100):
            with database.transaction() as session:
                for i in range(first, min(first + 100, count)):
                    queue_payment(session, i, bad if i % DECLINED_EVERY == 9 else good, now)


def queue_payment(session: Session, i: int, token: str, now: datetime) -> None:
    customer = Customer(id=new_id(), number=f"{i:07}", locale="en", test=True, created_at=now)
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
        authorised_by="bench",
        authorised_at=now,
        text_version="1",
    )
    session.add(card)
    bill = create_bill(session, customer.id, merchant=MERCHANT, amount_minor=1000 + i, currency="USD", now=now)
    start_payment(
        session,
        bill_id=bill.id,
        customer_id=customer.id,
        card_id=card.id,
        idempotency_key=f"bench:{i}",
        call_sid=f"CA{i}",
        evidence={},
        now=now,
    )


def nothing_waits(settings: Settings) -> bool:
    open_payments = select(func.count()).select_from(Payment).where(Payment.state.not_in(FINAL))
    undelivered = (
        select(func.count())
        .select_from(WebhookDelivery)
        .where(WebhookDelivery.delivered_at.is_(None), WebhookDelivery.given_up_at.is_(None))
    )
    try:
        with database_of(settings) as database, database.transaction() as session:
            return not session.scalar(open_payments) and not session.scalar(undelivered)
    except SQLAlchemyError:  # the database is being restarted
        return False


def compare(settings: Settings, bank: SandboxBank, told: Path, result: Result) -> None:
    """Our records, the bank's books, and what the merchant was told."""
    captured: dict[str, list[int]] = defaultdict(list)
    books, statement = bank.books(), bank.statement()
    held = {row["reference"] for row in books["authorisations"] if row["status"] == "authorised"}
    for row in books["captures"]:
        captured[row["reference"]].append(row["amount_minor"])
    messages = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
    heard = {(payment, kind) for _, kind, payment in messages}
    result.webhooks = len(messages)
    result.webhooks_again = len(messages) - len({message for message, _, _ in messages})
    with database_of(settings) as database, database.transaction() as session:
        payments = session.scalars(select(Payment)).all()
        result.unproven = len(list(problems(session, bank.name, statement)))
        if settings.bank_notice_secret:
            confirmed = set(session.scalars(select(DebitNotice.payment_id).where(DebitNotice.reason.is_(None))))
            result.unproven += len(captured.keys() - confirmed)
        bills = {bill.id: bill.status for bill in session.scalars(select(Bill))}
    states = Counter(payment.state for payment in payments)
    result.paid, result.refused, result.voided = (states[state] for state in (State.PAID, State.REFUSED, State.VOIDED))
    result.lost = result.payments - len(payments)
    for payment in payments:
        paid, debits = payment.state is State.PAID, captured.pop(payment.id, [])
        kind = "payment.paid" if paid else "payment.refused"
        sound = (
            payment.state in FINAL
            and payment.id not in held
            and paid == bool(debits)
            and paid == (bills[payment.bill_id] is BillStatus.PAID)
            and paid == bool(payment.receipt_number)
            and (payment.id, kind) in heard
        )
        result.lost += not sound
        result.twice += len(debits) > 1 or (bool(debits) and debits[0] != payment.amount_minor)
    result.twice += len(captured)  # debits that belong to no payment
    receipts = [payment.receipt_number for payment in payments if payment.receipt_number]
    result.twice += len(receipts) - len(set(receipts))


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """A database of this process for a moment: workers are forked, and must inherit no connection."""
    database = Database(settings.sqlalchemy_url())
    try:
        yield database
    finally:
        database.engine.dispose()
