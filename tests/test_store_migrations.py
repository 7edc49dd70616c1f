from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, make_url, text

from ivr.store import migrations
from ivr.store.db import Database
from ivr.store.migrations import config, current, head, upgrade
from ivr.store.models import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without a table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'ivr.sqlite3'}"
        return
    server = Database(request.getfixturevalue("postgresql_url"))
    autocommit = server.engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(text("CREATE DATABASE bare"))
    yield make_url(request.getfixturevalue("postgresql_url")).set(database="bare").render_as_string(False)
    with autocommit.connect() as connection:
        connection.execute(text("DROP DATABASE bare WITH (FORCE)"))
    server.engine.dispose()


@pytest.fixture
def bare(bare_url: str) -> Iterator[Database]:
    database = Database(bare_url)
    yield database
    database.engine.dispose()


def test_the_migrations_make_what_the_models_say(bare: Database) -> None:
    upgrade(bare)
    with bare.engine.begin() as connection:
        assert (
            compare_metadata(MigrationContext.configure(connection, {"compare_type": True}), metadata) == []
        )
        assert current(connection) == head()


def test_partial_indexes_are_partial_in_the_migrations_too(bare: Database) -> None:
    upgrade(bare)
    kind = bare.engine.dialect.name
    for table in metadata.sorted_tables:
        wanted = {i.name for i in table.indexes if i.dialect_options[kind]["where"] is not None}
        found = inspect(bare.engine).get_indexes(table.name)
        assert {i["name"] for i in found if i["dialect_options"].get(f"{kind}_where") is not None} == wanted


def test_processes_that_upgrade_at_once_wait_for_each_other(bare_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [Database(bare_url) for _ in range(4)]))
    database = Database(bare_url)
    upgrade(database)
    assert set(metadata.tables) < set(inspect(database.engine).get_table_names())
    database.engine.dispose()


def test_connections_that_make_an_sqlite_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    for number in range(60):  # the collision is rare: a few rounds in a hundred
        databases = [Database(f"sqlite:///{tmp_path / str(number)}") for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(_journal_mode, databases)) == ["wal"] * 6


def _journal_mode(database: Database) -> str:
    with database.engine.connect() as connection:
        mode: str = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    database.engine.dispose()
    return mode


def test_every_migration_can_be_taken_back(bare: Database) -> None:
    upgrade(bare)
    with bare.engine.begin() as connection:
        command.downgrade(config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]


def test_rows_that_others_name_survive_the_columns_of_approvals(bare: Database) -> None:
    """SQLite makes a table anew where it cannot alter it, and cannot drop one that others name."""
    upgrade(bare)
    with bare.engine.begin() as connection:
        command.downgrade(config(connection), "0008")
        now = "2026-11-01 00:00:00+00:00"
        for statement in (
            f"INSERT INTO customers (id, number, locale, test, created_at) VALUES ('c', '1', 'en', true, '{now}')",
            "INSERT INTO caller_ids (e164, customer_id) VALUES ('+14155550100', 'c')",
            "INSERT INTO contacts (id, customer_id, kind, address) VALUES ('k', 'c', 'sms', '+14155550100')",
            "INSERT INTO bills (id, customer_id, merchant, amount_minor, currency, description, status, created_at)"
            f" VALUES ('b', 'c', 'Bookshop', 5, 'USD', '', 'open', '{now}')",
        ):
            connection.execute(text(statement))
    upgrade(bare)
    with bare.engine.begin() as connection:
        assert connection.execute(text("SELECT minor FROM customers")).scalars().all() in ([False], [0])
        assert connection.execute(text("SELECT kind, ship_to FROM bills")).all() == [("", None)]
        command.downgrade(config(connection), "0008")
    with bare.engine.connect() as connection:
        assert connection.execute(text("SELECT address FROM contacts")).scalars().all() == ["+14155550100"]


def test_migrations_only_add() -> None:
    """Old code runs on the new tables while processes are replaced one after the other."""
    for path in sorted((Path(migrations.__file__).parent / "versions").glob("[0-9]*.py")):
        lines = path.read_text().split("def downgrade")[0].splitlines()
        # What may be missing from now on, old code goes on to write.
        upgrade_ = "\n".join(one for one in lines if not ("alter_column" in one and "nullable=True" in one))
        taken = [call for call in ("drop_table", "drop_column", "rename_table", "alter_column") if call in upgrade_]
        assert not taken or path.name[:4] <= "0010", f"{path.name}: {taken}"
