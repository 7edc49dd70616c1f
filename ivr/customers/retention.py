"""How long anything is kept of a voice, how all of it is found for its person, and how it is sealed anew."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.customers import audit
from ivr.customers.models import Consent, Customer, UtterancePrint, VoiceprintRow, VoiceSecret, WatchlistEntry
from ivr.customers.utterances import ENROLLING_FOR, context, forget_utterances, of_customer, secret_context
from ivr.customers.voiceprints import (
    CONSENT_KIND,
    GUARDIANS_CONSENT_KIND,
    delete_voiceprint,
    voiceprint_context,
    voiceprint_of,
)
from ivr.customers.watchlist import entry_context
from ivr.jobs import Held
from ivr.keys import Keyring
from ivr.settings import Settings
from voiceprint import Voiceprint
from voiceprint.sealing import key_id_of, open_sealed, seal

PURGE_JOB = "voiceprint.purge"
PURGE_AT = time(3, 0, tzinfo=UTC)
PURGED_AT_ONCE = 200
"""Of each kind, in one transaction: other writers are not to wait long."""

CONSENT_KINDS = (CONSENT_KIND, GUARDIANS_CONSENT_KIND)
"""To a voiceprint: her own, and that of a guardian for her ward."""

_PURPOSE = "voiceprint"


@dataclass(frozen=True)
class Purge:
    """What is past its time."""

    voiceprints: tuple[VoiceprintRow, ...]
    utterances: tuple[UtterancePrint, ...]

    def __bool__(self) -> bool:
        return bool(self.voiceprints or self.utterances)

    def by_customer(self) -> dict[str, dict[str, int]]:
        """How many of each kind, by customer id."""
        voiceprints = Counter(row.customer_id for row in self.voiceprints)
        fingerprints = Counter(row.customer_id for row in self.utterances)
        return {
            who: {"voiceprints": voiceprints[who], "fingerprints": fingerprints[who]}
            for who in sorted({*voiceprints, *fingerprints})
        }


def due(session: Session, now: datetime, settings: Settings, *, most: int | None = None) -> Purge:
    """Voiceprints unused for too long, fingerprints too old, and all whose consent was withdrawn.

    With a voiceprint go its customer's fingerprints, and without one none are kept. ``most``: of each kind.
    """
    unused_since = now - timedelta(days=settings.voiceprint_unused_days)
    said_before = now - timedelta(days=settings.utterance_days)
    withdrawn = select(Consent.id).where(Consent.withdrawn_at.is_not(None))
    last_used_at = func.coalesce(VoiceprintRow.last_used_at, VoiceprintRow.created_at)
    unused = or_(VoiceprintRow.consent_id.in_(withdrawn), last_used_at < unused_since)
    voiceprints = tuple(session.scalars(select(VoiceprintRow).where(unused).limit(most).with_for_update()))
    kept = select(VoiceprintRow.customer_id).where(VoiceprintRow.id.not_in([row.id for row in voiceprints]))
    old = or_(
        UtterancePrint.at < said_before,
        UtterancePrint.consent_id.in_(withdrawn),
        UtterancePrint.customer_id.not_in(kept),
    )
    return Purge(voiceprints, tuple(session.scalars(select(UtterancePrint).where(old).limit(most))))


def purge(session: Session, found: Purge, *, who: str, now: datetime) -> None:
    """Delete what :func:`due` found, on record as ``who``'s doing, and secrets of which no use is left."""
    for row in (*found.voiceprints, *found.utterances):
        session.delete(row)
    session.flush()
    theirs = VoiceprintRow.customer_id == VoiceSecret.customer_id
    needless = or_(
        VoiceSecret.customer_id.in_([row.customer_id for row in found.voiceprints]),
        VoiceSecret.enrolling_at.is_(None),
        VoiceSecret.enrolling_at < now - ENROLLING_FOR,
    )
    session.execute(delete(VoiceSecret).where(~exists().where(theirs), needless))
    for customer_id, count in found.by_customer().items():
        audit.record(session, who, "voiceprint.purged", customer_id, now, **count)


