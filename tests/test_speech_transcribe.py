"""``ivr transcribe``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ivr.ops.commands.transcribe import command
from ivr.resources import shipped
from ivr.settings import settings
from ivr.speech.numbers import edit_distance

CARD = "4539148803436467"


@pytest.fixture
def audio() -> Path:
    return shipped("fixtures/audio") / "alice"


def test_digits_alternatives_and_times_are_printed(audio: Path) -> None:
    result = CliRunner().invoke(command, [str(audio / "card.wav")])
    assert result.exit_code == 0
    first, *rest = result.output.splitlines()
    file, digits, _ = first.split("  ")
    assert file == str(audio / "card.wav")
    assert edit_distance(digits, CARD) <= 1
    assert rest[-1].endswith(" s  seven")


def test_json_is_one_object_a_line(audio: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{audio / 'two.wav'}\n\n{audio / 'three.wav'}\n")
    result = CliRunner().invoke(command, ["--json", str(audio / "card.wav"), "--from", str(listed)])
    assert result.exit_code == 0
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert edit_distance(objects[0]["digits"], CARD) <= 1
    assert [o["digits"] for o in objects[1:]] == ["2", "3"]
    for o in objects:
        assert 0.5 < o["confidence"] <= 1
        assert len(o["digit_confidence"]) == len(o["digits"])
        assert all(0 < c <= 1 for c in o["digit_confidence"])
    assert [o["file"] for o in objects] == [str(audio / f"{n}.wav") for n in ("card", "two", "three")]
    keys = {"file", "digits", "confidence", "digit_confidence", "alternatives", "seconds"}
    assert all(set(o) == keys for o in objects)
    assert objects[0]["alternatives"][0]["digits"] == objects[0]["digits"]
    scores = [a["score"] for a in objects[0]["alternatives"]]
    assert scores == sorted(scores, reverse=True)


def test_mandarin_is_heard_with_its_own_model() -> None:
    card = str(shipped("fixtures/audio/wei/card.wav"))
    result = CliRunner().invoke(command, ["--json", "--locale", "zh", card])
    assert result.exit_code == 0
    assert edit_distance(json.loads(result.stdout)["digits"], "6011000990139424") <= 1


def test_without_a_model_of_a_language_nothing_is_heard(monkeypatch: pytest.MonkeyPatch, audio: Path) -> None:
    monkeypatch.setenv("IVR_DIGIT_MODEL_ZH_DIR", "none")
    settings.cache_clear()
    result = CliRunner().invoke(command, ["--locale", "zh", str(audio / "card.wav")])
    settings.cache_clear()
    assert result.exit_code == 1
    assert "no digit model for zh" in result.output


def test_a_bad_file_is_named_and_the_others_are_heard(audio: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("no audio")
    files = [str(tmp_path / "bad.wav"), str(tmp_path / "none.flac"), str(audio / "two.wav")]
    result = CliRunner().invoke(command, ["--json", *files])
    assert result.exit_code == 1
    assert [json.loads(line)["digits"] for line in result.stdout.splitlines()] == ["2"]
    assert "bad.wav: not a readable" in result.stderr
    assert "none.flac: there is no such file" in result.stderr


def test_nothing_to_transcribe_and_an_unreadable_list_are_errors(tmp_path: Path) -> None:
    assert CliRunner().invoke(command, []).exit_code == 2
    result = CliRunner().invoke(command, ["--from", str(tmp_path / "none.txt")])
    assert result.exit_code == 1
    assert "none.txt" in result.stderr
