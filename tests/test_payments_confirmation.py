"""Debits that the bank makes only when we confirm its notice: worker, endpoint and bank over real HTTP."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Response
from notices_support import SECRET, decision, notice, send, start_confirming_bank
from payments_support import add_payer, captures, confirm, history, make_due, new_pan, status
from sqlalchemy import select

from ivr.api import bank_notices
from ivr.payments import notices, worker
from ivr.payments.debit import PATIENT_ATTEMPTS
from ivr.payments.models import DebitNotice, Payment
from ivr.payments.pending import PendingDebits
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store import redis as store_redis
from ivr.store.db import Database
from ivr.store.migrations import upgrade

pytest_plugins = ["notices_fixtures"]

PAID = ["created", "debiting", "authorised", "paid"]


@pytest.fixture
def payment(database: Database, confirming_bank: SandboxBank) -> Payment:
    """A confirmed payment of 42.10; no worker has seen it."""
    return new_payment(database, confirming_bank)


def new_payment(database: Database, bank: SandboxBank, key: str = "key") -> Payment:
    token = bank.tokenise(new_pan(), 2099, 1).token
    with database.transaction() as session:
        return confirm(session, add_payer(session, token), key)


def work(settings: Settings, times: int = 1) -> None:
    """A worker runs what is due, and what waits too when it is to do so more than once."""
    for _ in range(times):
        worker.run(settings, threading.Event(), once=True)
        make_due(Database(settings.sqlalchemy_url()))


def answers(database: Database) -> list[tuple[str | None, str | None]]:
    """Payment and reason of every notice answered, in order."""
    with database.transaction() as session:
        return [(row.payment_id, row.reason) for row in session.scalars(select(DebitNotice).order_by(DebitNotice.at))]


def paid_once(database: Database, bank: SandboxBank, payment: Payment) -> None:
    assert history(database, payment.id) == PAID
    assert captures(bank, payment.id) == [4210]
    assert answers(database) == [(payment.id, None)]


def test_the_bank_debits_when_its_notice_is_confirmed(
    database: Database, confirming_bank: SandboxBank, worker_settings: Settings, payment: Payment
) -> None:
    work(worker_settings)
    paid_once(database, confirming_bank, payment)
    assert confirming_bank.books()["notices"][-1]["outcome"] == "confirmed"


def test_a_bank_that_posts_by_itself_is_confirmed_though_its_notice_overtakes_the_payment(
    database: Database, confirming_bank: SandboxBank, worker_settings: Settings, payment: Payment
) -> None:
    confirming_bank.control(unasked=True, answer_delay_ms=200)  # its notice is sent before we hear of the hold
    work(worker_settings)
    paid_once(database, confirming_bank, payment)


def test_a_debit_that_is_refused_is_not_made_and_ends_voided(
    database: Database,
    confirming_bank: SandboxBank,
    worker_settings: Settings,
    payment: Payment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "WAIT_S", 0.0)
    monkeypatch.setattr(PendingDebits, "put", lambda *_: None)
    work(worker_settings, PATIENT_ATTEMPTS + 1)
    assert history(database, payment.id) == ["created", "debiting", "authorised", "unknown", "voided"]
    assert captures(confirming_bank, payment.id) == []
    assert answers(database) == [(None, "no_such_payment")] * PATIENT_ATTEMPTS


def test_a_bank_that_lost_the_id_of_a_confirmed_notice_debits_nothing_and_the_hold_is_undone(
    database: Database, confirming_bank: SandboxBank, worker_settings: Settings, payment: Payment, notices_url: str
) -> None:
    confirming_bank.control(fail={"capture": 1})
    work(worker_settings)
    [held] = [row for row in confirming_bank.books()["authorisations"] if row["reference"] == payment.id]
    forgotten = notice(None, card_token=held["token"], reference=held["id"])
    assert decision(send(notices_url, forgotten)) == "confirmed"  # and the bank does not know that it asked
    work(worker_settings, PATIENT_ATTEMPTS)
    assert history(database, payment.id) == ["created", "debiting", "authorised", "unknown", "voided"]
    assert captures(confirming_bank, payment.id) == []
    assert {reason for _, reason in answers(database)} == {None, "already_confirmed"}


@pytest.mark.parametrize("wrong", ["secret", "status", "notice"])
def test_the_bank_debits_on_nothing_but_a_signed_yes_to_its_own_notice(
    database: Database,
    confirming_bank: SandboxBank,
    worker_settings: Settings,
    payment: Payment,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
) -> None:
    signed = bank_notices._signed

    def forged(secret: str, notice_id: str, answer: Mapping[str, Any]) -> Response:
        if wrong == "notice":
            return signed(secret, "ntc_other", {**answer, "notice": "ntc_other"})
        response = signed("whsec_" + "A" * 43 + "=" if wrong == "secret" else secret, notice_id, answer)
        response.status_code = 500 if wrong == "status" else 200
        return response

    with monkeypatch.context() as while_forged:
        while_forged.setattr(bank_notices, "_signed", forged)
        work(worker_settings)
        assert status(database, payment.id)[0] == "authorised"
        assert captures(confirming_bank, payment.id) == []
    work(worker_settings)  # the bank repeats its notice, and hears the first answer
    paid_once(database, confirming_bank, payment)


class DeadlyBank(SandboxBank):
    """The sandbox's connector in a worker that is killed (kill -9) before or after one of its requests."""

    def __init__(self, url: str, moment: str) -> None:
        super().__init__(url, "sandbox", confirms=True)
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


