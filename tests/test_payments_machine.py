"""Random commands, holds and posts in part, notices, faults of the bank, killed workers, lost Redis and repeats.

Against the real sandbox bank, which debits only what the real endpoint confirms; SQLite and a real Redis.
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from notices_support import decision, notice, send
from payments_support import add_payer, confirm, make_due, new_pan
from redis import Redis
from sqlalchemy import select

from ivr import jobs
from ivr.api import bank_notices
from ivr.clock import utc_now
from ivr.customers.models import Bill, Card
from ivr.keys import Keyring
from ivr.payments import holds, keeper, notices, refunds, service, verify, worker
from ivr.payments.books import balances
from ivr.payments.models import DebitNotice, Payment, Refund
from ivr.payments.notices import Confirmations
from ivr.payments.pending import PendingDebits
from ivr.payments.processor import IdempotencyConflict
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.states import DEBITED, FINAL, Event, IllegalMove, State
from ivr.settings import Settings
from ivr.store.db import Base, Database

pytest_plugins = ["payments_fixtures", "notices_fixtures"]

AMOUNT_MINOR = 300
OPERATIONS = ["authorise", "capture", "void", "refund"]


class Killed(BaseException):
    """The worker is gone: nothing after this moment happened, and its lease is over."""


class DyingBank:
    """The bank's connector in a worker that dies before or after its n-th request."""

    def __init__(self, bank: SandboxBank, dies_at: int, answered: bool) -> None:
        self._bank, self._left, self._answered = bank, dies_at, answered

    def __getattr__(self, name: str) -> object:
        found = getattr(self._bank, name)
        if name not in (*OPERATIONS, "look_up"):
            return found

        def call(*arguments: object, **named: object) -> object:
            self._left -= 1
            if self._left == 0 and not self._answered:
                raise Killed
            answer = found(*arguments, **named)
            if self._left == 0:
                raise Killed
            return answer

        return call


