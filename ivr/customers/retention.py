"""How long anything is kept of a voice, how all of it is found for its person, and how it is sealed anew."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.orm import Session

from ivr.customers.models import Consent, Customer, UtterancePrint, VoiceprintRow, VoiceSecret, WatchlistEntry
from ivr.customers.utterances import context, forget_utterances, of_customer, secret_context
from ivr.customers.voiceprints import CONSENT_KIND, delete_voiceprint, voiceprint_context, voiceprint_of
from ivr.customers.watchlist import entry_context
from ivr.keys import Keyring
from voiceprint import Voiceprint
from voiceprint.sealing import key_id_of, open_sealed, seal

_PURPOSE = "voiceprint"


@dataclass(frozen=True)
class Purge:
    """What is past its time."""

    voiceprints: tuple[VoiceprintRow, ...]
    utterances: tuple[UtterancePrint, ...]

    def by_customer(self) -> dict[str, dict[str, int]]:
        """How many of each kind, by customer id."""
        voiceprints = Counter(row.customer_id for row in self.voiceprints)
        fingerprints = Counter(row.customer_id for row in self.utterances)
        return {
            who: {"voiceprints": voiceprints[who], "fingerprints": fingerprints[who]}
            for who in sorted({*voiceprints, *fingerprints})
        }


def due(session: Session, now: datetime, *, unused_for: timedelta, utterances_for: timedelta) -> Purge:
    """Voiceprints unused for that long, fingerprints that old, and all whose consent was withdrawn.

    With a voiceprint go its customer's fingerprints, and without one none are kept.
    """
    withdrawn = select(Consent.id).where(Consent.withdrawn_at.is_not(None))
    last_used_at = func.coalesce(VoiceprintRow.last_used_at, VoiceprintRow.created_at)
    unused = or_(VoiceprintRow.consent_id.in_(withdrawn), last_used_at < now - unused_for)
    voiceprints = tuple(session.scalars(select(VoiceprintRow).where(unused).with_for_update()))
    kept = select(VoiceprintRow.customer_id).where(VoiceprintRow.id.not_in([row.id for row in voiceprints]))
    old = or_(
        UtterancePrint.at < now - utterances_for,
        UtterancePrint.consent_id.in_(withdrawn),
        UtterancePrint.customer_id.not_in(kept),
    )
    return Purge(voiceprints, tuple(session.scalars(select(UtterancePrint).where(old))))


def purge(session: Session, found: Purge) -> None:
    """Delete what :func:`due` found, and the secrets of customers of whom no voiceprint is left."""
    for row in (*found.voiceprints, *found.utterances):
        session.delete(row)
    session.flush()
    theirs = VoiceprintRow.customer_id == VoiceSecret.customer_id
    session.execute(delete(VoiceSecret).where(~exists().where(theirs)))


def forget(session: Session, customer_id: str, now: datetime) -> tuple[int, int]:
    """Delete all that is kept of the customer's voice, and withdraw her consent; how many of each kind went."""
    fingerprints = forget_utterances(session, customer_id)
    return int(delete_voiceprint(session, customer_id, now)), fingerprints


def export(session: Session, customer: Customer, keyring: Keyring) -> dict[str, Any]:
    """All that is kept of a customer's voice, opened, for herself: plain values that JSON can hold."""
    keys = keyring.all(_PURPOSE)
    consents = session.scalars(
        select(Consent)
        .where(Consent.customer_id == customer.id, Consent.kind == CONSENT_KIND)
        .order_by(Consent.given_at)
    )
    row = voiceprint_of(session, customer.id)
    return {
        "customer": customer.number,
        "consents": [
            {
                "id": consent.id,
                "text_version": consent.text_version,
                "given_at": consent.given_at.isoformat(),
                "channel": consent.channel,
                "withdrawn_at": consent.withdrawn_at.isoformat() if consent.withdrawn_at else None,
            }
            for consent in consents
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
