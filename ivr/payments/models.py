"""Tables of payments: the payment and its append-only history."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, Integer, String, event, text
from sqlalchemy.orm import Mapped, mapped_column

from ivr.customers.models import new_id
from ivr.payments.states import FAILED, State
from ivr.store.db import Base

_STATE = Enum(State, native_enum=False, length=16, values_callable=lambda states: [s.value for s in states])
_ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows by itself only as INTEGER
_NOT_FAILED = text("state NOT IN ({})".format(", ".join(f"'{state}'" for state in sorted(FAILED))))


class Payment(Base):
    """One attempt to settle a bill. The three bank keys are committed before anything is sent to the bank."""

    __tablename__ = "payments"
    # One live payment a bill: only refused and voided ones leave room for another.
    __table_args__ = (
        Index(
            "uq_payments_live_bill",
            "bill_id",
            unique=True,
            sqlite_where=_NOT_FAILED,
            postgresql_where=_NOT_FAILED,
        ),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    bill_id: Mapped[str] = mapped_column(ForeignKey("bills.id"), index=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    card_id: Mapped[str] = mapped_column(ForeignKey("cards.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[State] = mapped_column(_STATE, index=True)

    idempotency_key: Mapped[str] = mapped_column(String(128), unique=True)
    bank: Mapped[str] = mapped_column(String(32))
    bank_idempotency_key: Mapped[str] = mapped_column(String(32), unique=True)  # of the authorisation
    capture_key: Mapped[str] = mapped_column(String(32), unique=True)
    void_key: Mapped[str] = mapped_column(String(32), unique=True)
    bank_reference: Mapped[str | None] = mapped_column(String(128))
    decline_reason: Mapped[str | None] = mapped_column(String(32))
    receipt_number: Mapped[str | None] = mapped_column(String(8), unique=True)

    call_sid: Mapped[str] = mapped_column(String(64), index=True)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)  # the factors of the call; nothing secret
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class PaymentEvent(Base):
    """One line of a payment's history: who moved it, from where to where, and why. Append-only."""

    __tablename__ = "payment_events"

    id: Mapped[int] = mapped_column(_ROW_NUMBER, primary_key=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), index=True)
    at: Mapped[datetime]
    from_state: Mapped[State | None] = mapped_column(_STATE)
    to_state: Mapped[State] = mapped_column(_STATE)
    who: Mapped[str] = mapped_column(String(64))
    why: Mapped[str] = mapped_column(String(200))


class AppendOnly(Exception):
    """A line of the history was to be changed or deleted."""


@event.listens_for(PaymentEvent, "before_update")
@event.listens_for(PaymentEvent, "before_delete")
def _refuse_change(_mapper: object, _connection: object, target: PaymentEvent) -> None:
    raise AppendOnly(f"event {target.id} of payment {target.payment_id} cannot be changed")
