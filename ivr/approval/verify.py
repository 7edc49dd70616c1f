"""How an approver proves who she is before she answers: her own PIN, counted with all her other failures."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval.models import PageSession
from ivr.customers import budget, pins
from ivr.customers.models import new_id
from ivr.keys import Keyring


def by_pin(
    session: Session,
    customer_id: str,
    pin: str,
    keyring: Keyring,
    where: str,
    now: datetime,
    *,
    attested: bool = True,
    compared: pins.Compared | None = None,
) -> bool:
    """Whether this is her PIN and her failure budget is not spent. A wrong one is counted: commit in any case.

    ``where`` names the page or call, for the record of failures. ``attested``: she came by what only she has, such
    as a link to her own contact; else failures are counted as those of a call that merely claims her number.
    ``compared``: see ``pins.check_pin``. However many compare at once, each is judged here by what is left to guess.
    """
    budget.hold(session, [customer_id])
    # Also when locked: the time it takes tells nothing.
    right = pins.check_pin(session, customer_id, pin, keyring, compared)
    if budget.is_locked(session, customer_id, now, attested=attested):
        return False
    if right:
        budget.record_success(session, customer_id, where, attested=attested)
        return True
    budget.record_failure(session, [customer_id], where, new_id(), now, attested=attested)
    return False


def shares_device(session: Session, device: str, customer_id: str) -> bool:
    """Whether this customer has ever signed in to the pages with the same browser."""
    query = select(PageSession.id).where(PageSession.device == device, PageSession.customer_id == customer_id)
    return session.scalar(query.limit(1)) is not None
