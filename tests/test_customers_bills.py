from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from ivr.customers.bills import InvalidBill, cancel_bill, create_bill, open_bills
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Bill, BillStatus, Customer
from ivr.customers.register import add_customer
from ivr.store.db import Database

BILL: dict[str, Any] = {"merchant": "Waterworks", "amount_minor": 4210, "currency": "USD"}


@pytest.fixture
def customer(database: Database, now: datetime) -> Customer:
    with database.transaction() as session:
        return add_customer(session, phones=[], now=now)


def test_the_bill_due_first_comes_first_and_those_without_a_date_last(
    database: Database, customer: Customer, now: datetime
) -> None:
    with database.transaction() as session:
        for name, due in (
            ("none", None),
            ("later", now + timedelta(days=9)),
            ("first", now - timedelta(days=1)),
        ):
            create_bill(session, customer.id, **BILL | {"merchant": name}, due_at=due, now=now)
    with database.transaction() as session:
        assert [bill.merchant for bill in open_bills(session, customer.id)] == ["first", "later", "none"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"amount_minor": 0}, "above zero"),
        ({"amount_minor": -1}, "above zero"),
        ({"amount_minor": 10**15}, "absurdly"),
        ({"currency": "usd"}, "ISO 4217"),
        ({"currency": "XXQ"}, "ISO 4217"),
        ({"merchant": "  "}, "merchant"),
        ({"description": "x" * 501}, "500"),
        ({"merchant": "\x1b[31mred"}, "printable"),
        ({"description": "card 4242-4242 4242-4242"}, "card number"),
    ],
)
def test_a_bad_bill_is_refused_by_reason(
    database: Database, customer: Customer, now: datetime, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason), database.transaction() as session:
        create_bill(session, customer.id, **BILL | wrong, now=now)
    with database.transaction() as session:
        assert session.query(Bill).count() == 0


def test_a_cancelled_bill_is_open_no_longer_and_cannot_be_cancelled_again(
    database: Database, customer: Customer, now: datetime
) -> None:
    with database.transaction() as session:
        bill = create_bill(session, customer.id, **BILL, now=now)
        assert cancel_bill(session, bill.id).status is BillStatus.CANCELLED
        assert open_bills(session, customer.id) == []
        with pytest.raises(InvalidBill, match="cancelled already"):
            cancel_bill(session, bill.id)
        with pytest.raises(InvalidBill, match="no bill"):
            cancel_bill(session, "unknown")
