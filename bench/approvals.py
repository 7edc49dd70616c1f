"""What policies and waiting approvals cost.

``python -m bench.approvals [--waiting 10000] [--rounds 400]``

1. Deciding: one payment by a policy of 100 rules, all of which apply.
2. Waiting: two databases of each kind, one in which nothing waits and one in which 10,000 payments wait for their
   guardians, with the jobs and links that come with them. What a call does with the database (bills read, policy
   asked, payment started) and how a worker finds the next debit is timed on both, in turns.

Prints a table, then a line for each bar: ``PASS|MISS name value target n``; exits 1 on a miss. Needs the extra
``test`` (PostgreSQL from a package).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from bench.faults.processes import postgresql
from bench.payments import Timed
from ivr import jobs
from ivr.approval import gate
from ivr.approval.models import Appointment, Standing, Tell
from ivr.approval.policy import Destination, Evidence, Facts, Hours, Policy, Role, Rule, Tier, Tiers, When, decide
from ivr.customers.bills import create_bill, open_bills
from ivr.customers.cards import add_card
from ivr.customers.pins import set_pin
from ivr.customers.register import add_customer
from ivr.keys import Keyring
from ivr.payments import service
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade

RULES = 100
MOST_MS = 1.0
SAME = 1.2
"""The median beside 10,000 waiting payments may be this many times that beside none: what two equal sides differ by."""
FACTORS = ("spoken card", "voice", "challenge")
PAGE = 100  # payments of one ward
progress = Console(stderr=True)


def deciding(rounds: int) -> Timed:
    """One decision by 100 rules with several conditions each, all of which apply."""
    when = When(
        tiers=frozenset({Tier.NORMAL, Tier.LARGE}),
        currency="USD",
        month_above_minor=100,
        hours=Hours.model_validate_json('{"begins": "08:00", "ends": "20:00"}'),
        other_merchants_than=frozenset({"City Water"}),
        destinations=frozenset({Destination.NONE}),
    )
    rules = tuple(Rule(name=f"rule {i}", when=when, approvals={Role.GUARDIAN: "any"}) for i in range(RULES))
    policy = Policy(name="bench", tiers={"USD": Tiers(small=2_000, normal=20_000)}, rules=rules)
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)
    facts = Facts(5_000, "USD", "Corner Bookshop", noon, spent_month_minor=9_000)
    evidence, timed = Evidence(appointed={Role.GUARDIAN: frozenset("g")}), Timed()
    for _ in range(rounds):
        timed.call(lambda: decide(facts, evidence, policy))
    assert len(decide(facts, evidence, policy).rules) == RULES
    return timed


class Side:
    """A database in which so many payments wait, and a customer whom nobody looks after."""

    def __init__(self, name: str, database: Database, keyring: Keyring, waiting: int) -> None:
        self.name, self.database, self.keyring, self.waiting = name, database, keyring, waiting
        self.call, self.worker = Timed(), Timed()
        upgrade(database)
        self.now = datetime.now(UTC)
        with database.transaction() as session:
            self.customer_id, self.card_id = _payer(session, self.keyring, self.now)
            guardian = add_customer(session, phones=["+14155550102"], sms=["+14155550102"], now=self.now)
            set_pin(session, guardian.id, "482915", keyring, self.now)
        for first in track(range(0, waiting, PAGE), f"{name}: {waiting:,} wait", console=progress):
            with database.transaction() as session:
                ward_id, card_id = self._ward(session, guardian.id)
                for _ in range(min(PAGE, waiting - first)):
                    self._start(session, ward_id, card_id, 5_000)
        with database.transaction() as session:  # what is due now is no part of this
            for job in session.query(jobs.Job).filter(jobs.Job.run_at <= datetime.now(UTC)):
                job.done_at = self.now

    def _ward(self, session: Session, guardian_id: str) -> tuple[str, str]:
        ward_id, card_id = _payer(session, self.keyring, self.now)
        session.add(
            Appointment(
                role=Role.GUARDIAN, ward_id=ward_id, approver_id=guardian_id, label="Lea", standing=Standing.ACTIVE,
                tell=Tell.BOTH, proposed_at=self.now, accepted_at=self.now,
            )
        )  # fmt: skip
        session.flush()
        return ward_id, card_id

    def one_call(self) -> None:
        """What a call does with the database, and then what a worker does to find its debit."""
        self.call.call(self._call)
        self.worker.call(self._take)

    def _call(self) -> None:
        with self.database.transaction() as session:
            bill = create_bill(
                session, self.customer_id, merchant="City Water", amount_minor=4_210, currency="USD", now=self.now
            )
            assert bill.id in {due.id for due in open_bills(session, self.customer_id)}
            assert gate.may_be_paid(session, bill.id, "", factors=FACTORS, attested=True, now=self.now)
        with self.database.transaction() as session:
            self._pay(session, self.customer_id, self.card_id, bill.id)

    def _take(self) -> None:
        held = jobs.take(self.database, "bench", [service.DEBIT_JOB], timedelta(minutes=1))
        assert held
        held.done()

    def _start(self, session: Session, customer_id: str, card_id: str, amount_minor: int) -> None:
        bill = create_bill(
            session, customer_id, merchant="City Water", amount_minor=amount_minor, currency="USD", now=self.now
        )
        self._pay(session, customer_id, card_id, bill.id)

    def _pay(self, session: Session, customer_id: str, card_id: str, bill_id: str) -> None:
        gate.start(
            session,
            bill_id=bill_id,
            customer_id=customer_id,
            card_id=card_id,
            idempotency_key=f"bench:{bill_id}",
            call_sid="CA1",
            factors=FACTORS,
            attestation=None,
            attested=True,
            now=self.now,
        )


def _payer(session: Session, keyring: Keyring, now: datetime) -> tuple[str, str]:
    customer = add_customer(session, phones=[], test=True, now=now)
    card = add_card(
        session, customer.id, "4242424242424242", exp_year=now.year + 2, exp_month=1, token="tok",
        authorised_by="bench", keyring=keyring, now=now,
    )  # fmt: skip
    return customer.id, card.id


def _database(server: Any, name: str) -> str:
    server.psql(f"CREATE DATABASE {name}")
    url = make_url(server.get_uri(database=name)).set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    decided = deciding(10 * arguments.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ivr-")))
        keyring = Keyring.load(Settings(data_dir=folder, _env_file=None))  # type: ignore[call-arg]
        urls: dict[str, Callable[[int], str]] = {"SQLite": lambda i: f"sqlite:///{folder}/{i}.sqlite3"}
        server = stack.enter_context(postgresql(folder))
        urls["PostgreSQL"] = lambda i: _database(server, f"bench{i}")
        pairs = [
            [Side(name, Database(url(i)), keyring, waiting) for i, waiting in enumerate((0, arguments.waiting))]
            for name, url in urls.items()
        ]
        for _ in track(range(arguments.rounds), "calls, in turns", console=progress):
            for pair in pairs:
                for side in pair:
                    side.one_call()
        for pair in pairs:
            for side in pair:
                side.database.engine.dispose()
    return report(decided, pairs)


def report(decided: Timed, pairs: list[list[Side]]) -> int:
    table = Table("database", "waiting", "a call, ms: p50", "p99", "a worker's look, ms: p50", "p99")
    for pair in pairs:
        for side in pair:
            figures = (f"{timed.ms(p):.2f}" for timed in (side.call, side.worker) for p in (50, 99))
            table.add_row(side.name, f"{side.waiting:,}", *figures)
    Console().print(table)
    bars = [(f"policy_of_{RULES}_rules_p50_ms", decided.ms(50), MOST_MS, len(decided.seconds))]
    for none, many in pairs:
        for what in ("call", "worker"):
            ratio = getattr(many, what).ms(50) / getattr(none, what).ms(50)
            name = f"{what}_beside_{many.waiting}_waiting_over_none_{many.name.lower()}"
            bars.append((name, ratio, SAME, len(many.call.seconds)))
    for name, value, target, n in bars:
        print("PASS" if value <= target else "MISS", name, f"{value:.2f}", f"{target:g}", n)
    return int(any(value > target for _, value, target, _ in bars))


if __name__ == "__main__":
    sys.exit(main())
