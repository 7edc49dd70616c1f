"""A guardian's consent to a minor's voiceprint, and its end, with which the voiceprint goes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from ivr.approval.appointments import NotAppointed, between
from ivr.approval.policy import Role
from ivr.customers import audit
from ivr.customers.models import Consent, Customer
from ivr.customers.voiceprints import GUARDIANS_CONSENT_KIND, delete_voiceprint, record_consent

TEXT_VERSION = "minor-voiceprint-1"


def consent(session: Session, ward_id: str, guardian_id: str, *, channel: str, now: datetime) -> Consent:
    """The guardian agrees; the same again gives the consent that stands. Raises NotAppointed."""
    _require_guardian(session, ward_id, guardian_id, now)
    session.get_one(Customer, ward_id, with_for_update=True)
    standing = session.scalar(_standing(ward_id))
    if standing is not None:
        return standing
    given = record_consent(
        session, ward_id, kind=GUARDIANS_CONSENT_KIND, text_version=TEXT_VERSION, channel=channel, now=now
    )
    audit.record(session, f"customer {guardian_id}", "minor_voiceprint.allowed", ward_id, now)
    return given


def withdraw(session: Session, ward_id: str, guardian_id: str, *, now: datetime) -> None:
    """The guardian agrees no longer: the minor's voiceprint is deleted at once. Raises NotAppointed."""
    _require_guardian(session, ward_id, guardian_id, now)
    session.execute(
        update(Consent)
        .where(
            Consent.customer_id == ward_id, Consent.kind == GUARDIANS_CONSENT_KIND, Consent.withdrawn_at.is_(None)
        )
        .values(withdrawn_at=now)
    )
    if session.get_one(Customer, ward_id).minor:
        delete_voiceprint(session, ward_id, now)
    audit.record(session, f"customer {guardian_id}", "minor_voiceprint.ended", ward_id, now)


def _require_guardian(session: Session, ward_id: str, guardian_id: str, now: datetime) -> None:
    if not any(a.role is Role.GUARDIAN for a in between(session, guardian_id, ward_id, now)):
        raise NotAppointed("only a guardian agrees to a ward's voiceprint")


def _standing(ward_id: str) -> Select[Consent]:
    return select(Consent).where(
        Consent.customer_id == ward_id, Consent.kind == GUARDIANS_CONSENT_KIND, Consent.withdrawn_at.is_(None)
    )