def plan_purge(session: Session, at: datetime) -> None:
    """Queue the purge of that day, once; each of them queues the next day's."""
    jobs.put(session, PURGE_JOB, {}, f"{PURGE_JOB}:{at.astimezone(UTC):%Y%m%d}", at)


def purge_daily(held: Held, settings: Settings, now: datetime) -> None:
    """Delete what is past its time, again and again until nothing is."""
    with held.transaction() as session:  # first: whatever becomes of this day's
        plan_purge(session, datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), PURGE_AT))
    found = True
    while found:
        with held.transaction() as session:
            batch = due(session, now, settings, most=PURGED_AT_ONCE)
            purge(session, batch, who="worker", now=now)
            found = bool(batch)


def forget(session: Session, customer_id: str, now: datetime) -> tuple[int, int]:
    """Delete all that is kept of the customer's voice, and withdraw her consent; how many of each kind went."""
    fingerprints = forget_utterances(session, customer_id)
    return int(delete_voiceprint(session, customer_id, now)), fingerprints


def export(session: Session, customer: Customer, keyring: Keyring) -> dict[str, Any]:
    """What is stored of a customer's voice, opened, for herself: plain values that JSON can hold."""
    keys = keyring.all(_PURPOSE)
    consents = select(Consent).where(Consent.customer_id == customer.id, Consent.kind.in_(CONSENT_KINDS))
    row = voiceprint_of(session, customer.id)
    return {
        "customer": customer.number,
        "consents": [
            {
                "id": consent.id,
                "kind": consent.kind,
                "text_version": consent.text_version,
                "given_at": consent.given_at.isoformat(),
                "channel": consent.channel,
                "withdrawn_at": consent.withdrawn_at.isoformat() if consent.withdrawn_at else None,
            }
            for consent in session.scalars(consents.order_by(Consent.given_at))
        ],
        "voiceprint": _voiceprint(row, keys) if row else None,
        "fingerprints": [
            {
                "said_in": said.call_sid,
                "step": said.step,
                "at": said.at.isoformat(),
                "consent": said.consent_id,
                "scheme": said.scheme,
                "channel": said.channel,
                "base64": base64.b64encode(open_sealed(keys, said.sealed, context(said))).decode(),
            }
            for said in of_customer(session, customer.id)
        ],
    }


def reseal(session: Session, keyring: Keyring) -> int:
    """Seal with the active key every row that an older one sealed; how many there were."""
    rows: list[tuple[VoiceprintRow | UtterancePrint | VoiceSecret | WatchlistEntry, bytes]] = [
        (row, voiceprint_context(row.customer_id, row.model_id))
        for row in session.scalars(select(VoiceprintRow).with_for_update())
    ]
    rows += [(said, context(said)) for said in session.scalars(select(UtterancePrint).with_for_update())]
    rows += [(own, secret_context(own.customer_id)) for own in session.scalars(select(VoiceSecret).with_for_update())]
    rows += [(e, entry_context(e.id, e.model_id)) for e in session.scalars(select(WatchlistEntry).with_for_update())]
    key_id, key = keyring.active(_PURPOSE)
    older = [(row, bound) for row, bound in rows if key_id_of(row.sealed) != key_id]
    for row, bound in older:
        row.sealed = seal(key, key_id, open_sealed(keyring.all(_PURPOSE), row.sealed, bound), bound)
    session.flush()
    return len(older)


def _voiceprint(row: VoiceprintRow, keys: dict[str, bytes]) -> dict[str, Any]:
    blob = open_sealed(keys, row.sealed, voiceprint_context(row.customer_id, row.model_id))
    person = Voiceprint.from_bytes(blob)
    return {
        "model": row.model_id,
        "sample_rate": row.sample_rate,
        "channel": row.channel,
        "consent": row.consent_id,
        "created_at": row.created_at.isoformat(),
        "last_used_at": row.last_used_at.isoformat() if row.last_used_at else None,
        "authenticated_calls": row.authenticated_calls,
        "net_speech_s": person.net_speech_s,
        "embeddings": person.vectors.tolist(),
    }
