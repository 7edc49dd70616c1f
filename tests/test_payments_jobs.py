from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from payments_support import make_due
from sqlalchemy import select

from ivr import jobs
from ivr.jobs import Job
from ivr.payments import worker
from ivr.settings import Settings
from ivr.store.db import Database

KINDS = ["k"]
MINUTE = timedelta(minutes=1)
EXPIRED = timedelta(0)


def put(database: Database, count: int = 1, run_at: datetime | None = None) -> None:
    with database.transaction() as session:
        for i in range(count):
            jobs.put(session, "k", {"i": i}, f"k:{i}", run_at or datetime.now(UTC))


def job(database: Database) -> Job:
    with database.transaction() as session:
        return session.scalars(select(Job)).one()


def test_a_job_with_the_same_dedupe_key_is_queued_once(database: Database) -> None:
    put(database)
    put(database)
    assert job(database).payload == {"i": 0}


def test_eight_workers_take_each_job_once(database: Database) -> None:
    put(database, 16)
    together = threading.Barrier(8)

    def take_all(i: int) -> list[int]:
        together.wait()
        taken = []
        while held := jobs.take(database, f"w{i}", KINDS, MINUTE):
            taken.append(held.payload["i"])
        return taken

    with ThreadPoolExecutor(8) as pool:
        assert sorted(i for taken in pool.map(take_all, range(8)) for i in taken) == list(range(16))


def test_a_job_of_the_future_or_of_an_unknown_kind_is_left(database: Database) -> None:
    put(database, run_at=datetime.now(UTC) + MINUTE)
    assert jobs.take(database, "w", KINDS, MINUTE) is None
    make_due(database)
    assert jobs.take(database, "w", ["other"], MINUTE) is None
    assert jobs.take(database, "w", KINDS, MINUTE) is not None


def test_a_held_job_is_nobody_elses_until_its_lease_expires(database: Database) -> None:
    put(database)
    assert jobs.take(database, "a", KINDS, MINUTE) is not None
    assert jobs.take(database, "b", KINDS, MINUTE) is None
    with database.transaction() as session:
        session.scalars(select(Job)).one().lease_until = datetime.now(UTC)
    second = jobs.take(database, "b", KINDS, MINUTE)
    assert second is not None
    assert second.attempts == 2


def test_who_lost_the_lease_can_record_nothing(database: Database) -> None:
    put(database)
    slow = jobs.take(database, "a", KINDS, EXPIRED)
    fast = jobs.take(database, "a", KINDS, MINUTE)  # the same worker's second lease counts as another holder
    assert slow is not None
    assert fast is not None
    for write in (slow.done, lambda: slow.release(MINUTE, "x"), lambda: slow.transaction().__enter__()):
        with pytest.raises(jobs.LeaseLost):
            write()
    fast.done()
    with pytest.raises(jobs.LeaseLost):
        fast.done()
    assert job(database).done_at is not None


def test_a_lease_that_ran_out_unnoticed_is_still_good(database: Database) -> None:
    put(database)
    held = jobs.take(database, "a", KINDS, EXPIRED)
    assert held is not None
    with held.transaction():
        pass
    held.done()
    assert jobs.take(database, "b", KINDS, MINUTE) is None


def test_a_handler_that_fails_is_tried_again_later_and_given_up_in_the_end(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_held: jobs.Held, _services: worker.Services) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(worker.HANDLERS, "k", fail)
    put(database)
    worker.run(settings, threading.Event(), once=True)
    first = job(database)
    assert (first.attempts, first.last_error_type, first.done_at) == (1, "ZeroDivisionError", None)
    assert first.run_at > datetime.now(UTC) - timedelta(seconds=5)
    for _ in range(worker.MOST_FAILURES - 1):
        make_due(database)
        worker.run(settings, threading.Event(), once=True)
    last = job(database)
    assert last.attempts == worker.MOST_FAILURES
    assert last.done_at is not None
    assert last.last_error_type == "ZeroDivisionError"
