"""Voiceprints at rest: sealed, tied to a consent, one a customer.

A new voiceprint is provisional, and so is a PIN that a call has set: until 72 hours have passed, a stolen enrolment
code buys small payments only. Nothing that its thief does shortens them.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.models import Consent, Customer, Pin, VoiceprintRow, new_id
from ivr.customers.utterances import forget_utterances
from ivr.keys import Keyring
from voiceprint.sealing import open_sealed, seal

CONSENT_KIND = "voiceprint"
GUARDIANS_CONSENT_KIND = "minor_voiceprint"  # given by a guardian, for her ward
#: The text that the customer agreed to; a new text is a new version.
CONSENT_TEXT_VERSION = "voiceprint-1"
PROVISIONAL_FOR = timedelta(hours=72)
#: What one payment by a provisional voiceprint or PIN may take at most, in minor units of the bill's currency.
PROVISIONAL_LIMIT_MINOR = 50_00


class GuardianConsentMissing(InvalidInput):
    """The customer is a minor, and no guardian agreed to a voiceprint."""


def record_consent(
    session: Session,
    customer_id: str,
    *,
    kind: str = CONSENT_KIND,
    text_version: str,
    channel: str,
    now: datetime,
) -> Consent:
    """That the customer agreed to a text, over a channel: "call CA...", or the operator's own words."""
    consent = Consent(
        id=new_id(),
        customer_id=customer_id,
        kind=kind,
        text_version=text_version,
        given_at=now,
        channel=channel,
    )
    session.add(consent)
    session.flush()
    return consent


def store_voiceprint(
    session: Session,
    customer_id: str,
    blob: bytes,
    model_id: str,
    sample_rate: int,
    channel: str,
    consent_id: str,
    keyring: Keyring,
    now: datetime,
    *,
    call_sid: str | None = None,
) -> VoiceprintRow:
    """Seal and store it in place of the customer's earlier one; ``call_sid`` is the enrolling call.

    Raises GuardianConsentMissing.
    """
    if not may_have_voiceprint(session, customer_id):
        raise GuardianConsentMissing("a minor's voiceprint needs the consent of her guardian, who gives it on her page")
    key_id, key = keyring.active("voiceprint")
    session.execute(delete(VoiceprintRow).where(VoiceprintRow.customer_id == customer_id))
    row = VoiceprintRow(
        id=new_id(),
        customer_id=customer_id,
        consent_id=consent_id,
        model_id=model_id,
        sample_rate=sample_rate,
        channel=channel,
        sealed=seal(key, key_id, blob, voiceprint_context(customer_id, model_id)),
        created_at=now,
        provisional_until=provisional_until(now),
        authenticated_calls=1,
        last_call_sid=call_sid,
    )
    session.add(row)
    session.flush()
    return row


def may_have_voiceprint(session: Session, customer_id: str) -> bool:
    """Whether a voiceprint may be kept: of a minor only while a guardian's consent stands."""
    minor = session.get_one(Customer, customer_id).minor
    return not minor or guardians_consent(session, customer_id) is not None


def guardians_consent(session: Session, customer_id: str) -> Consent | None:
    """The consent to this customer's voiceprint that stands, of whichever guardian."""
    standing = select(Consent).where(
        Consent.customer_id == customer_id, Consent.kind == GUARDIANS_CONSENT_KIND, Consent.withdrawn_at.is_(None)
    )
    return session.scalar(standing.order_by(Consent.given_at).limit(1))


def load_voiceprint(session: Session, customer_id: str, model_id: str, keyring: Keyring) -> bytes | None:
    """The customer's voiceprint, or None if she has none of this model: others' embeddings never compare.

    Raises voiceprint.errors.SealError if the stored bytes were altered, moved, or their key is gone.
    """
    row = voiceprint_of(session, customer_id)
    if row is None or row.model_id != model_id:
        return None
    return open_sealed(keyring.all("voiceprint"), row.sealed, voiceprint_context(customer_id, model_id))


def voiceprint_of(session: Session, customer_id: str) -> VoiceprintRow | None:
    """The row, sealed as it is."""
    return session.scalar(select(VoiceprintRow).where(VoiceprintRow.customer_id == customer_id))


def model_of_voiceprint(session: Session, customer_id: str) -> str | None:
    """The model that embedded the customer's voiceprint; None if she has none."""
    row = voiceprint_of(session, customer_id)
    return row.model_id if row else None


def provisional_until(now: datetime) -> datetime:
    """Until when a voiceprint or a PIN that is new now is provisional."""
    return now + PROVISIONAL_FOR


def is_provisional(session: Session, customer_id: str, now: datetime) -> bool:
    """Whether the voiceprint or the PIN is new."""
    row, pin = voiceprint_of(session, customer_id), session.get(Pin, customer_id)
    until = [row.provisional_until if row else None, pin.provisional_until if pin else None]
    return any(end is not None and now < end for end in until)


def count_authenticated_call(session: Session, customer_id: str, call_sid: str, now: datetime) -> None:
    """The caller proved to be the customer. A call counts once, and the enrolling one not again."""
    note_use(session, customer_id, now)
    session.execute(
        update(VoiceprintRow)
        .where(
            VoiceprintRow.customer_id == customer_id,
            VoiceprintRow.last_call_sid.is_distinct_from(call_sid),
        )
        .values(authenticated_calls=VoiceprintRow.authenticated_calls + 1, last_call_sid=call_sid)
    )


def note_use(session: Session, customer_id: str, now: datetime) -> None:
    """The voiceprint was of use: it is not among those that are purged for want of it."""
    session.execute(update(VoiceprintRow).where(VoiceprintRow.customer_id == customer_id).values(last_used_at=now))


def delete_voiceprint(session: Session, customer_id: str, now: datetime) -> bool:
    """Delete it, with the fingerprints of what she said, and note that the consent was withdrawn.

    False when there was no voiceprint.
    """
    forget_utterances(session, customer_id)
    statement = delete(VoiceprintRow).where(VoiceprintRow.customer_id == customer_id)
    gone = session.scalar(statement.returning(VoiceprintRow.id))
    session.execute(
        update(Consent)
        .where(
            Consent.customer_id == customer_id, Consent.kind == CONSENT_KIND, Consent.withdrawn_at.is_(None)
        )
        .values(withdrawn_at=now)
    )
    return gone is not None


def voiceprint_context(customer_id: str, model_id: str) -> bytes:
    """What the seal is bound to: a row copied to another customer does not open."""
    return f"{customer_id}:{model_id}".encode()
