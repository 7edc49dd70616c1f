"""What the operator's commands share: the database, who is at the desk, and tables."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.orm import Session

from ivr.settings import settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade


@contextmanager
def transaction() -> Iterator[Session]:
    """A transaction on the service's database, which is made or brought up to date first."""
    with _database() as database, database.transaction() as session:
        yield session


@contextmanager
def snapshot() -> Iterator[Session]:
    """The same for what only reads, however long: one moment of the database, and no writer waits."""
    with _database() as database, database.snapshot() as session:
        yield session


@contextmanager
def _database() -> Iterator[Database]:
    database = Database(settings().sqlalchemy_url())
    try:
        upgrade(database)
        yield database
    finally:
        database.engine.dispose()


def who() -> str:
    """The operator, for the audit trail."""
    return f"operator {getpass.getuser()}"


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, empty: str) -> None:
    """A table whose cells are data, never markup; long ones fold and lose nothing."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table if table.row_count else empty)


def day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else ""


def minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""
