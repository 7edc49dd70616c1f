"""Codes to sign in to the pages with. Whoever asks for one learns nothing: the same job is queued for any number."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval import links
from ivr.approval.appointments import settled_contacts
from ivr.customers.lookup import customer_by_number
from ivr.customers.models import new_id
from ivr.jobs import Held

CODE_JOB = "page.code"


def ask_code(session: Session, number: str, now: datetime) -> None:
    """Have a code sent to the settled contacts of the customer with this number, if there is one."""
    jobs.put(session, CODE_JOB, {"number": number}, f"{CODE_JOB}:{new_id()}", now)


def send_code(held: Held) -> None:
    """What a worker does then."""
    now = datetime.now(UTC)
    with held.transaction() as session:
        customer = customer_by_number(session, held.payload["number"])
        if customer and (contacts := settled_contacts(session, customer.id, now)):
            links.new_code(session, customer.id, contacts, now)
