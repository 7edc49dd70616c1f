from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.resources import shipped
from ivr.settings import settings
from voiceprint import Voiceprint, open_sealed


def test_an_operator_enrols_a_voice_from_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("IVR_DIGIT_MODEL_DIR", str(tmp_path))
    settings.cache_clear()
    run = CliRunner().invoke
    added = run(
        main,
        ["customer", "add", "--phone", "+15035550123", "--email", "a@example.com"],
        catch_exceptions=False,
    )
    number = added.output.split()[1]
    recordings = [str(shipped(f"fixtures/audio/alice/enrol_{n}.wav")) for n in (1, 2, 3)]

    too_few = run(
        main, ["enrol", number, *recordings[:2], "--consent", "signed form"], catch_exceptions=False
    )
    assert too_few.exit_code == 2
    assert "more_recordings" in too_few.output
    done = run(main, ["enrol", number, *recordings, "--consent", "signed form"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "provisional" in run(main, ["customer", "show", number]).output

    with sqlite3.connect(tmp_path / "ivr.sqlite3") as db:
        ((customer_id, model_id, sealed),) = db.execute(
            "SELECT customer_id, model_id, sealed FROM voiceprints"
        )
        assert db.execute("SELECT kind, channel FROM consents").fetchall() == [
            ("voiceprint", "operator: signed form")
        ]
        assert db.execute("SELECT template FROM notices").fetchall() == [("enrolled",)]
        whats = db.execute("SELECT what, details FROM audit ORDER BY at").fetchall()
    assert [what for what, _ in whats] == ["customer.added", "voiceprint.enrolled"]
    assert json.loads(whats[1][1]) == {"recordings": 3}
    keys = Keyring.load(settings()).all("voiceprint")
    blob = open_sealed(keys, sealed, f"{customer_id}:{model_id}".encode())
    assert Voiceprint.from_bytes(blob).utterances == 3
    settings.cache_clear()
