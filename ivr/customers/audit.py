"""The audit trail: one row for everything that an operator, or a caller's say-so, changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from ivr.customers.models import Audit


def record(session: Session, who: str, what: str, subject: str, now: datetime, **details: Any) -> None:
    """Note, in the same transaction, that ``who`` did ``what`` to ``subject``, an id. No secrets."""
    session.add(Audit(at=now, who=who, what=what, subject=subject, details=details))
