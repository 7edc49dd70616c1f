from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

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


def test_a_row_that_is_locked_is_read_as_it_is_now(postgresql: Database, now: datetime) -> None:
    """Not as the session saw it before another had the lock."""
    with postgresql.transaction() as session:
        session.add(Customer(number="1234566", locale="en", created_at=now))
    with postgresql.transaction() as waiting:
        by_id = waiting.query(Customer).one()
        with postgresql.transaction() as first:
            first.query(Customer).one().locale = "zh"
        assert waiting.get_one(Customer, by_id.id).locale == "en"
        assert waiting.get_one(Customer, by_id.id, with_for_update=True).locale == "zh"
        with postgresql.transaction() as second, pytest.raises(OperationalError, match="LockNotAvailable"):
            second.scalars(select(Customer).with_for_update(nowait=True)).one()
    with postgresql.transaction() as waiting:
        by_query = waiting.query(Customer).one()
        with postgresql.transaction() as first:
            first.query(Customer).one().locale = "en"
        assert waiting.scalars(select(Customer).with_for_update()).one().locale == "en"
        by_query.locale = "zh"  # what the session itself changed is not lost
        assert waiting.scalars(select(Customer).with_for_update()).one().locale == "zh"
        by_query.locale = "en"
        assert waiting.get_one(Customer, by_query.id, with_for_update=True).locale == "en"
