"""What customers are told, on every contact on file: rows, each with the job that sends it (``ivr.notifications``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.customers.models import Contact, Notice, new_id

SEND_JOB = "notice.send"


def notify(
    session: Session, customer_id: str, template: str, values: Mapping[str, Any], now: datetime
) -> list[Notice]:
    """One message a contact, and the job to send it, in the caller's transaction.

    ``template`` is an id in ``ivr/notifications/en.toml``; ``values`` fill it and hold no secret.
    """
    contacts = session.scalars(select(Contact).where(Contact.customer_id == customer_id).order_by(Contact.id))
    return [notify_at(session, contact, template, values, now) for contact in contacts.all()]


def notify_at(
    session: Session, contact: Contact, template: str, values: Mapping[str, Any], now: datetime
) -> Notice:
    """The same, to one contact."""
    notice = Notice(
        id=new_id(),
        customer_id=contact.customer_id,
        contact_id=contact.id,
        template=template,
        values=dict(values),
        created_at=now,
    )
    session.add(notice)
    jobs.put(session, SEND_JOB, {"notice_id": notice.id}, f"{SEND_JOB}:{notice.id}", now)
    return notice
