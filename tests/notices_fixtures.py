"""A bank that confirms debits with us: the endpoint over real HTTP, a sandbox bank in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis
from flask import Flask
from notices_support import SECRET, start_confirming_bank
from pydantic import SecretStr
from werkzeug.serving import make_server

from ivr.api import bank_notices
from ivr.clock import utc_now
from ivr.keys import Keyring
from ivr.payments.notices import Confirmations
from ivr.payments.pending import PendingDebits
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store.db import Database


@pytest.fixture
def notices_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"bank_notice_secret": SecretStr(SECRET)})


@pytest.fixture
def pending(redis_client: redis.Redis, keyring: Keyring) -> PendingDebits:
    """The index in an empty Redis, known to be whole: there is nothing pending."""
    index = PendingDebits(redis_client, keyring)
    assert index.rebuild([])
    return index


@pytest.fixture(scope="session")
def notices_server() -> Iterator[tuple[str, list[Flask]]]:
    """Its URL, and the application that it serves: the last one of the list."""
    apps: list[Flask] = []
    server = make_server("127.0.0.1", 0, lambda *request: apps[-1](*request), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/bank/notices", apps
    server.shutdown()
    thread.join()


@pytest.fixture
def notices_url(
    notices_server: tuple[str, list[Flask]], notices_settings: Settings, database: Database, pending: PendingDebits
) -> str:
    url, apps = notices_server
    apps.append(Flask(__name__))
    bank_notices.install(apps[-1], notices_settings, Confirmations(database, pending, utc_now))
    return url


@pytest.fixture(scope="session")
def confirming_bank_url(
    notices_server: tuple[str, list[Flask]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    process, url = start_confirming_bank(tmp_path_factory.mktemp("bank"), notices_server[0])
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def confirming_bank(confirming_bank_url: str, notices_url: str) -> SandboxBank:
    """The bank with nothing commanded; it asks the endpoint of this test."""
    bank = SandboxBank(confirming_bank_url, "sandbox", confirms=True)
    bank.control()
    return bank


@pytest.fixture
def worker_settings(notices_settings: Settings, confirming_bank: SandboxBank) -> Settings:
    return notices_settings.model_copy(update={"bank_url": confirming_bank.url})
