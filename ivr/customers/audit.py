"""The audit trail: one row for everything that an operator, or a caller's say-so, changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.models import Audit


def record(session: Session, who: str, what: str, subject: str, now: datetime, **details: Any) -> None:
    """Note, in the same transaction, that ``who`` did ``what`` to ``subject``, an id. No secrets."""
    session.add(Audit(at=now, who=who, what=what, subject=subject, details=details))


def last(session: Session, what: str, subject: str, *, since: datetime) -> Audit | None:
    """The last time since then that this was done to the subject."""
    query = select(Audit).where(Audit.subject == subject, Audit.what == what, Audit.at >= since)
    return session.scalar(query.order_by(Audit.at.desc()).limit(1))
