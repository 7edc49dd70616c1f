from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from ivr.customers.budget import (
    FREE_IN_A_ROW,
    LONGEST_WAIT,
    MOST_IN_ALL,
    is_locked,
    record_failure,
    record_success,
    reset,
    wait_after,
)
from ivr.customers.models import FailureBudget
from ivr.customers.register import add_customer
from ivr.store.db import Database


@pytest.fixture
def household(database: Database, now: datetime) -> list[str]:
    with database.transaction() as session:
        return [add_customer(session, phones=["+15035550123"], now=now).id for _ in range(2)]


def fail(database: Database, who: list[str], times: int, now: datetime, call: str = "CA1") -> None:
    for step in range(times):
        with database.transaction() as session:
            record_failure(session, who, call, f"card:{step}", now)


def locked(database: Database, customer_id: str, now: datetime) -> bool:
    with database.transaction() as session:
        return is_locked(session, customer_id, now)


def test_five_failures_in_a_row_lock_for_a_while(
    database: Database, household: list[str], now: datetime
) -> None:
    who = household[0]
    fail(database, [who], FREE_IN_A_ROW - 1, now)
    assert not locked(database, who, now)
    fail(database, [who], 1, now, call="CA2")
    assert locked(database, who, now)
    assert not locked(database, who, now + wait_after(FREE_IN_A_ROW))


def test_the_wait_grows_and_ends_at_a_day() -> None:
    waits = [wait_after(n) for n in range(60)]
    assert waits == sorted(waits)
    assert waits[4] == timedelta(0) < waits[5] < waits[6]
    assert waits[-1] == LONGEST_WAIT


def test_the_same_step_of_a_call_counts_once(database: Database, household: list[str], now: datetime) -> None:
    for _ in range(20):
        fail(database, household, 1, now)
    with database.transaction() as session:
        assert [session.get_one(FailureBudget, who).total for who in household] == [1, 1]


def test_fifty_in_all_lock_until_an_operator_resets(
    database: Database, household: list[str], now: datetime
) -> None:
    who = household[0]
    for call in range(MOST_IN_ALL):
        fail(database, [who], 1, now, call=f"CA{call}")
        with database.transaction() as session:
            record_success(session, who, f"OK{call}")
    much_later = now + timedelta(days=1000)
    assert locked(database, who, much_later)
    with database.transaction() as session:
        reset(session, who)
    assert not locked(database, who, much_later)


def test_a_success_ends_the_row_and_takes_back_what_the_call_counted_against_the_household(
    database: Database, household: list[str], now: datetime
) -> None:
    she, he = household
    fail(database, [he], 3, now, call="CA0")
    fail(database, household, 4, now, call="CA1")
    assert locked(database, he, now)
    for _ in range(2):  # a repeated request changes nothing more
        with database.transaction() as session:
            record_success(session, she, "CA1")
    with database.transaction() as session:
        hers, his = (session.get_one(FailureBudget, who) for who in household)
        assert (hers.in_a_row, hers.total) == (0, 4)
        assert (his.in_a_row, his.total, his.locked_until) == (3, 3, None)
    fail(database, household, 4, now, call="CA1")  # the same steps, repeated late
    with database.transaction() as session:
        assert session.get_one(FailureBudget, he).total == 3


def test_failures_of_calls_at_the_same_time_are_all_counted(
    database: Database, household: list[str], now: datetime
) -> None:
    together = threading.Barrier(4)

    def call(number: int) -> None:
        order = household[:: 1 if number % 2 else -1]
        for step in range(6):
            together.wait(timeout=30)
            with database.transaction() as session:
                record_failure(session, order, f"CA{number}", f"card:{step}", now)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    with database.transaction() as session:
        assert [session.get_one(FailureBudget, who).total for who in household] == [24, 24]


def test_a_customer_who_never_failed_is_not_locked(
    database: Database, household: list[str], now: datetime
) -> None:
    assert not locked(database, household[0], now)
