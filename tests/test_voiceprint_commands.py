"""The command line ``voiceprint`` on the shipped model and the recorded callers of the fixtures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from voiceprint import Encoder, Scorer, Voiceprint
from voiceprint.cli import main
from voiceprint.lists import read_scores, read_trials
from voiceprint.recordings import Embeddings

ROOT = Path(__file__).parents[1]
AUDIO, SHIPPED = ROOT / "fixtures" / "audio", ROOT / "models" / "voice"
VOICES = ("alice", "bob", "carol", "frank", "gus")
Run = Callable[..., Result]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def listed(path: Path, *rows: tuple[object, ...]) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shipped() -> Encoder:
    return Encoder.load(SHIPPED)


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    """Five voices enrolled on three strings each; every card number against every model, labelled."""
    enrolment = [(voice, f"{voice}/enrol_{n}.wav") for voice in VOICES for n in (1, 2, 3)]
    trials = [
        (model, f"{voice}/{card}.wav", "target" if model == voice else "nontarget")
        for model in VOICES for voice in VOICES for card in ("card", "card_2")
    ]  # fmt: skip
    return listed(tmp_path / "enrol.tsv", *enrolment), listed(tmp_path / "trials.tsv", *trials)


def test_the_package_stands_alone_and_its_help_loads_no_model() -> None:
    code = (
        "import sys, pkgutil, importlib, voiceprint.cli as c\n"
        "from click.testing import CliRunner\n"
        "assert 'calibrate' in CliRunner().invoke(c.main, ['--help']).output\n"
        "assert 'voiceprint.commands.score' not in sys.modules\n"
        "import voiceprint\n"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(voiceprint.__path__, 'voiceprint.')]\n"
        "assert not [m for m in sys.modules if m == 'ivr' or m.startswith('ivr.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_embeddings_come_out_as_arrays_for_their_owner_only(tmp_path: Path, shipped: Encoder) -> None:
    files = [AUDIO / "alice" / "card.wav", AUDIO / "bob" / "card.wav"]
    done = run("embed", *files, "--out", tmp_path / "out.npz")
    assert done.exit_code == 0, done.output
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert list(found["files"]) == [str(file) for file in files]
        assert found["vectors"].shape == (2, shipped.dim)
        assert str(found["model_id"]) == shipped.model_id
        assert (found["net_speech_s"] > 3).all()
        assert found["vectors"][0] @ found["vectors"][1] < 0.5
    assert (tmp_path / "out.npz").stat().st_mode & 0o077 == 0


def test_trials_are_scored_as_a_call_would_score_them(
    tmp_path: Path, lists: tuple[Path, Path], shipped: Encoder
) -> None:
    enrolment, trials = lists
    out, cache = tmp_path / "scores.tsv", tmp_path / "cache.npz"
    options = ("--enrol", enrolment, "--trials", trials, "--out", out, "--root", AUDIO)
    done = run("score", *options, "--cache", cache)
    assert done.exit_code == 0, done.output
    found, llr = read_scores(out)
    asked = read_trials(trials)
    np.testing.assert_array_equal(found.model, asked.model)
    np.testing.assert_array_equal(found.same, asked.same)
    assert found.same is not None
    assert llr[found.same].min() > llr[~found.same].max()  # text-to-speech voices are far apart

    known, scorer = Embeddings.load(cache, shipped.model_id), Scorer.load(SHIPPED)
    heard = {
        name: known.embed(shipped, name, AUDIO / name)
        for name in ("alice/enrol_1.wav", "alice/enrol_2.wav", "alice/enrol_3.wav", "bob/card.wav")
    }
    *own, other = heard.values()
    alice = Voiceprint(np.stack([u.vector for u in own]), shipped.model_id, 0.0)
    names = [(found.models[m], found.files[f]) for m, f in zip(found.model, found.file, strict=True)]
    assert llr[names.index(("alice", "bob/card.wav"))] == pytest.approx(scorer.score(alice, [other]).llr, abs=1e-3)

    first = out.read_bytes()
    assert run("score", *options, "--cache", cache).exit_code == 0
    assert out.read_bytes() == first


def test_a_cached_embedding_is_of_these_bytes_and_this_model(tmp_path: Path, shipped: Encoder) -> None:
    recording, cache = tmp_path / "a.wav", tmp_path / "cache.npz"
    known = Embeddings(shipped.model_id)
    shutil.copy(AUDIO / "alice" / "card.wav", recording)
    alice = known.embed(shipped, "a.wav", recording)
    known.save(cache)
    again = Embeddings.load(cache, shipped.model_id)
    np.testing.assert_array_equal(again.embed(shipped, "a.wav", recording).vector, alice.vector)
    shutil.copy(AUDIO / "bob" / "card.wav", recording)
    assert again.embed(shipped, "a.wav", recording).vector @ alice.vector < 0.5
    done = run("embed", recording, "--out", tmp_path / "x.npz", "--model", tmp_path)
    assert done.exit_code == 2
    with np.load(cache) as arrays:
        foreign = dict(arrays) | {"model_id": np.array("another")}
    np.savez(cache, **foreign)
    lists_ = listed(tmp_path / "l.tsv", ("m", "a.wav"))
    options = ("--enrol", lists_, "--trials", lists_, "--out", tmp_path / "s", "--root", tmp_path)
    refused = run("score", *options, "--cache", cache)
    assert refused.exit_code == 2
    assert "made by another" in refused.output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("enrolment", "trials", "reason"),
    [
        ([("alice", "alice/card.wav")], [("bob", "bob/card.wav")], "'bob' is not enrolled"),
        ([("alice", "alice/none.wav")], [("alice", "bob/card.wav")], "no such file (1 of 2 are missing)"),
        ([("alice", "MANIFEST.toml")], [("alice", "bob/card.wav")], "not a readable WAV"),
        ([("alice",)], [("alice", "bob/card.wav")], "enrol.tsv:1: 2 to 2 fields"),
        ([("alice", "alice/card.wav")], [("alice", "bob/card.wav", "genuine")], "neither target nor nontarget"),
        ([("a", "x")], [("a", "x", "target"), ("a", "y")], "every line has a label or none"),
    ],
)
def test_lists_that_cannot_be_used_are_refused_and_nothing_is_written(
    tmp_path: Path, enrolment: list[tuple[str, ...]], trials: list[tuple[str, ...]], reason: str
) -> None:
    done = run(
        "score", "--enrol", listed(tmp_path / "enrol.tsv", *enrolment), "--trials",
        listed(tmp_path / "trials.tsv", *trials), "--out", tmp_path / "scores.tsv", "--root", AUDIO,
    )  # fmt: skip
    assert done.exit_code == 2
    assert reason in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"enrol.tsv", "trials.tsv"}


def scores(path: Path, speakers: int = 30, files: int = 2) -> Path:
    """Every speaker's model against every speaker's files; known error rates: normals two apart."""
    rng = np.random.default_rng(0)
    rows = []
    for a, b, k in np.ndindex(speakers, speakers, files):
        mean, label = (2.0, "target") if a == b else (-2.0, "nontarget")
        rows.append((f"m{a}", f"f{b}-{k}", f"{rng.normal(mean, 2.0):.4f}", label))
    return listed(path, *rows)


def test_a_report_counts_speakers_behind_models_and_files(tmp_path: Path) -> None:
    done = run("report", scores(tmp_path / "scores.tsv"), "--json", "--resamples", 50)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["genuine"], found["impostor"]) == (60, 1740)
    assert (found["speakers"], found["impostor_pairs"]) == (30, 435)
    assert found["eer"]["low"] <= 0.1587 <= found["eer"]["high"]  # of two normals two deviations apart
    assert found["fnmr_at_fmr_01pct"] is None
    text = run("report", tmp_path / "scores.tsv", "--resamples", 50).stdout
    assert "not measurable: 435 pairs" in text


def test_plots_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("report", scores(tmp_path / "scores.tsv"), "--resamples", 50, "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.output
    for name in ("det.png", "histogram.png"):
        assert (tmp_path / "plots" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_plots_say_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = run("report", scores(tmp_path / "scores.tsv", 4), "--plots", tmp_path / "plots")
    assert done.exit_code == 2
    assert "pip install 'pay-by-voice[plots]'" in done.output
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a", "f", "1.0")], "labelled target and lines labelled nontarget"),
        ([("a", "f", "1.0", "target")], "labelled target and lines labelled nontarget"),
        ([("a", "f", "high", "target")], "scores.tsv:1: 'high' is no score"),
        ([("a", "f", "nan", "target")], "no score"),
        (
            [(*pair, "1", "target") for pair in ("af", "bf", "bg")] + [("a", "g", "0", "nontarget")],
            "'a' and 'g' are labelled nontarget, though target lines make them one speaker",
        ),
    ],
)
def test_scores_that_cannot_be_reported_are_refused(tmp_path: Path, rows: list[tuple[str, ...]], reason: str) -> None:
    done = run("report", listed(tmp_path / "scores.tsv", *rows))
    assert done.exit_code == 2
    assert reason in done.output


def test_a_million_trials_are_read_and_scored_in_a_minute(tmp_path: Path, shipped: Encoder) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, shipped.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with open(tmp_path / "trials.tsv", "w") as lines:
        lines.writelines(f"m{a}\tf{b}\n" for a in range(1000) for b in range(1000))
    from voiceprint.commands.score import _score, _write
    from voiceprint.utterance import Utterance

    started = time.process_time()
    trials = read_trials(tmp_path / "trials.tsv")
    people = [Voiceprint(v[None], shipped.model_id, 5.0) for v in vectors]
    tested = [Utterance(v, shipped.model_id, 5.0, 25.0, 0.0) for v in vectors[::-1]]
    _write(tmp_path / "scores.tsv", trials, _score(Scorer.load(SHIPPED), people, tested, trials))
    assert time.process_time() - started < 60
    assert (tmp_path / "scores.tsv").read_bytes().count(b"\n") == 1_000_000
