"""A guardian's consent to a minor's voiceprint: none is made without it, and none kept once it is withdrawn."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from ivr.approval.appointments import NotAppointed, between
from ivr.approval.policy import Role
from ivr.customers import audit, retention
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Consent
from ivr.customers.voiceprints import GUARDIANS_CONSENT_KIND, guardians_consent, record_consent

TEXT_VERSION = "minor-voiceprint-1"


def consent(session: Session, ward_id: str, guardian_id: str, *, channel: str, now: datetime) -> Consent:
    """The guardian, who has proved who she is, agrees; the same again changes nothing. Raises NotAppointed."""
    _require_guardian(session, ward_id, guardian_id, now)
    lock_customer(session, ward_id)
    if standing := guardians_consent(session, ward_id):
        return standing
    given = record_consent(
        session, ward_id, kind=GUARDIANS_CONSENT_KIND, text_version=TEXT_VERSION, channel=channel, now=now
    )
    audit.record(session, f"customer {guardian_id}", "minor_voiceprint.consented", ward_id, now, consent=given.id)
    return given


def withdraw(session: Session, ward_id: str, guardian_id: str, *, now: datetime) -> bool:
    """Withdraw it, and delete all that is kept of the ward's voice; False if there was none. Raises NotAppointed."""
    _require_guardian(session, ward_id, guardian_id, now)
    lock_customer(session, ward_id)
    standing = guardians_consent(session, ward_id)
    if standing is None:
        return False
    standing.withdrawn_at = now
    voiceprints, fingerprints = retention.forget(session, ward_id, now)
    session.flush()
    counts = {"voiceprints": voiceprints, "fingerprints": fingerprints}
    audit.record(session, f"customer {guardian_id}", "minor_voiceprint.withdrawn", ward_id, now, **counts)
    return True


def _require_guardian(session: Session, ward_id: str, guardian_id: str, now: datetime) -> None:
    if not any(a.role is Role.GUARDIAN for a in between(session, guardian_id, ward_id, now)):
        raise NotAppointed("only a guardian agrees to a ward's voiceprint")
