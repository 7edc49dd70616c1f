"""Fingerprints of what customers said, sealed: with them a recording of an earlier call is known again.

Each customer's are made with a secret of hers, which is random, sealed beside them and deleted with them. Kept are
the last ``MOST_KEPT``, each under the consent to the voiceprint in force when it was said.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from ivr.customers.models import UtterancePrint, VoiceprintRow, VoiceSecret
from ivr.keys import Keyring
from ivr.store.insert import insert_new
from voiceprint.replay import SCHEME, new_secret
from voiceprint.sealing import open_sealed, seal

MOST_KEPT = 50
#: So long an enrolment that has begun keeps its secret, voiceprint or not: what it heard is compared by it alone.
ENROLLING_FOR = timedelta(hours=1)


def secret_of(session: Session, customer_id: str, keyring: Keyring, now: datetime) -> bytes:
    """What this customer's fingerprints are made with; drawn at the first use."""
    row = session.get(VoiceSecret, customer_id)
    if row is None:
        key_id, key = keyring.active("voiceprint")
        sealed = seal(key, key_id, new_secret(), secret_context(customer_id))
        insert_new(session, VoiceSecret, {"customer_id": customer_id, "sealed": sealed, "enrolling_at": now})
        row = session.get_one(VoiceSecret, customer_id)  # or another call's, which was first
    elif _is_left_over(session, row, now):
        row.enrolling_at = now  # another enrolment begins
    return open_sealed(keyring.all("voiceprint"), row.sealed, secret_context(customer_id))


def remember(
    session: Session,
    customer_id: str,
    fingerprint: bytes,
    *,
    call_sid: str,
    step: str,
    channel: str = "telephone",
    consent_id: str,
    keyring: Keyring,
    now: datetime,
) -> None:
    """Keep the fingerprint of what was said at a step, once; the oldest beyond ``MOST_KEPT`` go."""
    key_id, key = keyring.active("voiceprint")
    values = {
        "call_sid": call_sid,
        "step": step,
        "customer_id": customer_id,
        "consent_id": consent_id,
        "scheme": SCHEME,
        "channel": channel,
        "sealed": seal(key, key_id, fingerprint, _context(customer_id, SCHEME, call_sid, step)),
        "at": now,
    }
    if not insert_new(session, UtterancePrint, values):
        return
    for row in _newest_first(session, customer_id)[MOST_KEPT:]:
        session.delete(row)
    session.flush()


def earlier(session: Session, customer_id: str, keyring: Keyring, *, call_sid: str, step: str) -> list[bytes]:
    """The fingerprints of all that the customer is known to have said, but for this very step of this call.

    A step that is judged again, after a crash or a repeated request, is no replay of itself.
    """
    keys = keyring.all("voiceprint")
    return [
        open_sealed(keys, row.sealed, context(row))
        for row in _newest_first(session, customer_id)[:MOST_KEPT]
        if row.scheme == SCHEME and (row.call_sid, row.step) != (call_sid, step)
    ]


def of_customer(session: Session, customer_id: str) -> list[UtterancePrint]:
    """The rows, oldest first."""
    return _newest_first(session, customer_id)[::-1]


def forget_utterances(session: Session, customer_id: str) -> int:
    """Delete the customer's fingerprints and the secret they were made with; how many there were."""
    mine = UtterancePrint.customer_id == customer_id
    count = session.scalar(select(func.count()).select_from(UtterancePrint).where(mine)) or 0
    session.execute(delete(UtterancePrint).where(mine))
    session.execute(delete(VoiceSecret).where(VoiceSecret.customer_id == customer_id))
    return count


def context(row: UtterancePrint) -> bytes:
    """What a row's seal is bound to: copied to another customer, call or step it does not open."""
    return _context(row.customer_id, row.scheme, row.call_sid, row.step)


def secret_context(customer_id: str) -> bytes:
    """What the seal of a customer's secret is bound to."""
    return f"{customer_id}:secret".encode()


def _is_left_over(session: Session, row: VoiceSecret, now: datetime) -> bool:
    """Whether an enrolment that came to nothing drew it, and it is purged before long."""
    if row.enrolling_at is not None and row.enrolling_at > now - ENROLLING_FOR / 2:
        return False
    return not session.scalar(select(exists().where(VoiceprintRow.customer_id == row.customer_id)))


def _newest_first(session: Session, customer_id: str) -> list[UtterancePrint]:
    query = select(UtterancePrint).where(UtterancePrint.customer_id == customer_id)
    return list(session.scalars(query.order_by(UtterancePrint.at.desc(), UtterancePrint.step.desc())))


def _context(customer_id: str, scheme: str, call_sid: str, step: str) -> bytes:
    return f"{customer_id}:{scheme}:{call_sid}:{step}".encode()