class Money(RuleBasedStateMachine):
    bank: SandboxBank
    bank_settings: Settings
    redis: Redis
    notices_url: str
    apps: list[Flask]
    payments = Bundle("payments")

    @initialize(target=payments)
    def begin(self) -> str:
        """A paid payment, so that refunds and their faults come early."""
        self.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{Path(self.folder.name) / 'ivr.sqlite3'}"
        self.database, self.settings = Database(url), self.bank_settings.model_copy(update={"database_url": url})
        Base.metadata.create_all(self.database.engine)
        self.redis.flushall()
        self.pending = PendingDebits(self.redis, Keyring.load(self.settings))
        self.apps.append(Flask("machine"))
        confirmations = Confirmations(self.database, self.pending, utc_now)
        bank_notices.install(self.apps[-1], self.settings, confirmations)
        self.confirmed: dict[str, tuple[object, str]] = {}
        self.bank.control()
        payment_id = self._confirm("424242")
        self.work(1)
        return payment_id

    @rule(target=payments, prefix=st.sampled_from(["424242", "424242", "400001"]), hold_only=st.booleans())
    def confirm(self, prefix: str, hold_only: bool) -> object:
        if len(self.confirmed) == 4:
            return multiple()
        return self._confirm(prefix, hold_only)

    def _confirm(self, prefix: str, hold_only: bool = False) -> str:
        token = self.bank.tokenise(new_pan(prefix), 2099, 1).token
        with self.database.transaction() as session:
            payer = add_payer(session, token, amount_minor=AMOUNT_MINOR)
            session.flush()
            session.get_one(Bill, payer.bill_id).hold_only = hold_only
            key = f"key-{len(self.confirmed)}"
            payment_id = confirm(session, payer, key).id
        self.confirmed[payment_id] = (payer, key)
        return payment_id

    @rule(payment_id=payments)
    def confirm_again(self, payment_id: str) -> None:
        payer, key = self.confirmed[payment_id]
        with self.database.transaction() as session:
            assert confirm(session, payer, key).id == payment_id  # type: ignore[arg-type]

    @rule(payment_id=payments, amount_minor=st.sampled_from([None, 1, 100, AMOUNT_MINOR]), key=st.sampled_from("abc"))
    def refund(self, payment_id: str, amount_minor: int | None, key: str) -> None:
        with suppress(refunds.NotRefundable, IdempotencyConflict), self.database.transaction() as session:
            now, key = datetime.now(UTC), payment_id + key
            refunds.request_refund(session, payment_id, amount_minor, key=key, who="test", why="x", now=now)

    @rule(payment_id=payments)
    def cancel(self, payment_id: str) -> None:
        with suppress(IllegalMove), self.database.transaction() as session:
            command = service.Move(payment_id, Event.CANCEL, "by the test")
            service.record_move(session, command, who="test", now=datetime.now(UTC))

    @rule(payment_id=payments, amount_minor=st.sampled_from([None, 1, 100, AMOUNT_MINOR]), key=st.sampled_from("ab"))
    def post(self, payment_id: str, amount_minor: int | None, key: str) -> None:
        with suppress(holds.NotHeld, IdempotencyConflict), self.database.transaction() as session:
            how = {"key": payment_id + key, "who": "test", "why": "x"}
            holds.post(session, payment_id, amount_minor, self.bank.capabilities, **how, now=datetime.now(UTC))

    @rule(payment_id=payments)
    def release(self, payment_id: str) -> None:
        with suppress(holds.NotHeld), self.database.transaction() as session:
            holds.release(session, payment_id, key=payment_id, who="test", why="x", now=datetime.now(UTC))

    @rule()
    def lose_redis(self) -> None:
        self.redis.flushall()

    @rule(payment_id=payments, amount_minor=st.sampled_from([2, 101, AMOUNT_MINOR + 1]))
    def notice_of_another_amount(self, payment_id: str, amount_minor: int) -> None:
        keeper.keep_whole(self.database, "sandbox", self.pending)
        with self.database.transaction() as session:
            payment = session.get_one(Payment, payment_id)
            token = session.get_one(Card, payment.card_id).bank_token
        body = notice(payment, card_token=token, amount_minor=amount_minor)
        assert decision(send(self.notices_url, body)) in {"other_amount", "no_such_payment"}

    @rule(how=st.sampled_from(["fail", "lose"]), operation=st.sampled_from(OPERATIONS), times=st.integers(1, 8))
    def break_bank(self, how: str, operation: str, times: int) -> None:
        self.bank.control(**{how: {operation: times}})

    @rule()
    def mend_bank(self) -> None:
        self.bank.control()

    @rule(times=st.integers(1, 8))
    def work(self, times: int) -> None:
        for _ in range(times):
            make_due(self.database)
            worker.run(self.settings, threading.Event(), once=True, bank=self.bank)

    @rule(dies_at=st.integers(1, 3), answered=st.booleans())
    def work_and_die(self, dies_at: int, answered: bool) -> None:
        make_due(self.database)
        kinds = [service.DEBIT_JOB, refunds.REFUND_JOB]
        held = jobs.take(self.database, "dying", kinds, timedelta(0))
        if held is None:
            return
        dying = DyingBank(self.bank, dies_at, answered)
        services = worker.Services(self.settings, dying, pending=self.pending)  # type: ignore[arg-type]
        with suppress(Killed):
            worker.run_job(held, services)

    @invariant()
    def nothing_is_confirmed_debited_or_given_back_twice(self) -> None:
        if not getattr(self, "confirmed", None):
            return
        totals, debited = dict.fromkeys(self.confirmed, 0), set()
        for line in self.bank.statement():
            if line.reference in totals:
                totals[line.reference] += line.amount_minor if line.kind == "debit" else -line.amount_minor
                debited.add(line.reference)
        assert all(0 <= total <= AMOUNT_MINOR for total in totals.values())
        with self.database.transaction() as session:
            answers = session.scalars(select(DebitNotice.payment_id).where(DebitNotice.reason.is_(None))).all()
        assert len(set(answers)) == len(answers)
        assert debited <= set(answers)

    @invariant()
    def the_books_balance(self) -> None:
        if hasattr(self, "database"):
            with self.database.transaction() as session:
                assert sum(balances(session).values()) == 0
                assert list(verify.problems(session, "sandbox", None)) == []

    def teardown(self) -> None:
        """Whatever happened, a bank that answers and a living worker bring every payment to its end."""
        if not hasattr(self, "database"):
            return
        try:
            self.bank.control()
            self.work(2)
            with self.database.transaction() as session:
                held = session.scalars(select(Payment.id).where(Payment.state == State.HELD)).all()
            for payment_id in held:
                self.post(payment_id, 100, "end")
            self.work(2)
            statement = [line for line in self.bank.statement() if line.reference in self.confirmed]
            with self.database.transaction() as session:
                assert set(session.scalars(select(Payment.id))) == set(self.confirmed)
                assert all(payment.state in FINAL for payment in session.scalars(select(Payment)))
                assert all(refund.state == "done" for refund in session.scalars(select(Refund)))
                assert list(verify.problems(session, "sandbox", statement)) == []
                assert verify.stuck(session, datetime.now(UTC)) == []
                debited = {payment.id for payment in session.scalars(select(Payment)) if payment.state in DEBITED}
            assert sorted(line.reference for line in statement if line.kind == "debit") == sorted(debited)
        finally:
            self.database.engine.dispose()
            self.folder.cleanup()


def test_books_balance_and_no_payment_is_debited_twice_or_lost(
    notices_server: tuple[str, list[Flask]],
    confirming_bank_url: str,
    notices_settings: Settings,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "WAIT_S", 0.0)
    url, apps = notices_server
    parts = {
        "bank": SandboxBank(confirming_bank_url, "sandbox", confirms=True),
        "bank_settings": notices_settings,
        "redis": redis_client,
        "notices_url": url,
        "apps": apps,
    }
    machine = type("Machine", (Money,), parts)
    limits = settings(
        max_examples=8,  # of new draws in each run; ``make bench-faults`` goes through thousands of payments
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)
