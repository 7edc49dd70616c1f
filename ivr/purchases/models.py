"""The tables of purchases, and of the pages on which they are confirmed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from ivr.customers.models import new_id
from ivr.store.db import Base

_OPEN = text("result IS NULL AND payment_id IS NULL")


class MerchantPage(Base):
    """What purchases of a kind of product are confirmed on: ``goods``, ``service``, or a page of the merchant's."""

    __tablename__ = "merchant_pages"

    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    page: Mapped[str] = mapped_column(String(1000))


class Purchase(Base):
    """A purchase request. ``result``: how it ended before there was a payment; afterwards the payment tells.

    ``customer_id``: who proved on the page that she is meant; until then nothing here depends on who is known.
    """

    __tablename__ = "purchases"
    __table_args__ = (
        Index("ix_purchases_merchant_id_created_at", "merchant_id", "created_at"),
        Index("ix_purchases_open", "expires_at", sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"))
    merchant_customer_id: Mapped[str] = mapped_column(ForeignKey("merchant_customers.id"), index=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    product_kind: Mapped[str] = mapped_column(String(40))
    description: Mapped[str] = mapped_column(String(80))
    ship_to: Mapped[str | None] = mapped_column(String(200))
    result_url: Mapped[str | None] = mapped_column(String(1000))
    page: Mapped[str] = mapped_column(String(8))  # goods or service
    jump_url: Mapped[str | None] = mapped_column(String(1000))  # the merchant's page that comes before
    tries: Mapped[int] = mapped_column(default=0)  # at number and PIN
    result: Mapped[str | None] = mapped_column(String(24))
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id"))
    payment_id: Mapped[str | None] = mapped_column(ForeignKey("payments.id"), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
