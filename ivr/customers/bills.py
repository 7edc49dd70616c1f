"""What customers owe."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.models import Bill, BillStatus, new_id
from ivr.customers.money import MOST_MINOR, check_currency
from ivr.customers.text import clean_text
from ivr.payments.models import Payment
from ivr.payments.states import FAILED

_LIVE = Payment.state.not_in(FAILED)


class InvalidBill(InvalidInput):
    """The bill as given cannot be created, or as it stands cannot be cancelled."""


def create_bill(
    session: Session,
    customer_id: str,
    *,
    merchant: str,
    amount_minor: int,
    currency: str,
    description: str = "",
    kind: str = "",
    ship_to: str | None = None,
    due_at: datetime | None = None,
    hold_only: bool = False,
    one_payment: bool = False,
    bill_id: str | None = None,
    now: datetime,
) -> Bill:
    """An open bill; with ``hold_only`` its amount is held when it is paid, and debited later.

    ``one_payment``: it is for a payment that is started with it, and is cancelled when that fails.
    ``kind``: of the merchant's trade, for policies. ``ship_to``: where goods go. Raises InvalidInput.
    """
    check_amount(amount_minor)
    check_currency(currency)
    bill = Bill(
        id=bill_id or new_id(),
        customer_id=customer_id,
        merchant=clean_text(merchant, "a merchant's name", least=1, most=200),
        amount_minor=amount_minor,
        currency=currency,
        description=clean_text(description, "a description", most=500),
        kind=clean_text(kind, "a kind of trade", most=40).casefold(),
        ship_to=None if ship_to is None else clean_text(ship_to, "an address", least=1, most=200),
        status=BillStatus.OPEN,
        hold_only=hold_only,
        one_payment=one_payment,
        created_at=now,
        due_at=due_at,
    )
    session.add(bill)
    session.flush()
    return bill


def check_amount(amount_minor: int) -> None:
    """Raises InvalidBill unless it can be owed."""
    if not 0 < amount_minor <= MOST_MINOR:
        raise InvalidBill("the amount must be above zero, and not absurdly large")


def open_bills(session: Session, customer_id: str) -> list[Bill]:
    """What is due, the oldest due date first; bills without one come last, in the order they were made.

    A bill whose payment is under way is not due: to pay it again must not be offered.
    """
    query = (
        select(Bill)
        .where(Bill.customer_id == customer_id, Bill.status == BillStatus.OPEN)
        .where(Bill.id.not_in(select(Payment.bill_id).where(_LIVE, Payment.customer_id == customer_id)))
        .order_by(Bill.due_at.is_(None), Bill.due_at, Bill.created_at, Bill.id)
    )
    return list(session.scalars(query))


def has_live_payment(session: Session, bill_id: str) -> bool:
    """Whether a payment of this bill is under way or done, its outcome unknown included."""
    return session.scalar(select(Payment.id).where(Payment.bill_id == bill_id, _LIVE)) is not None


def cancel_bill(session: Session, bill_id: str) -> Bill:
    """Withdraw an open bill. Raises InvalidBill when it is not open, or its payment is under way."""
    bill = session.get(Bill, bill_id, with_for_update=True)  # the lock that a starting payment takes too
    if bill is None:
        raise InvalidBill(f"there is no bill {bill_id!r}; `ivr bill list CUSTOMER` shows those there are")
    if bill.status is not BillStatus.OPEN:
        raise InvalidBill(f"bill {bill_id} is {bill.status} already")
    if has_live_payment(session, bill_id):
        raise InvalidBill(f"a payment of bill {bill_id} is under way")
    bill.status = BillStatus.CANCELLED
    session.flush()
    return bill
