"""What the service has for the ledger: the outbox of what is settled, and the proofs that came back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from ivr.store.db import Base

_WAITS = text("height IS NULL AND refused IS NULL")


class LedgerEntry(Base):
    """Something settled. The ledger is told ``subject`` and a commitment; salt and details stay here.

    It waits as long as ``height`` and ``refused`` are null.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        UniqueConstraint("kind", "subject"),
        Index("ix_ledger_entries_waiting", "id", sqlite_where=_WAITS, postgresql_where=_WAITS),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(64))
    payment_id: Mapped[str | None] = mapped_column(ForeignKey("payments.id"), index=True)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    salt: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    height: Mapped[int | None] = mapped_column(BigInteger)  # of the block it is final in
    proof: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    refused: Mapped[str | None] = mapped_column(String(200))
