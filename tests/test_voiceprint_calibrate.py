"""``voiceprint calibrate``: trials out of labelled recordings, and what becomes of a model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from scipy.signal import resample_poly

from voiceprint import Encoder, ListError, ModelError, Scorer, Utterance, manifest
from voiceprint.backend import Cosine
from voiceprint.cli import main
from voiceprint.labelled import corpus, measure
from voiceprint.lists import Recording, read_manifest
from voiceprint.utterance import unit

ROOT = Path(__file__).parents[1]
AUDIO, SHIPPED = ROOT / "fixtures" / "audio", ROOT / "models" / "voice"
#: Text-to-speech voices at other speeds and pitches, each of which stands for a person.
VOICES, SPEEDS = ("alice", "bob", "carol", "frank", "gus"), ((8, 8), (8, 9), (9, 8), (8, 10), (10, 8))
NAMES = ("enrol_1", "enrol_2", "enrol_3", "card")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 speakers with two sessions of two recordings, and their manifest."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = ["file\tspeaker\tsession\tnotes"]
    for voice in VOICES:
        for up, down in SPEEDS:
            for n, name in enumerate(NAMES):
                pcm, rate = soundfile.read(AUDIO / voice / f"{name}.wav")
                file = f"{voice}-{up}-{down}-{name}.wav"
                soundfile.write(folder / file, resample_poly(pcm, up, down), rate)
                rows.append(f"{file}\t{voice}-{up}-{down}\tday {n // 2}\t")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(SHIPPED, tmp_path / "model")


def test_a_deployers_recordings_set_the_threshold_and_leave_the_folder_sound(recordings: Path, model: Path) -> None:
    listed, cache = recordings / "manifest.tsv", model.parent / "cache.npz"
    options = ("calibrate", listed, "--model", model, "--root", recordings, "--cache", cache)
    before = Scorer.load(model)
    refused = run(*options)
    assert refused.exit_code == 2
    assert "9000 are needed" in refused.output  # 25 speakers cannot show one in three thousand
    assert Scorer.load(model).verification == before.verification

    done = run(*options, "--false-match-rate", 0.01)
    assert done.exit_code == 0, done.output
    after = Scorer.load(model)  # verifies every checksum
    assert after.verification != before.verification
    record = json.loads((model / "calibration.json").read_text())
    assert record["speakers"] == 25
    assert "25 speakers, enrolled on one session and tested on others" in record["material"]
    counts = record["verification"]["all"]
    assert 80 <= counts["genuine"] < 100  # against the other session, but for recordings too short to decide by
    assert counts["impostor"] == counts["genuine"] * 24 * 2
    assert counts["impostor_accepted"] < 0.01 * counts["impostor"] + 1  # the threshold lies between two of them
    assert manifest.verify(model).files["backend.npz"] == manifest.verify(SHIPPED).files["backend.npz"]
    assert {path.name for path in model.iterdir()} == {path.name for path in SHIPPED.iterdir()}


def test_a_folder_without_a_calibration_gets_one(recordings: Path, model: Path) -> None:
    for name in ("calibration.json", "backend.npz"):
        (model / name).unlink()
    manifest.write(model, "bare", 8000)
    with pytest.raises(ModelError, match="voiceprint calibrate"):
        Scorer.load(model)
    options = ("--root", recordings, "--false-match-rate", 0.01)
    done = run("calibrate", recordings / "manifest.tsv", "--model", model, *options)
    assert done.exit_code == 0, done.output
    scorer, encoder = Scorer.load(model), Encoder.load(model)
    assert scorer.model_id == encoder.model_id
    assert type(scorer.backend) is Cosine


def heard(direction: int, seconds: float = 4.0) -> Utterance:
    vector = np.zeros(32, np.float32)
    vector[direction] = 1
    return Utterance(unit(vector + 0.01), "m", seconds, 30.0, 0.0)


def test_a_voice_is_tested_on_sessions_that_it_was_not_enrolled_on() -> None:
    listed = [Recording(f"s{s}", f"{s}{d}{k}", f"day {d}") for s in range(25) for d in range(2) for k in range(3)]
    found = corpus(listed, [heard(int(r.speaker[1:])) for r in listed])
    assert found.in_sessions
    assert (found.speakers, len(found.heard)) == (25, 150)
    trials = measure(found, Cosine()).verification
    assert trials.same.sum() == 25 * 2 * 3  # either day against the three recordings of the other
    assert (~trials.same).sum() == 25 * 2 * 24 * 6
    assert trials.score[trials.same].min() > trials.score[~trials.same].max()


def test_without_sessions_every_second_recording_is_enrolled() -> None:
    listed = [Recording(f"s{s}", f"{s}-{k}", "") for s in range(20) for k in range(5)]
    found = corpus(listed, [heard(int(r.speaker[1:])) for r in listed])
    assert not found.in_sessions
    assert measure(found, Cosine()).verification.same.sum() == 20 * 5


def test_recordings_too_short_do_not_count_and_too_few_speakers_are_refused() -> None:
    listed = [Recording(f"s{s}", f"{s}-{k}", "") for s in range(20) for k in range(2)]
    utterances = [heard(i // 2, seconds=0.3 if i == 0 else 4.0) for i in range(40)]
    with pytest.raises(ListError, match="19 speakers"):
        corpus(listed, utterances)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a.wav\talice\n", ":1: a manifest begins with a line that names the columns"),
        ("speaker\tfile\nalice\t\n", ":2: no speaker or no file"),
        (None, "No such file"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "m.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ListError, match=reason):
        read_manifest(path)
