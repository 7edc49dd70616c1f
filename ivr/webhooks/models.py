"""Tables of merchant webhooks: where a merchant wants to be told, and the outbox."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ivr.customers.models import new_id
from ivr.store.db import Base


class WebhookEndpoint(Base):
    """A URL that an operator registered for a merchant. Its secret is derived from a key outside the database.

    ``resting_until`` is set while its server fails: until then nobody asks it, and then one message at a time.
    """

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant: Mapped[str] = mapped_column(String(200), index=True)
    url: Mapped[str] = mapped_column(String(1000))
    key_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    resting_until: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]


class WebhookDelivery(Base):
    """One message to one endpoint. ``sequence`` counts the messages of a payment to it, and is their order.

    Of a purchase that ended without a payment there is one. A message waits as long as both ``delivered_at`` and
    ``given_up_at`` are null. ``round`` counts replays.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("payment_id", "endpoint_id", "sequence"),
        UniqueConstraint("purchase_id", "endpoint_id"),
        CheckConstraint("(payment_id IS NULL) <> (purchase_id IS NULL)", name="of_one"),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"), index=True)
    payment_id: Mapped[str | None] = mapped_column(ForeignKey("payments.id"))
    purchase_id: Mapped[str | None] = mapped_column(ForeignKey("purchases.id"))
    sequence: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    round: Mapped[int] = mapped_column(default=1)
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(String(64))
