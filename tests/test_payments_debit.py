from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import alembic.command
import pytest
from payments_support import add_payer, captures, confirm, history, make_due, new_pan, status
from sqlalchemy import select

from ivr import jobs
from ivr.customers.models import Bill, BillStatus, Card, Customer, Notice
from ivr.jobs import Job
from ivr.payments import worker
from ivr.payments.debit import KEY_LIFE, PATIENT_ATTEMPTS
from ivr.payments.models import Payment
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.speech.pan import luhn_valid
from ivr.store import migrations
from ivr.store.db import Database

pytest_plugins = ["payments_fixtures"]

PAID = ["created", "debiting", "authorised", "paid"]


@pytest.fixture
def payment(database: Database, bank: SandboxBank) -> Payment:
    """A confirmed payment of 42.10; no worker has seen it."""
    return _payment(database, bank, new_pan())


def _payment(database: Database, bank: SandboxBank, pan: str) -> Payment:
    token = bank.tokenise(pan, 2099, 1).token
    with database.transaction() as session:
        return confirm(session, add_payer(session, token))


def work(settings: Settings) -> None:
    """A worker runs what is due."""
    worker.run(settings, threading.Event(), once=True)


def notices(database: Database) -> list[str]:
    with database.transaction() as session:
        return list(session.scalars(select(Notice.template)))


def test_a_debit_is_captured_once_and_the_bill_is_paid(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    work(bank_settings)
    work(bank_settings)
    assert history(database, payment.id) == PAID
    assert status(database, payment.id) == ("paid", "paid")
    assert captures(bank, payment.id) == [4210]
    assert notices(database) == ["payment.made"]
    with database.transaction() as session:
        receipt = session.get_one(Payment, payment.id).receipt_number
        assert receipt
        assert luhn_valid(receipt)
        assert session.scalar(select(Notice.values))["receipt"] == receipt  # type: ignore[index]


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("400001", "insufficient_funds"),
        ("400002", "expired"),
        ("400003", "blocked"),
        ("400004", "unavailable"),
    ],
)
def test_a_declined_debit_leaves_the_bill_open_for_another(
    database: Database, bank: SandboxBank, bank_settings: Settings, prefix: str, reason: str
) -> None:
    payment = _payment(database, bank, new_pan(prefix))
    work(bank_settings)
    assert status(database, payment.id) == ("refused", "open")
    assert captures(bank, payment.id) == []
    assert notices(database) == ["payment.refused"]
    with database.transaction() as session:
        assert session.get_one(Payment, payment.id).decline_reason == reason


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker is killed, a machine that is short of time must not be taken for a bank that does not answer."""
    monkeypatch.setattr("ivr.payments.http_bank.TIMEOUT_S", 60.0)


class DeadlyBank(SandboxBank):
    """The sandbox's connector in a worker that is killed (kill -9) before or after one of its requests."""

    def __init__(self, url: str, moment: str) -> None:
        super().__init__(url, "sandbox")
        self._moment = moment

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if name not in ("authorise", "capture"):
            return found

        def call(*arguments: object, **named: object) -> object:
            self._die(f"before {name}")
            answer = found(*arguments, **named)
            self._die(f"after {name}")
            return answer

        return call

    def _die(self, moment: str) -> None:
        if moment == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def _worker_process(
    settings: Settings, bank: SandboxBank | None = None
) -> multiprocessing.process.BaseProcess:
    """A worker in a process of its own, whose lease is over as soon as it is dead."""
    arguments = {"once": True, "lease": timedelta(0), "bank": bank}
    process = multiprocessing.get_context("fork").Process(
        target=worker.run, args=(settings, threading.Event()), kwargs=arguments
    )
    process.start()
    return process


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("moment", ["before authorise", "after authorise", "before capture", "after capture"])
def test_a_worker_killed_between_two_steps_is_followed_by_one_that_finishes(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment, moment: str
) -> None:
    killed = _worker_process(bank_settings, DeadlyBank(bank_settings.bank_url, moment))
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert status(database, payment.id)[0] == ("debiting" if "authorise" in moment else "authorised")
    work(bank_settings)
    _paid_once(database, bank, payment)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("operation", ["authorised", "captured"])
