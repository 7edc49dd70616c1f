"""What Prometheus is told: by the token only, what was counted, what waits, and no number of anybody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask import Flask
from people_support import Browser, add_person, appoint, pay
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from bench.ledger.processes import free_ports, until
from ivr import metrics
from ivr.app import create_app
from ivr.approval.policy import Role
from ivr.call.judging import Judge
from ivr.clock import utc_now
from ivr.keys import Keyring
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from voiceprint import Encoder

pytest_plugins = ["people_fixtures", "payments_fixtures"]

TOKEN = "scrape-me"


@pytest.fixture
def measured(pages: Flask, settings: Settings) -> Flask:
    opened = settings.model_copy(update={"metrics_token": SecretStr(TOKEN)})
    return create_app(opened, pages.extensions["ivr"])


def scrape(app: Flask, token: str = TOKEN) -> dict[str, dict[tuple[str, ...], float]]:
    given = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert given.status_code == 200
    return samples(given.text)


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_only_who_shows_the_token_is_told(measured: Flask, pages: Flask) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ü"}):
        assert measured.test_client().get("/metrics", headers=headers).status_code == 401
    assert pages.test_client().get("/metrics").status_code == 404  # no token is set


def test_what_waits_is_read_from_the_database(measured: Flask, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        payer, guardian = (add_person(session, keyring) for _ in range(2))
        appoint(session, Role.GUARDIAN, payer, guardian)
        pay(session, payer, 50_000)
        pay(session, guardian, 100)
    found = scrape(measured)
    assert found["ivr_payments_undecided"] == {("awaiting",): 1, ("created",): 1}
    assert found["ivr_approvals_open"] == {(): 1}
    assert found["ivr_jobs_due"]["payment.debit",] == 1
    assert found["ivr_jobs_late_seconds"]["payment.debit",] >= 0


def test_requests_turns_and_jobs_are_counted(measured: Flask) -> None:
    before = scrape(measured)
    measured.test_client().get("/health")
    metrics.TURNS.labels("card", "again").inc()
    after = scrape(measured)

    def grown(name: str, labels: tuple[str, ...]) -> float:
        return after[name].get(labels, 0) - before.get(name, {}).get(labels, 0)

    assert grown("ivr_request_seconds_count", ("health", "200")) == 1
    assert grown("ivr_turns_total", ("again", "card")) == 1


def test_no_label_is_an_id_or_a_number(measured: Flask, browser: Browser, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        person = add_person(session, keyring)
    measured.test_client().get(f"/my/requests/{person.id}")
    measured.test_client().get(f"/v1/bills/{person.id}")
    measured.test_client().get(f"/{person.id}")
    for samples in scrape(measured).values():
        for labels in samples:
            assert not any(re.search(r"[0-9a-f]{8}|\d{5}", label) for label in labels), labels


def test_a_worker_tells_what_it_did_and_how_long_the_bank_took_where_it_is_told_to(
    tmp_path: Path, bank_url: str, keyring: Keyring
) -> None:
    folders = {"data_dir": tmp_path, "digit_model_dir": tmp_path, "voice_model_dir": tmp_path}
    database = Database(Settings(**folders, _env_file=None).sqlalchemy_url())
    upgrade(database)
    with database.transaction() as session:
        pay(session, add_person(session, keyring))
    database.engine.dispose()
    [port] = free_ports(1)
    told = {f"IVR_{name.upper()}": str(folder) for name, folder in folders.items()} | {"IVR_BANK_URL": bank_url}
    command = [sys.executable, "-m", "ivr.ops.cli", "worker", "--metrics-port", str(port)]
    worker = subprocess.Popen(command, env=os.environ | told, stderr=subprocess.DEVNULL)
    try:

        def found() -> dict[str, dict[tuple[str, ...], float]] | None:
            given = samples(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text)
            debited = any(kind == "payment.debit" for kind, _ in given.get("ivr_jobs_total", {}))
            return given if debited else None  # the bank was asked before

        given = until("a debit was counted", found)
    finally:
        worker.terminate()
        worker.wait()
    assert given["ivr_bank_seconds_count"]["authorise",] >= 1


def test_recordings_that_wait_for_the_encoder_are_counted(database: Database, keyring: Keyring) -> None:
    encoder = Encoder.load(shipped("models/voice"))
    judge = Judge(database, None, keyring, encoder, None, utc_now)  # type: ignore[arg-type]
    go_on = threading.Event()
    encoder._worker.submit(go_on.wait)
    with ThreadPoolExecutor(2) as callers:
        heard = [callers.submit(judge.embed, np.zeros(8000, np.int16)) for _ in range(2)]
        until("both wait", lambda: metrics.EMBEDDING._value.get() == 2)
        go_on.set()
    assert [found.result()[0].net_speech_s for found in heard] == [0, 0]
    assert metrics.EMBEDDING._value.get() == 0


def test_processes_count_together(tmp_path: Path) -> None:
    """As under gunicorn."""
    script = "from ivr import metrics; metrics.CALLS.labels('incoming').inc()"
    tell = (
        "import sys; from prometheus_client import CollectorRegistry, generate_latest;"
        "from prometheus_client.multiprocess import MultiProcessCollector; r = CollectorRegistry();"
        "MultiProcessCollector(r); sys.stdout.buffer.write(generate_latest(r))"
    )
    environment: dict[str, Any] = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    told = subprocess.run([sys.executable, "-c", tell], env=environment, check=True, capture_output=True, text=True)
    assert 'ivr_calls_total{kind="incoming"} 2.0' in told.stdout