@pytest.mark.parametrize("moment", ["before authorise", "after authorise", "before capture", "after capture"])
def test_a_worker_killed_between_two_steps_is_followed_by_one_that_finishes(
    database: Database, confirming_bank: SandboxBank, worker_settings: Settings, payment: Payment, moment: str
) -> None:
    killed = multiprocessing.get_context("fork").Process(
        target=worker.run,
        args=(worker_settings, threading.Event()),
        kwargs={"once": True, "lease": timedelta(0), "bank": DeadlyBank(confirming_bank.url, moment)},
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    work(worker_settings)
    paid_once(database, confirming_bank, payment)


def test_an_endpoint_away_for_a_while_delays_the_debit_only(
    database: Database, confirming_bank: SandboxBank, worker_settings: Settings, payment: Payment
) -> None:
    def away(*_: object) -> Response:
        raise OSError

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(notices.Confirmations, "answer", away)
        work(worker_settings)
        assert status(database, payment.id)[0] == "authorised"
    work(worker_settings)
    paid_once(database, confirming_bank, payment)


def test_the_whole_service_goes_on_when_its_redis_is_killed(short_folder: Path) -> None:
    """Endpoint, worker, bank and Redis, each a process of its own; Redis is killed with -9 again and again."""
    folder = short_folder / "confirmation"
    settings = Settings(data_dir=folder, digit_model_dir=folder, voice_model_dir=folder, _env_file=None)
    database = Database(settings.sqlalchemy_url())
    upgrade(database)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bank_process, bank_url = start_confirming_bank(folder / "bank", f"http://127.0.0.1:{port}/bank/notices")
    environment = os.environ | {
        "IVR_DATA_DIR": str(folder),
        "IVR_BANK_URL": bank_url,
        "IVR_BANK_NOTICE_SECRET": SECRET,
        "IVR_DIGIT_MODEL_DIR": str(folder),
        "IVR_VOICE_MODEL_DIR": str(folder),
    }
    web = [sys.executable, "-m", "gunicorn", "--threads=8", f"--bind=127.0.0.1:{port}"]
    log = open(folder / "log", "w")  # noqa: SIM115 - closed below, with the processes
    processes = [
        subprocess.Popen([*web, "ivr.api.bank_notices:create_app()"], env=environment, stderr=log),
        subprocess.Popen([sys.executable, "-m", "ivr.ops.cli", "worker"], env=environment, stderr=log),
    ]
    bank = SandboxBank(bank_url, "sandbox")
    try:
        wait_until(lambda: answers_http(port))
        redis = store_redis.connect(settings)
        payments = []
        for round_ in range(3):
            payments += [new_payment(database, bank, f"key-{round_}-{i}") for i in range(4)]
            time.sleep(0.3)
            os.kill(int(redis.info("server")["process_id"]), signal.SIGKILL)
        wait_until(lambda: all(status(database, payment.id)[0] == "paid" for payment in payments))
        assert [captures(bank, payment.id) for payment in payments] == [[4210]] * len(payments)
        confirmed = [payment_id for payment_id, reason in answers(database) if reason is None]
        assert sorted(map(str, confirmed)) == sorted(payment.id for payment in payments)
    finally:
        for process in (*processes, bank_process):
            process.terminate()
            process.wait()
        log.close()
        store_redis.stop(settings)
        database.engine.dispose()
    written = (folder / "log").read_text()
    assert "pending debits rebuilt" in written
    assert SECRET not in written
    assert "tok_" not in written


def answers_http(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/bank/notices", timeout=1).status_code == 405
    except requests.RequestException:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
