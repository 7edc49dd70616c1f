"""The bars of voices: what is judged, and that a miss is told."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bench.liveness import Share
from bench.voice import conditions
from bench.voice_bars import DIGITS, Bars, eer_ratio, judge
from recipes.heldout import is_held_out
from voiceprint.metrics import all_pairs


def figures(eer: float, against_resemblyzer: float, against_mfcc: float) -> dict[str, Any]:
    def rate(value: float) -> dict[str, float]:
        return {"value": value, "low": value / 2, "high": value * 2}

    return {
        "genuine": 10,
        "impostor": 90,
        "ours": {"eer": rate(eer), "fnmr_at_fmr_1pct": rate(0.05)},
        "resemblyzer": {"our_eer_as_a_share": rate(against_resemblyzer)},
        "mfcc": {"our_eer_as_a_share": rate(against_mfcc)},
    }


def report(**shares: float) -> dict[str, Any]:
    given = {"eer": 0.01, "against_resemblyzer": 0.5, "against_mfcc": 0.4} | shares
    return {
        "conditions": {name: figures(**given) for name in DIGITS},
        "fsdd_decisions": {"telephone": {"owner": {"match": 10}, "another": {"match": 0, "no_match": 50}}},
        "embedding_8s_ms": 20.0,
        "encoder_bytes": 3_500_000,
    }


def judged(found: dict[str, Any]) -> list[str]:
    bars = Bars()
    judge(found, bars)
    missed = [row["name"] for row in bars.rows if not row["passed"]]
    assert bars.missed == len(missed)
    return missed


def test_all_bars_are_met_by_what_meets_them() -> None:
    assert judged(report()) == []


def test_the_error_rate_has_another_bar_with_noise() -> None:
    assert judged(report(eer=0.03)) == ["voice-eer-digits"]
    assert judged(report(eer=0.05)) == ["voice-eer-digits", "voice-eer-digits-noise"]


def test_resemblyzer_is_to_be_beaten_by_a_third_in_every_digit_condition() -> None:
    missed = judged(report(against_resemblyzer=0.7))
    assert missed == [f"voice-eer-against-resemblyzer-{name}" for name in DIGITS]


def test_half_the_leak_detectors_error_rate_is_the_bar_with_noise_alone() -> None:
    missed = judged(report(against_mfcc=0.6))
    assert missed == ["voice-eer-against-mfcc-digits-noise", "voice-eer-against-mfcc-digits-3-against-3-noise"]


def test_without_peers_nothing_is_compared_with_them() -> None:
    found = report(against_resemblyzer=9, against_mfcc=9)
    for condition in found["conditions"].values():
        del condition["resemblyzer"], condition["mfcc"]
    assert judged(found) == []


def test_a_bar_is_one_line_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    Bars().below("voice-eer-digits", 0.057, 0.02, 37_812, (0.046, 0.076))
    assert capsys.readouterr().out == "MISS voice-eer-digits 0.057 [0.046-0.076] <=0.02 n=37812\n"


def test_the_share_of_another_error_rate_draws_the_same_speakers_for_both() -> None:
    who = list(range(20))
    noise = np.random.default_rng(0).standard_normal((20, 20))
    worse = all_pairs(np.eye(20) + noise, who, who)
    assert vars(eer_ratio(worse, worse)) == {"value": 1.0, "low": 1.0, "high": 1.0}
    better = eer_ratio(all_pairs(3 * np.eye(20) + noise, who, who), worse)
    assert better.low <= better.value <= better.high
    assert better.value < 0.7


def record(speech: Path, folder: str, speakers: int, notes: list[str], seconds: float) -> None:
    """A corpus of held-out speakers of whom each clip is noise of its own: a clip for each of ``notes``."""
    rng = np.random.default_rng(len(folder))
    names = (name for i in itertools.count() if is_held_out(folder, name := f"{folder}_{i}"))
    rows = ["path\tspeaker\ttext\tnotes"]
    for name in itertools.islice(names, speakers):
        for i, note in enumerate(notes):
            rows.append(f"{name}_{i}.wav\t{name}\tone\t{note}")
            (speech / folder).mkdir(exist_ok=True)
            soundfile.write(speech / folder / f"{name}_{i}.wav", rng.uniform(-0.1, 0.1, int(8000 * seconds)), 8000)
    (speech / folder / "manifest.tsv").write_text("\n".join(rows) + "\n")


def test_no_genuine_trial_of_any_condition_has_a_clip_on_both_sides(tmp_path: Path) -> None:
    record(tmp_path, "speech_commands_digits", 3, [""] * 7, 0.3)
    record(tmp_path, "fsdd", 2, [""] * 20, 0.3)
    record(tmp_path, "phone_numbers", 2, ["kind=numbers", "kind=names"], 1.0)
    record(tmp_path, "librispeech_resemblyzer", 2, [""], 2.0)
    record(tmp_path, "librispeech_deepspeaker", 1, [""], 2.0)
    genuine = {}
    for condition in conditions(tmp_path, [], noisy=False):
        tests, enrolments = len(condition.tested), len(condition.enrolled)
        trials = condition.trials(np.arange(float(tests * enrolments)).reshape(tests, enrolments))
        test, enrolled = np.divmod(trials.score[trials.same].astype(int), enrolments)
        sides = [(condition.tested[t], condition.enrolled[e]) for t, e in zip(test, enrolled, strict=True)]
        assert all(one.speaker == other.speaker and not one.clips & other.clips for one, other in sides)
        assert all(one.clips and other.clips for one, other in sides)
        genuine[condition.name] = len(sides)
        speakers = len({side.speaker for side in condition.tested})
        assert trials.impostor == tests * enrolments * (speakers - 1) / speakers  # none of them is left out
    both_ways = {"digits": 3 * 2, "digits-3-against-3": 3 * 2}
    assert genuine == both_ways | {"phone-readers": 2, "librispeech": 3, "fsdd-16-digits": 2 * 20}


def test_where_nobody_was_hit_people_are_counted_and_not_trials() -> None:
    none, every, some = (Share(np.array([[hits, 40]] * 6)) for hits in (0, 40, 10))
    assert none.interval == (0, pytest.approx(1 - 0.05 ** (1 / 6)))  # 39 %; of 240 trials it would be 1.5 %
    assert every.interval == (pytest.approx(0.05 ** (1 / 6)), 1)
    assert (some.value, some.n) == (0.25, 240)
    one_of_six = Share(np.array([[40, 40], *[[0, 40]] * 5]))
    assert one_of_six.interval == (0.0, 0.5)
