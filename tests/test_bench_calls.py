"""The bench of whole calls: what counts as paid, and that its intervals are those of speakers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench import calls
from bench.calls import EARLIER_DIGITS, Result, Trial
from ivr.customers import utterances
from ivr.customers.register import add_customer
from ivr.customers.voiceprints import record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.ops.demo.stage import Stage
from ivr.ops.simcarrier.record import CallRecord, Requested
from ivr.settings import Settings
from ivr.store.db import Database
from voiceprint import Voiceprint
from voiceprint.replay import Sound

FRESH, REPLAYED = (f"right: voice match +8.1, {replay}, card right" for replay in ("fresh 0.11", "replayed 1.04"))


def result(kind: str, speaker: str, *, asked: bool, turn: str = FRESH) -> Result:
    requested = Requested(0.0, "POST", "/voice/answer", 200, 7.0, "")
    record = CallRecord("bench", "CA1", "+1", [requested], decisions={1: turn})
    return Result(Trial(kind, "a", speaker, "4", "4", 1), record, asked)


@pytest.mark.parametrize("kind", ["genuine", "live"])
def test_a_genuine_call_that_the_replay_check_would_have_refused_has_not_paid(kind: str) -> None:
    assert result(kind, "a", asked=True).paid
    assert not result(kind, "a", asked=True, turn=REPLAYED).paid
    assert not result(kind, "a", asked=False).paid


@pytest.mark.parametrize("kind", ["other_card", "other_voice"])
def test_a_wrong_call_has_paid_whenever_the_bank_was_asked(kind: str) -> None:
    assert result(kind, "b", asked=True, turn=REPLAYED).paid


def test_the_intervals_are_those_of_the_six_speakers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calls, "RESULTS", tmp_path / "calls.json")
    genuine = [result("genuine", who, asked=who != "f") for who in "abcdef" for _ in range(20)]
    lost = [result("live", "a", asked=True, turn=REPLAYED) for _ in range(20)]
    wrong = [result("other_card", who, asked=False) for who in "abcdef" for _ in range(40)]
    calls.report([*genuine, *lost, *wrong])
    printed = capsys.readouterr().out
    assert "genuine calls paid: 100 of 140 (42.9% to 100.0% by 6 speakers)" in printed  # of 140 calls 63 to 79 %
    assert "in 20 calls a turn was taken for a recording, 20 of which would have paid" in printed
    assert "wrong calls paid: 0 of 240 (at most 39.3% by 6 speakers, 95 %)" in printed  # of 240 calls 1.5 %
    assert "MISS genuine_calls_paid 0.714 >=0.8 n=140" in printed
    assert json.loads((tmp_path / "calls.json").read_text())["paid"]["live"] == {"a": [0, 20]}


def test_cards_challenges_and_what_was_said_before_are_of_different_clips(tmp_path: Path) -> None:
    speech, folder = tmp_path / "speech", tmp_path / "audio"
    (speech / "fsdd" / "who").mkdir(parents=True)
    rows, rng = ["path\tspeaker\ttext"], np.random.default_rng(0)
    for digit, name in enumerate(calls.NAMES):
        for take in range(50):
            rows.append(f"who/{digit}_{take}.wav\tfsdd_who\t{name}")
            soundfile.write(speech / "fsdd" / "who" / f"{digit}_{take}.wav", rng.uniform(-0.5, 0.5, 400), 8000)
    (speech / "fsdd" / "manifest.tsv").write_text("\n".join(rows) + "\n")
    assert calls.lay_out(speech, folder) == ["fsdd_who"]
    whose = [folder / part / "fsdd_who" / "digits" for part in ("earlier", "card", ".")]
    takes = [{path.name for path in place.iterdir()} for place in whose]
    assert [len(own) for own in takes] == [100, 200, 200]
    assert len(set.union(*takes)) == 500
    assert len(list((folder / "fsdd_who").glob("earlier_*.wav"))) == utterances.MOST_KEPT


def test_a_genuine_caller_has_as_much_behind_her_as_the_service_remembers(
    database: Database, keyring: Keyring, settings: Settings, now: datetime, tmp_path: Path
) -> None:
    with database.transaction() as session:
        who = add_customer(session, phones=["+14155550123"], now=now).id
        consent = record_consent(session, who, text_version="1", channel="test", now=now)
        blob = Voiceprint(np.ones((3, 4), np.float32), "m", 6.0).to_bytes()
        store_voiceprint(session, who, blob, "m", 8000, "telephone", consent.id, keyring, now)
    rng = np.random.default_rng(0)
    sounds = [Sound(rng.uniform(-0.5, 0.5, 8000).astype(np.float32)) for _ in EARLIER_DIGITS]
    stage = Stage(settings, (), "", database, keyring, tmp_path, [])
    calls.spoke_before(stage, who, sounds, now)
    with database.transaction() as session:
        kept = utterances.earlier(session, who, keyring, call_sid="CA1", step="1")
        secret = utterances.secret_of(session, who, keyring, now)
    assert len(kept) == utterances.MOST_KEPT
    assert all((sound.likeness(secret, kept) or 0) >= 1 for sound in sounds[::10])
