from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from ivr.customers.budget import (
    FREE_IN_A_ROW,
    LONGEST_WAIT,
    MOST_IN_ALL,
    hold,
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


def fail(
    database: Database, who: list[str], times: int, now: datetime, call: str = "CA1", *, attested: bool = True
) -> None:
    for step in range(times):
        with database.transaction() as session:
            record_failure(session, who, call, f"card:{step}", now, attested=attested)


def locked(database: Database, customer_id: str, now: datetime, *, attested: bool = True) -> bool:
    with database.transaction() as session:
        return is_locked(session, customer_id, now, attested=attested)


def total(database: Database, customer_id: str, *, attested: bool = True) -> int:
    with database.transaction() as session:
        return session.get_one(FailureBudget, (customer_id, attested)).total


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
    assert [total(database, who) for who in household] == [1, 1]


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


def test_nobody_guesses_anothers_pin_for_ever_by_ending_each_call_with_his_own_card(
    database: Database, household: list[str], now: datetime
) -> None:
    she, he = household
    calls = 0
    while not locked(database, she, now):
        calls += 1
        fail(database, household, 1, now, call=f"CA{calls}")
        with database.transaction() as session:
            record_success(session, he, f"CA{calls}")
    assert calls == FREE_IN_A_ROW
    with database.transaction() as session:
        hers, his = (session.get_one(FailureBudget, (who, True)) for who in household)
        assert (hers.in_a_row, hers.total) == (5, 5)
        assert (his.in_a_row, his.total) == (0, 5)


def test_who_tries_again_while_locked_is_locked_no_longer_for_it(
    database: Database, household: list[str], now: datetime
) -> None:
    who = household[0]
    fail(database, [who], 20, now)
    assert total(database, who) == FREE_IN_A_ROW
    after = now + wait_after(FREE_IN_A_ROW)
    assert not locked(database, who, after)
    fail(database, [who], 1, after, call="CA2")
    assert locked(database, who, after)
    assert total(database, who) == FREE_IN_A_ROW + 1


def test_who_merely_claims_a_number_cannot_lock_its_owner_out(
    database: Database, household: list[str], now: datetime
) -> None:
    who = household[0]
    for call in range(2 * MOST_IN_ALL):
        fail(database, [who], 1, now + call * LONGEST_WAIT, call=f"CA{call}", attested=False)
    at_last = now + 2 * MOST_IN_ALL * LONGEST_WAIT
    assert locked(database, who, at_last, attested=False)
    assert not locked(database, who, at_last, attested=True)
    assert total(database, who, attested=False) == MOST_IN_ALL
    with database.transaction() as session:
        record_success(session, who, "CA", attested=True)
    assert locked(database, who, at_last, attested=False)
    with database.transaction() as session:
        reset(session, who)
    assert not locked(database, who, at_last, attested=False)


def test_failures_of_attested_calls_lock_every_call(
    database: Database, household: list[str], now: datetime
) -> None:
    who = household[0]
    fail(database, [who], FREE_IN_A_ROW, now)
    assert locked(database, who, now, attested=True)
    assert locked(database, who, now, attested=False)
    fail(database, [who], 3, now, call="CA2", attested=False)
    assert total(database, who, attested=False) == 0


def test_parallel_calls_get_no_more_guesses_than_are_left(
    database: Database, household: list[str], now: datetime
) -> None:
    fail(database, household, FREE_IN_A_ROW - 1, now, call="CA0")
    together = threading.Barrier(8)

    def guess(number: int) -> bool:
        together.wait(timeout=30)
        with database.transaction() as session:
            hold(session, household[:: 1 if number % 2 else -1])
            if any(is_locked(session, who, now) for who in household):
                return False
            record_failure(session, household, f"CA{number + 1}", "pin", now)
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(guess, range(8))) == 1
    assert [total(database, who) for who in household] == [FREE_IN_A_ROW] * 2


def test_failures_of_calls_at_the_same_time_are_all_counted(
    database: Database, household: list[str], now: datetime
) -> None:
    together = threading.Barrier(4)

    def call(number: int) -> None:
        order = household[:: 1 if number % 2 else -1]
        together.wait(timeout=30)
        with database.transaction() as session:
            record_failure(session, order, f"CA{number}", "card", now)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert [total(database, who) for who in household] == [4, 4]


def test_a_customer_who_never_failed_is_not_locked(
    database: Database, household: list[str], now: datetime
) -> None:
    assert not locked(database, household[0], now)
