"""What is kept of voices: bounded, sealed, found for its person, sealed anew, purged and forgotten."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from ivr.call import verdicts
from ivr.call.models import Turn
from ivr.clock import utc_now
from ivr.customers import retention, utterances, watchlist
from ivr.customers.models import (
    Audit,
    Consent,
    Customer,
    Failure,
    UtterancePrint,
    VoiceprintRow,
    VoiceSecret,
    WatchlistEntry,
)
from ivr.customers.register import add_customer
from ivr.customers.voiceprints import GUARDIANS_CONSENT_KIND, load_voiceprint, record_consent, store_voiceprint
from ivr.jobs import Job
from ivr.keys import Keyring, rotate
from ivr.ops.cli import main
from ivr.payments import worker
from ivr.settings import Settings
from ivr.settings import settings as process_settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from voiceprint import SealError, Voiceprint
from voiceprint.sealing import key_id_of

PRINT = b"VPR1" + bytes(range(64))
LIMITS = Settings(voiceprint_unused_days=730, utterance_days=365, _env_file=None)


def voiceprint(value: float = 0.5) -> Voiceprint:
    return Voiceprint(np.full((3, 4), value, np.float32), "m1", 6.0)


def add_person(database: Database, keyring: Keyring, now: datetime, phone: str = "+15035550123") -> Customer:
    """A customer with a voiceprint and one remembered utterance."""
    with database.transaction() as session:
        customer = add_customer(session, phones=[phone], now=now)
        consent = record_consent(session, customer.id, text_version="1", channel="test", now=now)
        blob = voiceprint().to_bytes()
        store_voiceprint(session, customer.id, blob, "m1", 8000, "telephone", consent.id, keyring, now)
    say(database, keyring, customer.id, "CA1", "1", now)
    return customer


def say(database: Database, keyring: Keyring, customer_id: str, call_sid: str, step: str, now: datetime) -> None:
    with database.transaction() as session:
        consent_id = session.scalars(select(VoiceprintRow.consent_id).filter_by(customer_id=customer_id)).one()
        utterances.secret_of(session, customer_id, keyring, now)
        utterances.remember(
            session, customer_id, PRINT, call_sid=call_sid, step=step, consent_id=consent_id, keyring=keyring, now=now
        )


def kept(database: Database, keyring: Keyring, customer_id: str, call_sid: str = "CAx", step: str = "1") -> int:
    with database.transaction() as session:
        found = utterances.earlier(session, customer_id, keyring, call_sid=call_sid, step=step)
        assert set(found) <= {PRINT}
        return len(found)


def counts(database: Database) -> list[int]:
    with database.transaction() as session:
        return [len(session.scalars(select(table)).all()) for table in (VoiceprintRow, UtterancePrint, VoiceSecret)]


def test_the_last_fifty_utterances_are_kept(database: Database, keyring: Keyring, now: datetime) -> None:
    who = add_person(database, keyring, now).id
    for i in range(utterances.MOST_KEPT + 3):
        say(database, keyring, who, f"CB{i}", "1", now + timedelta(minutes=i + 1))
    assert kept(database, keyring, who) == utterances.MOST_KEPT
    with database.transaction() as session:
        rows = utterances.of_customer(session, who)
        assert (rows[0].call_sid, rows[-1].call_sid) == ("CB3", "CB52")


def test_the_same_step_is_remembered_once_and_not_compared_with_itself(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    who = add_person(database, keyring, now).id
    say(database, keyring, who, "CA1", "1", now)
    assert kept(database, keyring, who) == 1
    assert kept(database, keyring, who, "CA1", "1") == 0
    assert kept(database, keyring, who, "CA1", "2") == 1


def test_a_secret_is_drawn_once_and_is_nobody_elses(database: Database, keyring: Keyring, now: datetime) -> None:
    people = [add_person(database, keyring, now, f"+1503555012{i}").id for i in range(2)]
    with database.transaction() as session:
        first = [utterances.secret_of(session, who, keyring, now) for who in people]
        assert [utterances.secret_of(session, who, keyring, now) for who in people] == first
        assert first[0] != first[1]
        assert not any(secret in row.sealed for row in session.scalars(select(VoiceSecret)) for secret in first)


def test_a_fingerprint_moved_to_another_customer_or_step_does_not_open(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    one, other = (add_person(database, keyring, now, f"+1503555012{i}").id for i in range(2))
    with database.transaction() as session:
        hers = session.get_one(UtterancePrint, ("CA1", "1", one)).sealed
        session.get_one(UtterancePrint, ("CA1", "1", other)).sealed = hers
    with pytest.raises(SealError):
        kept(database, keyring, other)


def test_fingerprints_of_another_scheme_are_not_compared(database: Database, keyring: Keyring, now: datetime) -> None:
    who = add_person(database, keyring, now).id
    with database.transaction() as session:
        session.scalars(select(UtterancePrint)).one().scheme = "older-1"
    assert kept(database, keyring, who) == 0


def purge(database: Database, now: datetime) -> list[int]:
    with database.transaction() as session:
        retention.purge(session, retention.due(session, now, LIMITS), who="test", now=now)
    return counts(database)


def test_what_is_in_use_is_not_purged(database: Database, keyring: Keyring, now: datetime) -> None:
    add_person(database, keyring, now)
    assert purge(database, now + timedelta(days=300)) == [1, 1, 1]


def test_old_fingerprints_are_purged_before_an_unused_voiceprint(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    who = add_person(database, keyring, now).id
    with database.transaction() as session:
        session.scalars(select(VoiceprintRow)).one().last_used_at = now + timedelta(days=100)
    say(database, keyring, who, "CA2", "1", now + timedelta(days=100))
    assert purge(database, now + timedelta(days=400)) == [1, 1, 1]
    assert purge(database, now + timedelta(days=800)) == [1, 0, 1]
    assert purge(database, now + timedelta(days=900)) == [0, 0, 0]


def test_with_the_consent_goes_all_that_was_kept_under_it(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    add_person(database, keyring, now, "+15035550124")
    who = add_person(database, keyring, now).id
    with database.transaction() as session:
        session.scalars(select(Consent).filter_by(customer_id=who)).one().withdrawn_at = now
    assert purge(database, now) == [1, 1, 1]
    assert kept(database, keyring, who) == 0


def secrets(database: Database, now: datetime) -> int:
    """How many secrets a purge leaves."""
    return purge(database, now)[2]


def test_a_purge_spares_the_secret_of_an_enrolment_that_goes_on(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        who = add_customer(session, phones=["+15035550123"], now=now).id
        drawn = utterances.secret_of(session, who, keyring, now)
    assert secrets(database, now) == 1
    later = now + timedelta(hours=2)
    with database.transaction() as session:  # given up; two hours later she enrols after all
        assert utterances.secret_of(session, who, keyring, later) == drawn
    assert secrets(database, later) == 1
    assert secrets(database, later + timedelta(hours=2)) == 0


def test_a_worker_purges_every_day_once_and_notes_it(
    database: Database, keyring: Keyring, settings: Settings, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PURGED_AT_ONCE", 1)
    people = [add_person(database, keyring, now, f"+1503555012{i}").id for i in range(3)]
    with database.transaction() as session:
        for row in session.scalars(select(VoiceprintRow).where(VoiceprintRow.customer_id != people[0])):
            row.created_at = utc_now() - timedelta(days=1_000)
    for _ in range(2):  # the second finds nothing to do
        with database.transaction() as session:
            for _ in range(2):
                retention.plan_purge(session, utc_now())
        worker.run(settings, threading.Event(), once=True)
        assert counts(database) == [1, 1, 1]
        with database.transaction() as session:
            noted = session.scalars(select(Audit)).all()
            assert {row.subject for row in noted} == set(people[1:])
            assert {(row.who, row.what) for row in noted} == {("worker", "voiceprint.purged")}
            assert sum(row.details["voiceprints"] for row in noted) == 2
            assert sum(row.details["fingerprints"] for row in noted) == 2
            today, tomorrow = session.scalars(select(Job).order_by(Job.run_at)).all()
            assert today.done_at
            assert (tomorrow.kind, tomorrow.done_at) == (retention.PURGE_JOB, None)
            assert timedelta() < tomorrow.run_at - utc_now() < timedelta(hours=27)


def test_forgetting_one_customer_leaves_the_others(database: Database, keyring: Keyring, now: datetime) -> None:
    one, other = (add_person(database, keyring, now, f"+1503555012{i}").id for i in range(2))
    with database.transaction() as session:
        assert retention.forget(session, one, now) == (1, 1)
        assert retention.forget(session, one, now) == (0, 0)
    assert counts(database) == [1, 1, 1]
    assert kept(database, keyring, other) == 1
    with database.transaction() as session:
        withdrawn = {c.customer_id: c.withdrawn_at for c in session.scalars(select(Consent))}
        assert withdrawn == {one: now, other: None}


def test_after_a_rotation_everything_is_sealed_anew_and_still_opens(
    database: Database, keyring: Keyring, settings: Settings, now: datetime
) -> None:
    who = add_person(database, keyring, now).id
    with database.transaction() as session:
        watched = watchlist.add_entry(
            session, voiceprint(0.25), label="a fraudster", legal_basis="case 17/2026", keyring=keyring, now=now
        ).id
    new_id = rotate(settings, "voiceprint")
    rotated = Keyring.load(settings)
    with database.transaction() as session:
        assert retention.reseal(session, rotated) == 4
        assert retention.reseal(session, rotated) == 0
        for table in (VoiceprintRow, UtterancePrint, VoiceSecret, WatchlistEntry):
            assert key_id_of(session.scalars(select(table)).one().sealed) == new_id
        assert load_voiceprint(session, who, "m1", rotated) == voiceprint().to_bytes()
        entries = watchlist.watched_voices(session, "m1", rotated)
        assert {entry: voice.to_bytes() for entry, voice in entries.items()} == {watched: voiceprint(0.25).to_bytes()}
    assert kept(database, rotated, who) == 1


def test_an_export_has_all_consents_and_the_verdicts_on_her_own_voice(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    who = add_person(database, keyring, now)
    other = add_person(database, keyring, now, "+15035550124").id
    say(database, keyring, other, "CB1", "1", now)
    voice, replay = [["match", 3.5]], [["fresh", 0.25]]
    compared = {"end": "complete", "voice": voice, "replay": replay, "confidence": 0.9, "begun_ms": 300}
    turns = {
        ("CA1", 1): compared,  # of what she said
        ("CA1", 2): {"pin": True},
        ("CC1", 3): {"replay": [["replayed", 1.5]]},  # failed as her
        ("CC1", 4): {"voice": [["no_match", -9.0]]},  # as another
        ("CB1", 1): compared,
        ("CD1", 5): {"replay": replay, "ended_ms": 4000},  # she consented in it
    }
    with database.transaction() as session:
        for kind, channel in ((GUARDIANS_CONSENT_KIND, "page"), ("voiceprint", "call:CD1"), ("something_else", "x")):
            record_consent(session, who.id, kind=kind, text_version="1", channel=channel, now=now)
        for (sid, step), decided in turns.items():
            at = now + timedelta(seconds=step)
            session.add(Turn(call_sid=sid, step=step, at=at, state="card", event="again", decisions=decided))
        for step, failed in (("3", who.id), ("4", other)):
            session.add(Failure(call_sid="CC1", step=step, customer_id=failed, at=now))
    with database.transaction() as session:
        stored = retention.export(session, who, keyring)
        held = json.loads(json.dumps(stored | {"verdicts": verdicts.of_customer(session, who.id)}))
    assert sorted(consent["kind"] for consent in held["consents"]) == ["minor_voiceprint", "voiceprint", "voiceprint"]
    at = [(now + timedelta(seconds=step)).isoformat() for step in (1, 3, 5)]
    assert held["verdicts"] == [
        {"said_in": "CA1", "step": 1, "at": at[0], "voice": voice, "replay": replay, "begun_ms": 300},
        {"said_in": "CC1", "step": 3, "at": at[1], "replay": [["replayed", 1.5]]},
        {"said_in": "CD1", "step": 5, "at": at[2], "replay": replay, "ended_ms": 4000},
    ]


# ---- the operator's commands ----------------------------------------------------------------------------


class Desk:
    """An operator of a fresh installation with one customer."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'ivr.sqlite3'}")
        upgrade(self.database)
        self.keyring = Keyring.load(process_settings())
        self.customer = add_person(self.database, self.keyring, now)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["voiceprint", *arguments], catch_exceptions=False)

    def ok(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return str(result.output)

    def audit(self) -> list[str]:
        with self.database.transaction() as session:
            return [row.what for row in session.scalars(select(Audit).order_by(Audit.at))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: datetime) -> Iterator[Desk]:
    for name in ("DATA_DIR", "DIGIT_MODEL_DIR", "VOICE_MODEL_DIR"):
        monkeypatch.setenv(f"IVR_{name}", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    process_settings.cache_clear()
    yield Desk(tmp_path, now)
    process_settings.cache_clear()


def test_the_purge_is_announced_done_and_audited(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVR_VOICEPRINT_UNUSED_DAYS", "1")
    process_settings.cache_clear()
    with desk.database.transaction() as session:
        session.scalars(select(VoiceprintRow)).one().created_at = datetime(2020, 1, 1, tzinfo=UTC)
    assert "1 voiceprints and 1 fingerprints would be deleted" in desk.ok("purge", "--dry-run")
    assert counts(desk.database) == [1, 1, 1]
    assert "1 voiceprints and 1 fingerprints were deleted" in desk.ok("purge")
    assert counts(desk.database) == [0, 0, 0]
    assert "0 voiceprints and 0 fingerprints were deleted" in desk.ok("purge")
    assert desk.audit() == ["voiceprint.purged"]


def test_a_worker_that_starts_purges_without_being_told(desk: Desk) -> None:
    with desk.database.transaction() as session:
        session.scalars(select(VoiceprintRow)).one().created_at = datetime(2020, 1, 1, tzinfo=UTC)
    assert CliRunner().invoke(main, ["worker", "--once"], catch_exceptions=False).exit_code == 0
    assert counts(desk.database) == [0, 0, 0]


def test_a_customer_is_forgotten_and_it_is_audited(desk: Desk) -> None:
    assert "1 voiceprints and 1 fingerprints deleted" in desk.ok("forget", desk.customer.number)
    assert counts(desk.database) == [0, 0, 0]
    assert desk.audit() == ["voiceprint.forgotten"]
    assert desk.run("forget", "7654321").exit_code == 2


def test_a_customer_gets_all_that_is_kept_of_her_voice_in_a_file_of_its_owner_alone(desk: Desk) -> None:
    out = desk.folder / "hers.json"
    shown = desk.ok("export", desk.customer.number, "--out", str(out))
    assert out.stat().st_mode & 0o777 == 0o600
    held = json.loads(out.read_text())
    assert held["customer"] == desk.customer.number
    assert held["voiceprint"]["embeddings"] == voiceprint().vectors.tolist()
    assert [base64.b64decode(said["base64"]) for said in held["fingerprints"]] == [PRINT]
    assert {held["consents"][0]["id"]} == {held["voiceprint"]["consent"], held["fingerprints"][0]["consent"]}
    assert "embeddings" not in shown
    assert desk.audit() == ["voiceprint.exported"]


def test_an_export_overwrites_nothing_and_what_was_not_written_is_not_audited(desk: Desk) -> None:
    out = desk.folder / "there.json"
    out.write_text("something else")
    assert desk.run("export", desk.customer.number, "--out", str(out)).exit_code == 2
    assert out.read_text() == "something else"
    assert desk.audit() == []


def test_nothing_of_a_voice_can_be_read_in_the_database(desk: Desk) -> None:
    with sqlite3.connect(desk.folder / "ivr.sqlite3") as db:
        rows = b"".join(sealed for table in ("voiceprints", "utterance_prints", "voice_secrets")
                        for (sealed,) in db.execute(f"SELECT sealed FROM {table}"))  # fmt: skip
    for readable in (PRINT, b"VPR1", b"VPV1", voiceprint().vectors.tobytes()):
        assert readable not in rows
