"""Many enrolments from one manifest: a row a recording, the rows of a customer together or not at all.

Running it again does nothing: who has a voiceprint of the model in force keeps it, and who has withdrawn the very
consent that the manifest names is not enrolled by it again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import soundfile
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.models import Consent
from ivr.customers.register import require_customer
from ivr.customers.text import clean_text
from ivr.customers.voiceprints import CONSENT_KIND, load_voiceprint
from ivr.keys import Keyring
from ivr.ops import voices
from ivr.speech.audio import SAMPLE_RATE

COLUMNS = ("customer", "file", "consent")
ENROLLED, UNCHANGED, REFUSED = WHATS = ("enrolled", "unchanged", "refused")


@dataclass
class Row:
    """One customer of the manifest."""

    customer: str
    consent: str
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    what: str
    detail: str


def read(manifest: Path) -> list[Row]:
    """The customers of a manifest; files are relative to its folder. Raises InvalidInput, before anything is done."""
    rows: dict[str, Row] = {}
    for line, (customer, file, consent) in _lines(manifest):
        consent = clean_text(consent, f"{manifest}:{line}: the consent", least=3, most=150)
        row = rows.setdefault(customer, Row(customer, consent))
        if row.consent != consent:
            raise InvalidInput(f"{manifest}:{line}: customer {customer} has two different consents")
        path = manifest.parent / file
        if path in row.files:
            raise InvalidInput(f"{manifest}:{line}: {file} is named twice")
        row.files.append(path)
    return [*rows.values()]


def enrol_row(
    session: Session, row: Row, text_version: str, keyring: Keyring, now: datetime, *, dry_run: bool, replace: bool
) -> Result:
    """Enrol one customer in the caller's transaction; a refusal says why and changes nothing."""
    try:
        customer_id = require_customer(session, row.customer).id
        encoder, _ = voices.models()
        if not replace and load_voiceprint(session, customer_id, encoder.model_id, keyring):
            return Result(UNCHANGED, "has a voiceprint of this model")
        _check_not_withdrawn(session, customer_id, row.consent)
        for file in row.files:
            _check_rate(file)
        recordings = voices.heard(row.files)
        voiceprint = voices.enrolled(recordings)
        if not dry_run:
            voices.store(session, customer_id, voiceprint, row.consent, text_version, keyring, recordings, now)
    except InvalidInput as refusal:
        return Result(REFUSED, str(refusal))
    return Result(ENROLLED, f"{len(row.files)} recordings, {voiceprint.net_speech_s:.1f} s of speech")


def _check_not_withdrawn(session: Session, customer_id: str, consent: str) -> None:
    withdrawn = select(Consent.id).where(
        Consent.customer_id == customer_id,
        Consent.kind == CONSENT_KIND,
        Consent.channel == voices.consent_channel(consent),
        Consent.withdrawn_at.is_not(None),
    )
    if session.scalar(withdrawn.limit(1)):
        raise InvalidInput("this consent was withdrawn: a new one is needed")


def _check_rate(file: Path) -> None:
    """Recordings of another rate are not of the telephone, and a voice sounds different there."""
    try:
        rate = soundfile.info(str(file)).samplerate
    except (OSError, RuntimeError):
        raise InvalidInput(f"{file}: not a readable WAV or FLAC recording") from None
    if rate != SAMPLE_RATE:
        raise InvalidInput(f"{file}: {rate} Hz; recordings of telephone calls have {SAMPLE_RATE}")


def _lines(manifest: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise InvalidInput(f"{manifest}:1: the first line names the columns; {', '.join(missing)} is missing")
            for fields in reader:
                values = [(fields[name] or "").strip() for name in COLUMNS]
                if not all(values):
                    raise InvalidInput(f"{manifest}:{reader.line_num}: customer, file and consent are all needed")
                yield reader.line_num, (values[0], values[1], values[2])
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidInput(f"{manifest}: {reason}") from None
