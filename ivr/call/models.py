"""The record of calls: what each turn came to, for operators and auditors. No digits, no audio, no names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from ivr.store.db import Base


class Turn(Base):
    """One listening turn: the state it was in, its event, and the decisions that the caller is not told."""

    __tablename__ = "turns"

    call_sid: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(String(16))
    event: Mapped[str] = mapped_column(String(16))
    decisions: Mapped[dict[str, Any]] = mapped_column(JSON)
