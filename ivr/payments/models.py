"""Tables of payments: the payment, its append-only history, commands, transfers, refunds, the bank's notices."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Enum, ForeignKey, Index, Integer, String, event, false, text
from sqlalchemy.orm import Mapped, mapped_column

from ivr.customers.models import new_id
from ivr.payments.bank import Channel
from ivr.payments.states import FAILED, State
from ivr.store.db import Base

_STATE = Enum(State, native_enum=False, length=16, values_callable=lambda states: [s.value for s in states])
_ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows by itself only as INTEGER
_NOT_FAILED = text("state NOT IN ({})".format(", ".join(f"'{state}'" for state in sorted(FAILED))))


class Payment(Base):
    """One attempt to settle a bill. The three bank keys are committed before anything is sent to the bank."""

    __tablename__ = "payments"
    # One live payment a bill: only those that failed leave room for another.
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
    hold_only: Mapped[bool] = mapped_column(default=False, server_default=false())  # debited when somebody posts it
    hold_expires_at: Mapped[datetime | None]
    post_minor: Mapped[int | None] = mapped_column(BigInteger)  # the part to be debited; null: the whole
    decline_reason: Mapped[str | None] = mapped_column(String(32))
    receipt_number: Mapped[str | None] = mapped_column(String(8), unique=True)

    ship_to: Mapped[str | None] = mapped_column(String(200))  # where the goods go, as the payer chose
    call_sid: Mapped[str] = mapped_column(String(64), index=True)  # or "purchase:", "app:" and its id
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)  # the factors of the call; nothing secret
    created_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime]

    @property
    def debit_minor(self) -> int:
        """What is to be debited of the amount held, or was."""
        return self.amount_minor if self.post_minor is None else self.post_minor

    @property
    def channel(self) -> Channel:
        """How she ordered, for the bank."""
        return "web" if ":" in self.call_sid else "telephone"


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


class PaymentCommand(Base):
    """A command that was carried out: its idempotency key, what it was asked, what it answered. Append-only."""

    __tablename__ = "payment_commands"

    key: Mapped[str] = mapped_column(String(160), primary_key=True)
    name: Mapped[str] = mapped_column(String(32))
    input_hash: Mapped[str] = mapped_column(String(64))  # SHA-256, in hexadecimal digits
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # null only inside the command's own transaction
    who: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime]


class Transfer(Base):
    """One transfer of the books, both sides in one row, so that they cannot be out of balance. Append-only."""

    __tablename__ = "transfers"
    __table_args__ = (CheckConstraint("amount_minor > 0", name="positive"),)

    id: Mapped[int] = mapped_column(_ROW_NUMBER, primary_key=True)
    cause: Mapped[str] = mapped_column(String(64), unique=True)  # what it is for; nothing is booked twice
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    debit: Mapped[str] = mapped_column(String(220))  # the account debited
    credit: Mapped[str] = mapped_column(String(220))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    at: Mapped[datetime] = mapped_column(index=True)


class RefundState(StrEnum):
    REQUESTED = "requested"  # the bank may have been asked
    DONE = "done"
    REFUSED = "refused"


class Refund(Base):
    """An amount given back of a payment. Its bank key is committed before the bank is asked."""

    __tablename__ = "refunds"
    __table_args__ = (CheckConstraint("amount_minor > 0", name="positive"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), index=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[RefundState] = mapped_column(
        Enum(RefundState, native_enum=False, length=16, values_callable=lambda states: [s.value for s in states])
    )
    bank_key: Mapped[str] = mapped_column(String(32), unique=True)
    why: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DebitNotice(Base):
    """What the bank announced to debit, and what we answered: confirmed when ``reason`` is null. Append-only.

    The index is what lets a payment be confirmed once, whatever became of Redis.
    """

    __tablename__ = "debit_notices"
    __table_args__ = (
        Index(
            "uq_debit_notices_confirmed",
            "payment_id",
            unique=True,
            sqlite_where=text("reason IS NULL"),
            postgresql_where=text("reason IS NULL"),
        ),
    )

    bank: Mapped[str] = mapped_column(String(32), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # the bank's
    payment_id: Mapped[str | None] = mapped_column(ForeignKey("payments.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    reference: Mapped[str | None] = mapped_column(String(128))
    reason: Mapped[str | None] = mapped_column(String(32))
    at: Mapped[datetime]


class AppendOnly(Exception):
    """A line of the history was to be changed or deleted."""


def refuse_change(_mapper: object, _connection: object, target: Base) -> None:
    raise AppendOnly(f"a row of {target.__tablename__} cannot be changed")


for _table in (PaymentEvent, PaymentCommand, Transfer, DebitNotice):
    event.listen(_table, "before_update", refuse_change)
    event.listen(_table, "before_delete", refuse_change)
