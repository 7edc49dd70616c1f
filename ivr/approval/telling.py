"""Telling guardians and supervisors what became of payments, each as she chose."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval.appointments import active, persons, settled_contacts
from ivr.approval.models import DigestEntry, Tell
from ivr.customers.models import Bill, ContactKind, new_id
from ivr.customers.notices import notify_at
from ivr.jobs import Held

DIGEST_JOB = "approval.digest"
DIGEST_AT = time(18, 0, tzinfo=UTC)

_KINDS = {
    Tell.SMS: (ContactKind.SMS,),
    Tell.EMAIL: (ContactKind.EMAIL,),
    Tell.BOTH: tuple(ContactKind),
    Tell.DIGEST: (ContactKind.EMAIL,),
    Tell.NOTHING: (),
}


def about(bill: Bill) -> dict[str, Any]:
    """What approvers are told of a bill."""
    return about_amount(bill.merchant, bill.amount_minor, bill.currency)


def about_amount(merchant: str, amount_minor: int, currency: str) -> dict[str, Any]:
    """The same, where there is no bill yet, or no more."""
    return {"merchant": merchant, "amount_minor": amount_minor, "currency": currency}


def tell_approvers(session: Session, ward_id: str, template: str, values: Mapping[str, Any], now: datetime) -> None:
    """Tell everyone who must agree to this customer's payments; the template asks for ``{ward}`` besides ``values``.

    Who is guardian and supervisor at once is told once.
    """
    for person in persons(active(session, ward_id, now)):
        filled, wishes = {**values, "ward": person.label}, {a.tell for a in person.appointments}
        kinds = {kind for wish in wishes - {Tell.DIGEST} for kind in _KINDS[wish]}
        if Tell.DIGEST in wishes and not kinds:
            _put_by(session, person.id, template, filled, now)
        for contact in settled_contacts(session, person.id, now):
            if contact.kind in kinds:
                notify_at(session, contact, template, filled, now)


def send_digest(held: Held) -> None:
    """One mail with all that an approver has not been told since the last one."""
    approver_id, now = held.payload["approver_id"], datetime.now(UTC)
    with held.transaction() as session:
        query = select(DigestEntry).where(DigestEntry.approver_id == approver_id, DigestEntry.told_at.is_(None))
        entries = session.scalars(query.order_by(DigestEntry.at, DigestEntry.id)).all()
        lines = [[entry.template, entry.values] for entry in entries]
        if not lines:
            return
        for contact in settled_contacts(session, approver_id, now):
            if contact.kind in _KINDS[Tell.DIGEST]:
                notify_at(session, contact, "digest", {"lines": lines}, now)
        for entry in entries:
            entry.told_at = now


def _put_by(session: Session, approver_id: str, template: str, values: Mapping[str, Any], now: datetime) -> None:
    session.add(DigestEntry(id=new_id(), approver_id=approver_id, template=template, values=dict(values), at=now))
    due = datetime.combine(now.astimezone(UTC).date(), DIGEST_AT)
    due += timedelta(days=due <= now + timedelta(minutes=1))  # what is written while that of today is sent
    jobs.put(session, DIGEST_JOB, {"approver_id": approver_id}, f"{DIGEST_JOB}:{approver_id}:{due:%Y%m%d}", due)
