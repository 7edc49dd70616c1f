from __future__ import annotations

from datetime import datetime

from ivr.customers.models import Bill, BillStatus, Customer
from ivr.store.db import Database


def test_a_row_comes_back_as_it_was_written(database: Database, now: datetime) -> None:
    with database.transaction() as session:
        customer = Customer(number="1234566", locale="en", created_at=now)
        session.add(customer)
        session.flush()
        session.add(
            Bill(customer_id=customer.id, merchant="M", amount_minor=2**40, currency="USD", created_at=now)
        )
    with database.transaction() as session:
        bill = session.query(Bill).one()
        assert (bill.amount_minor, bill.created_at, bill.status, bill.description) == (
            2**40,
            now,
            BillStatus.OPEN,
            "",
        )
        assert bill.due_at is None


def test_each_test_starts_empty(database: Database) -> None:
    with database.transaction() as session:
        assert session.query(Customer).count() == 0
