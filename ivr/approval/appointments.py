"""Guardians and supervisors: named, accepted with their own verification and consent, told, ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ivr.approval import links
from ivr.approval.models import Appointment, Standing, Tell
from ivr.approval.policy import Role
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import lock_customer
from ivr.customers.models import CallerId, Consent, Contact, ContactKind, Customer, new_id
from ivr.customers.money import check_currency
from ivr.customers.notices import notify
from ivr.customers.pins import has_pin
from ivr.customers.text import clean_text
from ivr.customers.voiceprints import record_consent

CONSENT_TEXT_VERSION = "approver-1"
PROPOSAL_LIFE = timedelta(days=14)
SETTLED_AFTER = timedelta(days=7)
"""A telephone number or e-mail address that was changed since then is not used to ask, nor to prove, anything."""
REMOVAL_WAIT = timedelta(days=7)
"""How long a supervisor stays who is to be removed: whoever deceives a payer cannot wait so long."""
MOST_APPROVERS, MOST_WARDS = 9, 50

_ACCEPTED = {Role.GUARDIAN: "guardian.accepted", Role.SUPERVISOR: "supervisor.accepted"}
_ENDING = {Role.GUARDIAN: "guardian.ending", Role.SUPERVISOR: "supervisor.ending"}


class NotAppointed(InvalidInput):
    """This appointment cannot be made, accepted or ended; the message says why."""


def active(session: Session, ward_id: str, now: datetime) -> list[Appointment]:
    """Who must agree to this customer's payments now."""
    return list(session.scalars(_active(now).where(Appointment.ward_id == ward_id).order_by(Appointment.id)))


def wards(session: Session, approver_id: str, now: datetime) -> list[Appointment]:
    """Whose payments this customer must agree to now."""
    query = _active(now).where(Appointment.approver_id == approver_id)
    return list(session.scalars(query.order_by(Appointment.label, Appointment.id)))


def between(session: Session, approver_id: str, ward_id: str, now: datetime) -> list[Appointment]:
    """The appointments that let the one agree to payments of the other: none, one, or as guardian and supervisor."""
    return [a for a in active(session, ward_id, now) if a.approver_id == approver_id]


@dataclass(frozen=True)
class Person:
    """Somebody who must agree, perhaps as guardian and as supervisor."""

    id: str
    appointments: tuple[Appointment, ...]

    @property
    def label(self) -> str:
        return self.appointments[0].label

    @property
    def backup(self) -> bool:
        return all(a.backup for a in self.appointments)

    @property
    def ring(self) -> bool:
        return any(a.ring for a in self.appointments)


def persons(of: Sequence[Appointment]) -> list[Person]:
    """Each approver once, in the order of their ids."""
    ids = sorted({a.approver_id for a in of})
    return [Person(one, tuple(a for a in of if a.approver_id == one)) for one in ids]


def propose(
    session: Session,
    role: Role,
    *,
    ward_id: str,
    approver_id: str,
    label: str,
    backup: bool = False,
    ring: bool = False,
    currency: str | None = None,
    above_minor: int | None = None,
    tell: Tell = Tell.BOTH,
    ends_at: datetime | None = None,
    who: str,
    now: datetime,
) -> Appointment:
    """Name an approver, who has to accept. The same again gives the one that stands, and asks again.

    Raises InvalidInput.
    """
    label = clean_text(label, "what the approver calls the ward", least=1, most=40)
    if (above_minor is None) != (currency is None):
        raise NotAppointed("a limit has an amount and a currency")
    if currency is not None:
        check_currency(currency)
    if role is Role.GUARDIAN and above_minor is not None:
        raise NotAppointed("a guardian's limits are in the ward's policy; only a supervisor has one here")
    if ends_at is not None and ends_at <= now:
        raise NotAppointed("the appointment would have ended already")
    lock_customer(session, ward_id)
    if reason := conflict(session, ward_id, approver_id):
        raise NotAppointed(reason)
    if not settled_contacts(session, approver_id, now):
        raise NotAppointed(
            "the approver is told nothing by message: no telephone number or e-mail address is on file, "
            f"or each was changed in the last {SETTLED_AFTER.days} days"
        )
    standing = _standing(session, ward_id, now)
    for known in standing:
        if (known.role, known.approver_id) == (role, approver_id):
            if known.standing is Standing.PROPOSED:
                _ask(session, known, now)
            return known
    if len(standing) >= MOST_APPROVERS:
        raise NotAppointed(f"a customer has {MOST_APPROVERS} guardians and supervisors at most")
    if len(wards(session, approver_id, now)) >= MOST_WARDS:
        raise NotAppointed(f"an approver looks after {MOST_WARDS} customers at most")
    appointment = Appointment(
        id=new_id(),
        role=role,
        ward_id=ward_id,
        approver_id=approver_id,
        label=label,
        standing=Standing.PROPOSED,
        backup=backup,
        ring=ring,
        currency=currency,
        above_minor=above_minor,
        tell=tell,
        proposed_at=now,
        ends_at=ends_at,
    )
    session.add(appointment)
    session.flush()
    audit.record(session, who, f"{role}.proposed", ward_id, now, appointment=appointment.id)
    _ask(session, appointment, now)
    return appointment


