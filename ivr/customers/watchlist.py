"""The watch list: voices of known impostors, sealed as voiceprints are, each with the legal basis it is kept on.

Nobody consents to be on it, so it must be small, every entry needs a basis in law that an operator writes down, and
what is removed is deleted. It never accepts anybody: it can only refuse.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Audit, WatchlistEntry, new_id
from ivr.customers.text import clean_text
from ivr.keys import Keyring
from voiceprint import Voiceprint, open_sealed, seal

#: With every entry grows the chance that an honest caller sounds like one.
MOST_ENTRIES = 50
MATCHED = "watchlist.matched"


def add_entry(
    session: Session, voiceprint: Voiceprint, *, label: str, legal_basis: str, keyring: Keyring, now: datetime
) -> WatchlistEntry:
    """Seal and store a voice. Raises InvalidInput: no legal basis, a label that is taken, a full list."""
    label = clean_text(label, "the label", least=1, most=100)
    legal_basis = clean_text(legal_basis, "the legal basis", least=10, most=300)
    if session.scalar(select(WatchlistEntry.id).where(WatchlistEntry.label == label)):
        raise InvalidInput(f"the watch list has an entry {label!r} already")
    if (session.scalar(select(func.count()).select_from(WatchlistEntry)) or 0) >= MOST_ENTRIES:
        raise InvalidInput(f"the watch list is full ({MOST_ENTRIES} entries): remove one first")
    key_id, key = keyring.active("voiceprint")
    entry_id, model_id = new_id(), voiceprint.model_id
    entry = WatchlistEntry(
        id=entry_id,
        label=label,
        legal_basis=legal_basis,
        model_id=model_id,
        sealed=seal(key, key_id, voiceprint.to_bytes(), entry_context(entry_id, model_id)),
        created_at=now,
    )
    session.add(entry)
    session.flush()
    return entry


def entries(session: Session) -> list[tuple[WatchlistEntry, int]]:
    """Every entry, with the number of turns in which it was heard."""
    heard = (
        select(func.count())
        .select_from(Audit)
        .where(Audit.subject == WatchlistEntry.id, Audit.what == MATCHED)
        .scalar_subquery()
    )
    rows = session.execute(select(WatchlistEntry, heard).order_by(WatchlistEntry.created_at, WatchlistEntry.id))
    return [(entry, count) for entry, count in rows]


def remove_entry(session: Session, entry_id: str) -> None:
    """Delete an entry and its voice. Raises InvalidInput if there is none."""
    entry = session.get(WatchlistEntry, entry_id)
    if entry is None:
        raise InvalidInput(f"the watch list has no entry {entry_id!r}: ivr watchlist list")
    session.delete(entry)
    session.flush()


def watched_voices(session: Session, model_id: str, keyring: Keyring) -> dict[str, Voiceprint]:
    """The voices of this model by entry id; entries of another model cannot be compared and are left out.

    Raises voiceprint.errors.SealError if stored bytes were altered, moved, or their key is gone.
    """
    keys = keyring.all("voiceprint")
    rows = session.scalars(select(WatchlistEntry).where(WatchlistEntry.model_id == model_id))
    return {
        row.id: Voiceprint.from_bytes(open_sealed(keys, row.sealed, entry_context(row.id, model_id))) for row in rows
    }


def record_match(session: Session, entry_id: str, call_sid: str, step: int, now: datetime) -> None:
    """Note that a caller was turned away as this entry's voice; ``ivr watchlist list`` counts these."""
    audit.record(session, f"call {call_sid}", MATCHED, entry_id, now, step=step)


def entry_context(entry_id: str, model_id: str) -> bytes:
    """What the seal is bound to: a customer's row put here, or an entry put there, does not open."""
    return f"watchlist:{entry_id}:{model_id}".encode()
