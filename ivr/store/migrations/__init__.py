"""The database's schema, brought up to date by whoever opens the database first.

After a change of a model, ``python -m ivr.store.migrations "what changed"`` writes the next step into
``versions``.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from ivr.store.db import Database

_FOLDER = Path(__file__).parent
_LOCK = 4_912_770_315  # of PostgreSQL's advisory locks; any number that nobody else uses


def upgrade(database: Database) -> None:
    """Bring the schema to this version's, in one transaction; many processes may do so at the same time."""
    url = database.engine.url
    if database.engine.dialect.name == "sqlite" and url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with database.engine.begin() as connection:
        _wait_for_others(connection)
        if current(connection) != head():
            command.upgrade(config(connection), "head")


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The revision of this version of the service."""
    return ScriptDirectory(str(_FOLDER)).get_current_head()


def known(revision: str) -> bool:
    """Whether this version of the service can bring a database at ``revision`` up to date."""
    return any(step.revision == revision for step in ScriptDirectory(str(_FOLDER)).walk_revisions())


def config(connection: Connection) -> Config:
    """Alembic's configuration, without an ini file."""
    made = Config()
    made.set_main_option("script_location", str(_FOLDER))
    made.attributes["connection"] = connection
    return made


def _wait_for_others(connection: Connection) -> None:
    # On SQLite the transaction itself is the lock: it begins with BEGIN IMMEDIATE.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
