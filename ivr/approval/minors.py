"""A guardian's consent to a minor's voiceprint: none is made without it, and none kept once it is withdrawn."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers import audit, retention
from ivr.customers.models import Consent, Customer, new_id

CONSENT_KIND = "minor_voiceprint"
CONSENT_TEXT_VERSION = "minor-voice-1"


def voiceprint_consent(session: Session, ward_id: str) -> Consent | None:
    """The consent that stands, of whichever guardian."""
    query = select(Consent).where(
        Consent.customer_id == ward_id, Consent.kind == CONSENT_KIND, Consent.withdrawn_at.is_(None)
    )
    return session.scalar(query.order_by(Consent.given_at).limit(1))


def consent(session: Session, ward_id: str, *, channel: str, who: str, now: datetime) -> Consent:
    """Keep that a guardian, who has proved who she is, consents; the same again changes nothing."""
    session.get_one(Customer, ward_id, with_for_update=True)
    if standing := voiceprint_consent(session, ward_id):
        return standing
    given = Consent(
        id=new_id(),
        customer_id=ward_id,
        kind=CONSENT_KIND,
        text_version=CONSENT_TEXT_VERSION,
        given_at=now,
        channel=channel,
    )
    session.add(given)
    session.flush()
    audit.record(session, who, "minor_voiceprint.consented", ward_id, now, consent=given.id)
    return given


def withdraw(session: Session, ward_id: str, *, who: str, now: datetime) -> bool:
    """Withdraw it, and delete all that is kept of the ward's voice; False if there was none."""
    session.get_one(Customer, ward_id, with_for_update=True)
    standing = voiceprint_consent(session, ward_id)
    if standing is None:
        return False
    standing.withdrawn_at = now
    voiceprints, fingerprints = retention.forget(session, ward_id, now)
    session.flush()
    audit.record(
        session, who, "minor_voiceprint.withdrawn", ward_id, now, voiceprints=voiceprints, fingerprints=fingerprints
    )
    return True
