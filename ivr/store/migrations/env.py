"""Alembic's entry: runs migrations on the connection that ``ivr.store.migrations`` hands in."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from ivr.store.db import UTCDateTime
from ivr.store.models import metadata


def render_item(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Plain types in the migrations: they must not change with our code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UTCDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=render_item,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
