"""Insert unless it is there, in one statement, on both databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ivr.store.db import Base


def insert_new(session: Session, model: type[Base], values: Mapping[str, Any]) -> bool:
    """True when the row was inserted; False when its key was taken, also by a transaction that just ended."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(model).values(**values).on_conflict_do_nothing().returning(*inspect(model).primary_key)
    return session.execute(statement).first() is not None
