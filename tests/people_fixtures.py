"""Fixtures of the pages: an application with everything but the speech models, and browsers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis
from flask import Flask
from people_support import Browser

from ivr.app import create_app
from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.keys import Keyring
from ivr.services import Services
from ivr.settings import Settings
from ivr.store.db import Database


@pytest.fixture
def pages(settings: Settings, database: Database, redis_client: redis.Redis, keyring: Keyring) -> Flask:
    """The application; no page touches a speech model."""
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, None, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    engine = Engine(calls, database, judge, lambda: datetime.now(UTC))
    return create_app(settings, Services(settings, database, calls, engine, judge, None))  # type: ignore[arg-type]


@pytest.fixture
def new_browser(pages: Flask, database: Database, keyring: Keyring) -> Callable[[], Browser]:
    """A browser that has never been here."""
    return lambda: Browser(pages.test_client(), database, keyring)


@pytest.fixture
def browser(new_browser: Callable[[], Browser]) -> Browser:
    return new_browser()
