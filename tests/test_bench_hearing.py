"""The bench of hearing counts what it says: rates by speaker, wrong cards near the number said, false digits."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.digits_report import markdown
from bench.hearing import cards, machines, other, rates, reliability, wrong_cards
from bench.hearing.ears import CALL, LOOP, Answer, Ears, counted
from ivr.resources import shipped
from ivr.speech.audio import read_audio
from ivr.speech.numbers import Hypothesis, edit_distance
from ivr.speech.pan import is_complete, luhn_valid
from recipes.digits.evaluate import Spoken

SAID = "4539578763621486"
REPEATED = "4539577763621488"
SWAPPABLE = "4539090763621482"


def spoken(digits: str, speaker: str = "a") -> Spoken:
    return Spoken(np.zeros(8000, np.int16), digits, speaker)


def test_an_interval_is_that_of_speakers_not_of_strings() -> None:
    heard = [rates.Heard(speaker, 16, 0 if speaker < "k" else 1, 0.1, 1.0) for speaker in "abcdefghijklmnopqrst"] * 20
    exact = rates.rate(heard, lambda h: h.errors == 0)
    assert exact.value == 0.5
    assert exact.low < 0.35
    assert exact.high > 0.65
    assert (exact.count, exact.speakers) == (400, 20)


def test_none_found_is_bounded_by_the_rule_of_three() -> None:
    none = rates.Rate(0.0, 0.0, 0.0, 3000, 68)
    by_string, by_speaker = rates.upper_bound(none)
    assert by_string == pytest.approx(3 / 3000, rel=0.01)
    assert by_speaker == pytest.approx(3 / 68, rel=0.05)


def test_a_bar_is_passed_or_missed(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = rates.Verdicts()
    verdicts.add("errors", 0.01, 0.02, 10)
    verdicts.add("found", 0.9, 0.97, 20, at_least=True)
    assert capsys.readouterr().out == "PASS errors 0.0100 0.02 10\nMISS found 0.9000 0.97 20\n"
    assert not verdicts.all_reached


def test_neighbours_are_all_cards_of_the_same_ends_with_two_digits_changed() -> None:
    found = wrong_cards.two_digits_changed(SAID)
    assert len(found) == len(set(found)) == 135  # of 15 pairs of six places nine each
    for other_card in found:
        assert luhn_valid(other_card)
        assert (other_card[:6], other_card[-4:]) == (SAID[:6], SAID[-4:])
        assert sum(a != b for a, b in zip(SAID, other_card, strict=True)) == 2


def test_swapped_and_dropped_digits_make_cards() -> None:
    assert any(n[:-1] != SAID[:-1] for n in wrong_cards.swapped(SAID))
    assert all(is_complete(n) and n != SAID for n in wrong_cards.swapped(SAID))
    assert is_complete(SWAPPABLE)
    assert SWAPPABLE.replace("09", "90", 1) in wrong_cards.swapped(SWAPPABLE)
    assert is_complete(REPEATED)
    dropped = wrong_cards.dropped(REPEATED)
    assert dropped
    assert all(edit_distance(REPEATED, n) <= 2 for n in dropped)


def test_every_list_holds_cards_and_never_the_one_said() -> None:
    lists = wrong_cards.lists(SAID, np.random.default_rng(0))
    assert lists.shape == (wrong_cards.LISTS, len(wrong_cards.CLASSES))
    numbers = {str(n) for n in lists.ravel() if n}
    assert SAID not in numbers
    assert all(map(is_complete, numbers))
    known = {str(n) for n in lists[:, wrong_cards.CLASSES.index("same issuer and last four")] if n}
    assert {(n[:6], n[-4:]) for n in known} == {(SAID[:6], SAID[-4:])}
    assert len(known) > 900


def test_a_wrong_card_is_counted_by_the_class_of_the_best_candidate() -> None:
    neighbour = wrong_cards.two_digits_changed(SAID)[0]
    rng = np.random.default_rng(0)
    assert wrong_cards.accepted(SAID, [SAID], rng) == Counter()
    taken = wrong_cards.accepted(SAID, [neighbour, SAID], rng)
    assert taken[wrong_cards.NEIGHBOURS] == np.ceil(wrong_cards.LISTS / 135)
    assert wrong_cards.accepted(SAID, ["5555555555554444"], rng) == Counter()


def test_what_is_found_and_what_is_wrong_is_judged_as_a_call_compares(capsys: pytest.CaptureFixture[str]) -> None:
    neighbour = wrong_cards.two_digits_changed(SAID)[0]
    heard = [
        ("a", (Hypothesis(SAID, 0.0, 0.9), Hypothesis(neighbour, -1.0, 0.2))),
        ("b", (Hypothesis(neighbour, 0.0, 0.7), Hypothesis(SAID, -1.0, 0.6))),
        ("c", (Hypothesis(neighbour, 0.0, 0.3),)),
    ]
    answers = [Answer("", 0.0, numbers) for _, numbers in heard]
    of = cards.outcomes("t", "clean", [spoken(SAID, speaker) for speaker, _ in heard], answers)
    assert [o.found for o in of] == [True, True, False]
    assert [bool(o.wrong[wrong_cards.NEIGHBOURS]) for o in of] == [False, True, False]
    assert cards.at_no_wrong_card(of) == (0.75, {"t, clean": pytest.approx(1 / 3)})
    verdicts = rates.Verdicts()
    figures = cards.judge(of, verdicts)
    assert figures["wrong"][wrong_cards.NEIGHBOURS]["strings"] == 1
    assert figures["found"]["t, clean"]["value"] == pytest.approx(2 / 3)
    assert {line["name"]: line["reached"] for line in verdicts.lines}["wrong_cards/neighbours_accepted"] is False
    assert SAID not in capsys.readouterr().out


def test_errors_are_counted_for_each_string() -> None:
    heard = counted([spoken("4213"), spoken("42")], [Answer("423", 0.1), Answer("42", 0.2)])
    assert [h.errors for h in heard] == [1, 0]
    assert rates.figures(heard)["real_time_factor"] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("text", "digits"), [("twelve ounce", 2), ("eight ounce, triple shot", 1), ("4 5", 2), ("[unk] oh no", 1)]
)
def test_digits_that_were_said_are_not_false(text: str, digits: int) -> None:
    assert other.digits_in(text) == digits


def test_a_call_acts_on_card_numbers_only_that_were_more_probably_said_than_not() -> None:
    def said(digits: str, confidence: float) -> Answer:
        return Answer("4539", 0.1, numbers=(Hypothesis(digits, 0.0, confidence),))

    assert other.digits_heard(LOOP, Answer("four five", 0.1)) == 2
    assert other.digits_heard(CALL, said(SAID, 0.9)) == 16
    assert other.digits_heard(CALL, said(SAID, 0.4)) == 0
    assert other.digits_heard(CALL, said(SAID[:6], 0.9)) == 0


def test_a_bench_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    model, pcm = shipped("models/digits"), read_audio(shipped("fixtures/audio/alice/two.wav"))
    two = [Spoken(pcm, "2", "alice")]
    with Ears(model, {}, 1, tmp_path) as ears:
        assert [a.digits for a in ears.hear(LOOP, two, "two")] == ["2"]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(pickle.dumps([Answer("3", 0.1)]))  # so that it is seen whether it was read
    with Ears(model, {}, 1, tmp_path) as ears:
        assert [a.digits for a in ears.hear(LOOP, two, "two")] == ["3"]
        assert [a.digits for a in ears.hear(LOOP, [Spoken(pcm[1:], "2", "alice")], "two")] == ["2"]
    changed = Path(shutil.copytree(model, tmp_path / "model"))
    (changed / "conf" / "model.conf").write_text((changed / "conf" / "model.conf").read_text() + "\n")
    with Ears(changed, {}, 1, tmp_path) as ears:
        assert [a.digits for a in ears.hear(LOOP, two, "two")] == ["2"]


def test_reliability_is_that_of_its_steps(tmp_path: Path) -> None:
    judged = [reliability.Judged("a", 0.95, True)] * 9 + [reliability.Judged("b", 0.95, False)]
    found = reliability.figures(judged)
    assert found["expected_calibration_error"] == pytest.approx(0.05)
    assert found["brier"] == pytest.approx(0.9 * 0.05**2 + 0.1 * 0.95**2)
    assert (found["n"], found["speakers"]) == (10, 2)
    pytest.importorskip("matplotlib")
    reliability.plot({"digit": found}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_no_voice_of_the_bench_was_trained_on() -> None:
    names = [v.name.split("+")[-1].lower() for v in machines.VOICES]
    assert not set(names) & machines.trained_on()
    assert len(set(names)) == len(names)


def test_the_report_holds_what_was_measured() -> None:
    share = {"value": 0.971, "low": 0.95, "high": 0.99, "count": 300, "speakers": 60, "fewest": {"a": 0.5}}
    of_class = {"lists": 8.0, "strings": 1.0, "at_most_of_strings": 0.01, "at_most_of_speakers": 0.02}
    summary = {
        "cards": {"found": {"fsdd_16, clean": share}, "wrong": {"other card": of_class}, "at_no_wrong_card": None},
        "bars": [{"reached": False, "name": "x/y", "value": 0.5, "target": 0.97, "n": 300}],
    }
    text = "\n".join(markdown(summary))
    assert "| fsdd_16, clean | 60 | 300 | 97.1 (95.0 ... 99.0) | a 50 % |" in text
    assert "| other card | 8 | 1 | 1.000 | 2.00 |" in text
    assert "| missed | x/y | 0.5 | 0.97 | 300 |" in text
    assert "### Digits" not in text