def accept(session: Session, appointment_id: str, approver_id: str, *, channel: str, now: datetime) -> Appointment:
    """The approver, who has proved who she is, agrees to be one; her consent is kept. Raises NotAppointed."""
    appointment = session.get(Appointment, appointment_id, with_for_update=True)
    if appointment is None or appointment.approver_id != approver_id:
        raise NotAppointed("there is no such appointment of yours")
    if appointment.standing is Standing.ACTIVE:
        return appointment
    if appointment.standing is Standing.ENDED or now > appointment.proposed_at + PROPOSAL_LIFE:
        raise NotAppointed("this appointment was withdrawn, or it was proposed too long ago")
    if reason := conflict(session, appointment.ward_id, approver_id):
        raise NotAppointed(reason)
    if not has_pin(session, approver_id):
        raise NotAppointed("whoever agrees to payments needs a PIN of her own: set one in a call first")
    consent = record_consent(
        session,
        approver_id,
        kind=appointment.role.value,
        text_version=CONSENT_TEXT_VERSION,
        channel=channel,
        now=now,
    )
    appointment.standing, appointment.accepted_at, appointment.consent_id = Standing.ACTIVE, now, consent.id
    session.flush()
    audit.record(session, f"customer {approver_id}", f"{appointment.role}.accepted", appointment.ward_id, now)
    notify(session, appointment.ward_id, _ACCEPTED[appointment.role], {}, now)
    return appointment


def end(session: Session, appointment_id: str, *, by_approver: bool, who: str, now: datetime) -> Appointment:
    """End an appointment: at once if the approver resigns or has not accepted yet, else after ``REMOVAL_WAIT``.

    Both are told at once. Asking again changes nothing. Raises NotAppointed.
    """
    appointment = session.get(Appointment, appointment_id, with_for_update=True)
    if appointment is None:
        raise NotAppointed(f"there is no appointment {appointment_id!r}")
    ending = appointment.ends_at is not None and appointment.ends_at <= now + REMOVAL_WAIT
    if appointment.standing is Standing.ENDED or (ending and not by_approver):
        return appointment
    if by_approver or appointment.standing is Standing.PROPOSED:
        appointment.standing, appointment.ends_at = Standing.ENDED, now
    else:
        appointment.ends_at = now + REMOVAL_WAIT
    session.flush()
    audit.record(session, who, f"{appointment.role}.ending", appointment.ward_id, now, appointment=appointment.id)
    ends = {"ends": f"{appointment.ends_at:%Y-%m-%d %H:%M} UTC"}
    if appointment.consent_id is not None:
        session.get_one(Consent, appointment.consent_id).withdrawn_at = appointment.ends_at
        notify(session, appointment.ward_id, _ENDING[appointment.role], ends, now)
        notify(session, appointment.approver_id, "ward.ending", {**ends, "ward": appointment.label}, now)
    return appointment


def _standing(session: Session, ward_id: str, now: datetime) -> list[Appointment]:
    """Those that are proposed or active; what has lapsed is noted as ended first, and leaves room for another."""
    query = select(Appointment).where(Appointment.ward_id == ward_id, Appointment.standing != Standing.ENDED)
    found = []
    for appointment in session.scalars(query).all():
        stale = appointment.standing is Standing.PROPOSED and now > appointment.proposed_at + PROPOSAL_LIFE
        if stale or (appointment.ends_at is not None and appointment.ends_at <= now):
            appointment.standing = Standing.ENDED
        else:
            found.append(appointment)
    session.flush()
    return found


def _ask(session: Session, appointment: Appointment, now: datetime) -> None:
    for contact in settled_contacts(session, appointment.approver_id, now):
        links.send_link(session, contact, "appointment.ask", appointment_id=appointment.id, now=now)


def conflict(session: Session, ward_id: str, approver_id: str) -> str | None:
    """In words, why the one cannot agree to the other's payments: nobody agrees to her own."""
    if ward_id == approver_id:
        return "nobody agrees to her own payments"
    if reached_at(session, ward_id) & reached_at(session, approver_id):
        return "payer and approver share a telephone number or an e-mail address: nobody agrees to her own payments"
    return None


def reached_at(session: Session, customer_id: str) -> set[str]:
    """Every number that a customer calls from or is told at, and every e-mail address."""
    numbers = session.scalars(select(CallerId.e164).where(CallerId.customer_id == customer_id))
    addresses = session.scalars(select(Contact.address).where(Contact.customer_id == customer_id))
    return {address.casefold() for address in (*numbers, *addresses)}


def settled_contacts(session: Session, customer_id: str, now: datetime) -> list[Contact]:
    """Where an approver may be asked: nothing that was added to what was there first in the last days."""
    query = select(Contact).join(Customer, Customer.id == Contact.customer_id)
    query = query.where(Contact.customer_id == customer_id, _settled(Contact.added_at, now))
    return list(session.scalars(query.order_by(Contact.kind, Contact.id)))


def settled_numbers(session: Session, customer_id: str, now: datetime) -> list[str]:
    """The telephone numbers at which an approver may be rung up."""
    numbers = settled_caller_ids(session, customer_id, now)
    texted = [c.address for c in settled_contacts(session, customer_id, now) if c.kind is ContactKind.SMS]
    return list(dict.fromkeys([*numbers, *texted]))


def settled_caller_ids(session: Session, customer_id: str, now: datetime) -> list[str]:
    """The numbers that she calls from, but for those added in the last days."""
    query = select(CallerId.e164).join(Customer, Customer.id == CallerId.customer_id)
    query = query.where(CallerId.customer_id == customer_id, _settled(CallerId.added_at, now))
    return list(session.scalars(query.order_by(CallerId.e164)))


def _settled(added_at: InstrumentedAttribute[datetime | None], now: datetime) -> ColumnElement[bool]:
    return or_(added_at.is_(None), added_at == Customer.created_at, added_at <= now - SETTLED_AFTER)


def _active(now: datetime) -> Select[Appointment]:
    return select(Appointment).where(
        Appointment.standing == Standing.ACTIVE, or_(Appointment.ends_at.is_(None), Appointment.ends_at > now)
    )
