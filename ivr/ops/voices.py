"""Voiceprints from the operator's recordings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import click
from sqlalchemy.orm import Session

from ivr.customers import audit, utterances, watchlist
from ivr.customers.errors import InvalidInput
from ivr.customers.notices import notify
from ivr.customers.voiceprints import load_voiceprint, model_of_voiceprint, record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.settings import settings
from ivr.speech.audio import SAMPLE_RATE, AudioError, read_audio
from voiceprint import Encoder, ModelError, PoorQuality, Scorer, Utterance, Voiceprint, enrol, extend
from voiceprint.manifest import verify
from voiceprint.replay import Sound


@cache
def _models(folder: Path) -> tuple[Encoder, Scorer]:
    try:
        return Encoder.load(folder), Scorer.load(folder)
    except ModelError as error:
        raise click.ClickException(str(error)) from None


def models() -> tuple[Encoder, Scorer]:
    """The voice model in force, loaded once. A ClickException says what is wrong with its folder."""
    return _models(settings().voice_model_dir)


def model_in_force() -> str:
    """The id of that model, without loading it."""
    try:
        return verify(settings().voice_model_dir).model_id
    except ModelError as error:
        raise click.ClickException(str(error)) from None


@dataclass(frozen=True)
class Recording:
    """What one file holds: the voice, and what will tell if it is ever played to us."""

    utterance: Utterance
    sound: Sound


def heard(files: Iterable[str | Path]) -> list[Recording]:
    """Recordings, embedded. Raises InvalidInput if one cannot be read."""
    try:
        recordings = [read_audio(file) for file in files]
    except AudioError as error:
        raise InvalidInput(str(error)) from None
    encoder, _ = models()
    return [Recording(encoder.embed(pcm, SAMPLE_RATE), Sound(pcm)) for pcm in recordings]


def enrolled(recordings: Sequence[Recording]) -> Voiceprint:
    """A voiceprint of three recordings or more. Raises InvalidInput with advice."""
    try:
        scorer = models()[1]
        return enrol([r.utterance for r in recordings], scorer.enrolment_limits, scorer.llr)
    except PoorQuality as error:
        raise InvalidInput(str(error)) from None


def extended(session: Session, customer_id: str, recordings: Sequence[Recording], keyring: Keyring) -> Voiceprint:
    """The customer's voiceprint with more recordings. Raises InvalidInput: none of this model, another voice."""
    encoder, scorer = models()
    blob = load_voiceprint(session, customer_id, encoder.model_id, keyring)
    if blob is None:
        other = "one of another model" if model_of_voiceprint(session, customer_id) else "none"
        raise InvalidInput(f"there is no voiceprint of {encoder.model_id} to add to, but {other}: enrol without --add")
    limits = scorer.enrolment_limits
    try:
        more = enrol([r.utterance for r in recordings], limits.of_an_addition(), scorer.llr)
        return extend(Voiceprint.from_bytes(blob), more, limits, scorer.llr)
    except PoorQuality as error:
        raise InvalidInput(str(error)) from None


def store(
    session: Session,
    customer_id: str,
    voiceprint: Voiceprint,
    consent: str,
    text_version: str,
    keyring: Keyring,
    recordings: Sequence[Recording],
    now: datetime,
) -> None:
    """In the caller's transaction: consent, sealed voiceprint and fingerprints, a notice, the audit trail.

    Raises InvalidInput for a voice on the watch list: enrolled, it would fit itself better than its entry.
    """
    encoder, scorer = models()
    watched = watchlist.watched_voices(session, encoder.model_id, keyring)
    if found := scorer.best_match(watched, [r.utterance for r in recordings]):
        raise InvalidInput(f"this voice is on the watch list, entry {found[0]}: see `ivr watchlist list`")
    given = record_consent(
        session, customer_id, text_version=text_version, channel=consent_channel(consent), now=now
    )
    store_voiceprint(
        session,
        customer_id,
        voiceprint.to_bytes(),
        model_id=voiceprint.model_id,
        sample_rate=encoder.sample_rate,
        channel="recordings",
        consent_id=given.id,
        keyring=keyring,
        now=now,
    )
    secret = utterances.secret_of(session, customer_id, keyring, now)
    for number, recording in enumerate(recordings, 1):
        utterances.remember(
            session,
            customer_id,
            recording.sound.fingerprint(secret),
            call_sid=f"recordings:{given.id}",
            step=str(number),
            channel="recordings",
            consent_id=given.id,
            keyring=keyring,
            now=now,
        )
    notify(session, customer_id, "enrolled", {}, now)
    audit.record(session, desk.who(), "voiceprint.enrolled", customer_id, now, recordings=len(recordings))


def consent_channel(consent: str) -> str:
    """How an operator's word on a consent is kept."""
    return f"operator: {consent}"
