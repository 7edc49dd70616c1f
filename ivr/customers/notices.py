"""What customers are told, on every contact on file: rows that the outbox sends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.models import Contact, Notice, new_id


def notify(
    session: Session, customer_id: str, template: str, values: Mapping[str, Any], now: datetime
) -> list[Notice]:
    """One message a contact, in the caller's transaction. ``values`` fill the template and hold no secret."""
    contacts = session.scalars(select(Contact).where(Contact.customer_id == customer_id).order_by(Contact.id))
    notices = [
        Notice(
            id=new_id(),
            customer_id=customer_id,
            contact_id=contact.id,
            template=template,
            values=dict(values),
            created_at=now,
        )
        for contact in contacts
    ]
    session.add_all(notices)
    return notices
