"""A bank that confirms debits with us: the endpoint over real HTTP, a sandbox bank in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask
from werkzeug.serving import make_server

from ivr.api import bank_notices
from ivr.clock import utc_now
from ivr.keys import Keyring
from ivr.payments.notices import Confirmations
from ivr.payments.pending import PendingDebits
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.webhooks.signature import secret

SECRET = secret(bytes(32), "test")


@pytest.fixture
def notices_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"bank_notice_secret": type(settings.auth_token)(SECRET)})


@pytest.fixture
def pending(redis_client: redis.Redis, keyring: Keyring) -> PendingDebits:
    """The index in an empty Redis, known to be whole: there is nothing pending."""
    index = PendingDebits(redis_client, keyring)
    assert index.rebuild([])
    return index


@pytest.fixture
def notices_url(notices_settings: Settings, database: Database, pending: PendingDebits) -> Iterator[str]:
    app = Flask(__name__)
    bank_notices.install(app, notices_settings, Confirmations(database, pending, utc_now))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/bank/notices"
    server.shutdown()
    thread.join()


@pytest.fixture
def confirming_bank(notices_url: str, tmp_path: Path) -> Iterator[SandboxBank]:
    process, url = start_confirming_bank(tmp_path / "bank", notices_url)
    yield SandboxBank(url, "sandbox", confirms=True)
    process.terminate()
    process.wait()


@pytest.fixture
def worker_settings(notices_settings: Settings, confirming_bank: SandboxBank) -> Settings:
    return notices_settings.model_copy(update={"bank_url": confirming_bank.url})


def start_confirming_bank(data: Path, notices_url: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "ivr.payments.sandbox", "--port", str(port), "--data", str(data)]
    environment = os.environ | {"IVR_BANK_NOTICE_SECRET": SECRET}
    process = subprocess.Popen(
        [*command, "--confirm-at", notices_url], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip().removeprefix("sandbox bank ready on ")
