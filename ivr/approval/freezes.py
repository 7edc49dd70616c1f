"""Stopping all payments of a customer at once, because somebody said that this is a fraud."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from ivr.approval.models import Freeze
from ivr.customers import audit
from ivr.customers.lookup import lock_customer
from ivr.customers.notices import notify


def is_frozen(session: Session, customer_id: str) -> bool:
    """Whether no payment of this customer may be made."""
    return session.scalar(_standing(customer_id)) is not None


def freeze(session: Session, customer_id: str, *, who: str, now: datetime) -> bool:
    """Stop the customer's payments; False if they are stopped already. She is told.

    What waits to be sent to the bank is for the caller to cancel (``ivr.approval.requests.stop``).
    """
    lock_customer(session, customer_id)
    if is_frozen(session, customer_id):
        return False
    session.add(Freeze(customer_id=customer_id, at=now, who=who))
    audit.record(session, who, "payments.frozen", customer_id, now)
    notify(session, customer_id, "account.frozen", {}, now)
    session.flush()
    return True


def clear(session: Session, customer_id: str, *, who: str, now: datetime) -> bool:
    """Let the customer pay again; False if nothing stopped her. She is told."""
    lock_customer(session, customer_id)
    standing = session.scalar(_standing(customer_id))
    if standing is None:
        return False
    standing.cleared_at, standing.cleared_by = now, who
    audit.record(session, who, "payments.cleared", customer_id, now)
    notify(session, customer_id, "account.cleared", {}, now)
    session.flush()
    return True


def _standing(customer_id: str) -> Select[Freeze]:
    return select(Freeze).where(Freeze.customer_id == customer_id, Freeze.cleared_at.is_(None))
