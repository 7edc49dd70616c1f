"""``ivr fixture record``: what was asked for is kept, cut; whatever else is heard leaves no trace."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from pydantic import SecretStr
from simcarrier_stub import SID, TOKEN

from ivr.ops import fixtures
from ivr.ops.cli import main
from ivr.ops.fixtures import Asked, Kind
from ivr.ops.recorder import Recorder, serving
from ivr.ops.simcarrier.audio import Voices
from ivr.ops.simcarrier.record import CallRecord
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import parse
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.speech.audio import SAMPLE_RATE, Pcm, read_audio
from ivr.speech.recogniser import DigitModel

AUDIO = shipped("fixtures/audio")
CARD = "5555341244441115"  # bob's
MINE = "+14155550142"


@cache
def model(locale: str = "en") -> DigitModel:
    return DigitModel(shipped("models/digits-zh" if locale == "zh" else "models/digits"), locale)


def said(digits: str, pause_s: float = 0.5) -> Pcm:
    """Digits by bob, one by one."""
    voices, quiet = Voices(AUDIO), np.zeros(int(pause_s * SAMPLE_RATE), np.int16)
    return np.concatenate([quiet, *(p for d in digits for p in (voices.recording(f"bob/digits/{d}_2.wav"), quiet))])


def record(folder: Path, pcm: Pcm, name: str, *options: str, rate: int = SAMPLE_RATE) -> Result:
    wav = folder / "given.wav"
    soundfile.write(wav, pcm, rate)
    command = ["fixture", "record", name, "--from", str(wav), "--into", str(folder / "kept"), *options]
    return CliRunner().invoke(main, command)


def kept(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_test_number_is_kept_as_fixtures_are_and_can_be_played(tmp_path: Path) -> None:
    around = np.zeros(3 * SAMPLE_RATE, np.int16)
    result = record(
        tmp_path, np.concatenate([around, read_audio(AUDIO / "bob/card.wav"), around]), "ann/card",
        "--say", "card", "--card", "bob",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Say, and nothing else:  5555 3412 4444 1115" in result.output
    info = soundfile.info(tmp_path / "kept/ann/card.wav")
    assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "ULAW")
    assert info.duration < len(read_audio(AUDIO / "bob/card.wav")) / SAMPLE_RATE + 0.3  # the silence is cut off
    (listed,) = tomllib.loads((tmp_path / "kept/MANIFEST.toml").read_text())["recording"]
    assert (listed["path"], listed["digits"]) == ("ann/card.wav", CARD)
    voices = Voices(tmp_path / "kept")
    voices.recording("ann/card.wav")
    assert voices.published
    again = record(tmp_path, around, "ann/card", "--say", "card")
    assert again.exit_code == 2
    assert "--replace" in again.output


def test_digits_are_made_up_and_the_same_when_asked_again(tmp_path: Path) -> None:
    first, again, other = (fixtures.asked(f"ann/{n}", Kind.DIGITS, "", {}).digits for n in ("one", "one", "two"))
    assert first == again != other
    result = record(tmp_path, said(first), "ann/one", "--say", "digits")
    assert result.exit_code == 0, result.output
    assert kept(tmp_path / "kept") == ["MANIFEST.toml", "ann/one.wav"]


def test_each_digit_becomes_a_clip_that_challenges_are_joined_from(tmp_path: Path) -> None:
    wanted = fixtures.asked("ann/a", Kind.CLIPS, "", {})
    assert sorted(wanted.digits) == list("0123456789")
    result = record(tmp_path, said(wanted.digits), "ann/a", "--say", "clips")
    assert result.exit_code == 0, result.output
    assert kept(tmp_path / "kept/ann") == [f"digits/{digit}_a.wav" for digit in range(10)]
    joined = Voices(tmp_path / "kept").spoken("4 7 1 9", "ann", random.Random(1))
    assert fixtures.heard(model(), joined, Asked("a/b", Kind.DIGITS, "4719"))


@pytest.mark.parametrize(
    "given",
    ["another_number", "one_digit_more", "one_digit_less", "something_before", "silence", "noise", "words_between"],
)
def test_anything_else_is_forgotten(tmp_path: Path, given: str, caplog: pytest.LogCaptureFixture) -> None:
    card = read_audio(AUDIO / "bob/card.wav")
    quiet = np.zeros(SAMPLE_RATE // 2, np.int16)
    words = read_audio(AUDIO / "noise/babble.wav")[: 2 * SAMPLE_RATE]
    pcm = {
        "another_number": read_audio(AUDIO / "bob/alice_card.wav"),
        "one_digit_more": np.concatenate([card, quiet, said("7")]),
        "one_digit_less": said(CARD[:-1]),
        "something_before": np.concatenate([read_audio(AUDIO / "frank/card.wav"), quiet, card]),
        "silence": np.zeros(4 * SAMPLE_RATE, np.int16),
        "noise": read_audio(AUDIO / "noise/babble.wav"),
        "words_between": np.concatenate([card[: len(card) // 2], words, card[len(card) // 2 :]]),
    }[given]
    result = record(tmp_path, pcm, "ann/card", "--say", "card", "--card", "bob")
    assert result.exit_code == 1
    assert "nothing was kept" in result.output
    assert not (tmp_path / "kept").exists()
    told = result.output.replace("5555 3412 4444 1115", "") + caplog.text
    assert not any(character.isdigit() for character in told.replace(str(tmp_path), ""))


def test_nothing_but_published_numbers_can_be_asked_for(tmp_path: Path) -> None:
    result = record(tmp_path, said("1"), "ann/card", "--say", "card", "--card", "4000111122223333")
    assert result.exit_code == 2
    assert "published test numbers: alice, " in result.output
    for name in ("../card", "/card", "ann/card.wav", "a/b/c", "Ann"):
        assert record(tmp_path, said("1"), name, "--say", "digits").exit_code == 2
    assert not (tmp_path / "kept").exists()


def test_a_recording_of_another_rate_and_in_mandarin(tmp_path: Path) -> None:
    from scipy.signal import resample_poly

    wei = resample_poly(read_audio(AUDIO / "wei/card.wav").astype(float), 2, 1).astype(np.int16)
    result = record(tmp_path, wei, "li/card", "--say", "card", "--card", "dora", "--locale", "zh", rate=16_000)
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "kept/li/card.wav").samplerate == 8000


# By telephone: the same, as the simulated carrier rings it.

WANTED = Asked("ann/card", Kind.CARD, CARD)


@pytest.fixture
def recorder(settings: Settings, tmp_path: Path) -> Recorder:
    mine = settings.model_copy(update={"auth_token": SecretStr(TOKEN)})
    return Recorder(mine, model(), WANTED, MINE, "en", lambda r: fixtures.keep(tmp_path / "kept", r))


@pytest.fixture
def number(recorder: Recorder) -> Iterator[str]:
    with serving(recorder, 0) as port:
        url = f"http://127.0.0.1:{port}"
        recorder._settings = recorder._settings.model_copy(update={"public_url": url})
        yield url


def ring(url: str, plays: list[str], phone: str = MINE, **table: Any) -> CallRecord:
    """She says the first of ``plays``, and whenever she is asked again the last."""
    turns = [{"expect": "enrol.first", "play": plays[0]}] if plays else []
    again = [{"expect": "enrol.retry", "play": plays[-1]}] if plays else []
    call = parse({"name": "A call", "caller": {"from": phone}, "turn": turns, "whenever": again, **table}, "test")
    return run_call(call, base_url=url, account_sid=SID, auth_token=TOKEN, speed=16, audio=AUDIO)


def test_ones_own_telephone_is_asked_again_until_it_says_what_was_asked_for(
    recorder: Recorder, number: str, tmp_path: Path
) -> None:
    call = ring(number, ["bob/alice_card.wav", "bob/card.wav"])
    assert call.mismatch is None
    assert call.errors == []
    assert (*call.heard[:2], call.heard[-1]) == ("enrol.first", "enrol.retry", "guard.over")
    assert kept(tmp_path / "kept") == ["MANIFEST.toml", "ann/card.wav"]
    assert fixtures.heard(model(), read_audio(tmp_path / "kept/ann/card.wav"), WANTED)
    assert recorder.over.wait(10)


def test_who_says_something_else_or_calls_from_elsewhere_leaves_nothing(
    recorder: Recorder, number: str, tmp_path: Path
) -> None:
    assert ring(number, ["bob/alice_card.wav"]).heard[-1] == "enrol.poor"
    assert ring(number, [], phone="+14155550143").status == "no-answer"
    forged = ring(number, [], carrier={"forge_stream_token": True})
    assert forged.heard == ["enrol.first", "enrol.retry", "enrol.retry", "enrol.poor"]
    stranger = run_call(
        parse({"name": "x", "caller": {"from": MINE}}, "test"), base_url=number, account_sid=SID, auth_token="another"
    )
    assert stranger.status == "failed"
    assert not (tmp_path / "kept").exists()
    assert not recorder.kept