def test_a_worker_killed_while_the_bank_answers_is_followed_by_one_that_finishes(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment, operation: str
) -> None:
    def booked() -> bool:
        found = [row["status"] for row in bank.books()["authorisations"] if row["reference"] == payment.id]
        return found == [operation]

    bank.control(answer_delay_ms=400)
    killed = _worker_process(bank_settings)
    _wait_until(booked)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    bank.control()
    work(bank_settings)
    _paid_once(database, bank, payment)


@pytest.mark.usefixtures("patient")
def test_a_request_still_under_way_when_it_is_repeated_is_booked_once(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(latency_ms=300)
    killed = _worker_process(bank_settings)
    _wait_until(lambda: status(database, payment.id)[0] == "debiting")
    time.sleep(0.1)  # so that the request is at the bank, most likely; the outcome does not hang on it
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    work(bank_settings)
    _paid_once(database, bank, payment)


def test_a_bank_that_is_away_for_a_while_is_asked_again(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(fail={"authorise": 1}, lose={"capture": 1})
    for _ in range(3):
        work(bank_settings)
        make_due(database)
    _paid_once(database, bank, payment)


def test_a_bank_that_stays_away_leaves_the_payment_unknown_and_then_voided_once(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(lose={"authorise": 99}, fail={"look_up": 99})
    for _ in range(PATIENT_ATTEMPTS + 1):
        make_due(database)
        work(bank_settings)
    assert status(database, payment.id) == ("unknown", "open")
    assert notices(database) == []
    bank.control()
    make_due(database)
    work(bank_settings)
    assert status(database, payment.id) == ("voided", "open")
    assert [row["status"] for row in bank.books()["authorisations"] if row["reference"] == payment.id] == [
        "voided"
    ]
    assert captures(bank, payment.id) == []
    assert notices(database) == ["payment.refused"]
    with database.transaction() as session:
        old = session.get_one(Payment, payment.id)
        payer = type(
            "Payer", (), {"bill_id": old.bill_id, "customer_id": old.customer_id, "card_id": old.card_id}
        )
        assert confirm(session, payer, "another call").id != payment.id  # type: ignore[arg-type]


def test_a_request_that_never_came_is_void_even_if_it_comes_late(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(fail={"authorise": 99})
    for _ in range(PATIENT_ATTEMPTS):
        make_due(database)
        work(bank_settings)
    bank.control()
    make_due(database)
    work(bank_settings)
    assert history(database, payment.id) == ["created", "debiting", "unknown", "voided"]
    with database.transaction() as session:
        token = session.get_one(Card, payment.card_id).bank_token
    bank.authorise(
        token, 4210, "USD", key=payment.bank_idempotency_key, reference=payment.id, merchant="City Water"
    )
    assert [row["status"] for row in bank.books()["authorisations"] if row["reference"] == payment.id] == [
        "voided"
    ]


def test_a_capture_whose_answers_were_all_lost_is_found_to_be_paid(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(lose={"capture": 99})
    for _ in range(PATIENT_ATTEMPTS):
        make_due(database)
        work(bank_settings)
    assert status(database, payment.id) == ("unknown", "open")
    bank.control()
    make_due(database)
    work(bank_settings)
    assert history(database, payment.id) == ["created", "debiting", "authorised", "unknown", "paid"]
    assert captures(bank, payment.id) == [4210]
    assert status(database, payment.id) == ("paid", "paid")


def _grow_old(database: Database, payment: Payment) -> None:
    with database.transaction() as session:
        session.get_one(Payment, payment.id).created_at -= KEY_LIFE
    make_due(database)


def test_a_payment_older_than_its_keys_is_looked_up_and_undone(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(lose={"authorise": 1})
    work(bank_settings)
    _grow_old(database, payment)
    work(bank_settings)
    assert history(database, payment.id) == ["created", "debiting", "unknown", "voided"]
    assert captures(bank, payment.id) == []


def test_a_payment_older_than_its_keys_that_the_bank_does_not_know_is_not_sent_again(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(fail={"authorise": 1})
    work(bank_settings)
    _grow_old(database, payment)
    work(bank_settings)
    assert status(database, payment.id) == ("unknown", "open")
    assert [row for row in bank.books()["authorisations"] if row["reference"] == payment.id] == []
    with database.transaction() as session:
        job = session.scalars(select(Job)).one()
        assert job.done_at is not None
        assert job.last_error_type == "KeyLifeOver"


def test_a_payment_begun_at_another_bank_is_left_alone(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    bank.control(lose={"authorise": 1})
    work(bank_settings)
    with database.transaction() as session:
        session.get_one(Payment, payment.id).bank = "another"
    make_due(database)
    work(bank_settings)
    assert status(database, payment.id) == ("debiting", "open")
    with database.transaction() as session:
        assert session.scalars(select(Job)).one().last_error_type == "WrongBank"


@pytest.mark.parametrize(
    "change",
    [
        lambda session, payment: setattr(
            session.get_one(Card, payment.card_id), "revoked_at", payment.created_at
        ),
        lambda session, payment: setattr(session.get_one(Customer, payment.customer_id), "test", False),
        lambda session, payment: setattr(session.get_one(Payment, payment.id), "bank", "another"),
        lambda session, payment: setattr(
            payment := session.get_one(Payment, payment.id), "created_at", payment.created_at - KEY_LIFE
        ),
        lambda session, payment: setattr(
            session.get_one(Bill, payment.bill_id), "status", BillStatus.CANCELLED
        ),
    ],
    ids=["card revoked", "no test customer", "another bank", "too late", "bill cancelled"],
)
def test_what_changed_since_the_confirmation_is_seen_before_the_bank_is_asked(
    database: Database,
    bank: SandboxBank,
    bank_settings: Settings,
    payment: Payment,
    change: Callable[..., None],
) -> None:
    with database.transaction() as session:
        change(session, payment)
    work(bank_settings)
    assert history(database, payment.id) in (["created", "refused"], ["created", "expired"])
    assert [row for row in bank.books()["authorisations"] if row["reference"] == payment.id] == []


def test_a_worker_that_lost_its_lease_stops(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    slow = jobs.take(database, "slow", worker.HANDLERS, timedelta(0))
    assert slow is not None
    work(bank_settings)
    worker.run_job(slow, worker.Services(bank_settings, bank))
    _paid_once(database, bank, payment)


def test_the_command_finishes_the_job_in_hand_on_sigterm_and_logs_no_secret(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    with database.transaction() as session:
        token = session.get_one(Card, payment.card_id).bank_token
    bank.control(latency_ms=200)
    with database.engine.begin() as connection:  # the fixture made the tables without the migrations
        alembic.command.stamp(migrations.config(connection), "head")
    command = [sys.executable, "-c", "from ivr.ops.commands.worker import command; command()"]
    environment = {
        "IVR_DATABASE_URL": str(bank_settings.database_url),
        "IVR_DATA_DIR": str(bank_settings.data_dir),
        "IVR_BANK_URL": bank_settings.bank_url,
        "IVR_DIGIT_MODEL_DIR": str(bank_settings.data_dir),
        "IVR_VOICE_MODEL_DIR": str(bank_settings.data_dir),
    }
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    _wait_until(lambda: status(database, payment.id)[0] == "debiting")
    process.terminate()
    _, written = process.communicate()
    with database.engine.begin() as connection:
        alembic.command.stamp(migrations.config(connection), "base")
    assert process.returncode == 0
    _paid_once(database, bank, payment)
    assert [json.loads(line)["event"] for line in written.splitlines()][-1] == "worker stopped"
    for secret in (token, payment.bank_idempotency_key, payment.capture_key, "+14155550123"):
        assert secret not in written


def _paid_once(database: Database, bank: SandboxBank, payment: Payment) -> None:
    assert captures(bank, payment.id) == [4210]
    assert len([row for row in bank.books()["authorisations"] if row["reference"] == payment.id]) == 1
    assert history(database, payment.id) == PAID
    assert status(database, payment.id) == ("paid", "paid")
    assert notices(database) == ["payment.made"]


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
