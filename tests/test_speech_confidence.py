"""Confidence: probabilities that follow the margins, and calibrations that cannot be used are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivr.speech.cards import LEAST_CONFIDENCE, candidates
from ivr.speech.confidence import (
    FEATURES,
    FILE,
    LEAD_CAP,
    Calibration,
    CalibrationError,
    Logistic,
    card_features,
    digit_features,
    string_features,
)
from ivr.speech.numbers import Hypothesis

VISA, OTHER = "4539578763621486", "5555555555554444"
CALIBRATION = Calibration(Logistic(1.0, (0.5, -1.5)), Logistic(0.0, (0.5, -0.5)), Logistic(0.0, (1.0,)))

hypotheses = st.lists(
    st.builds(
        Hypothesis,
        st.sampled_from([VISA, OTHER, "42", "4539", "45391"]),
        st.floats(-60, 60, allow_subnormal=False),  # trainings in this process may flush them to zero
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda h: h.digits,
).map(lambda found: sorted(found, key=lambda h: -h.score))


def heard(**scores: float) -> list[Hypothesis]:
    return [Hypothesis(digits.removeprefix("d"), score) for digits, score in scores.items()]


@given(hypotheses)
def test_confidence_is_a_probability_of_whole_numbers_only(found: list[Hypothesis]) -> None:
    known = CALIBRATION.with_confidence(found, whole_cards=True)
    assert [h.digits for h in known] == [h.digits for h in found]
    for h in known:
        assert (h.confidence is not None) == (h.digits in (VISA, OTHER))
        assert h.confidence is None or 0 <= h.confidence <= 1


def test_a_number_far_before_the_others_is_surer_than_one_beside_another() -> None:
    far, near = ([Hypothesis(VISA, 0.0), Hypothesis(OTHER, -gap)] for gap in (6.0, 0.1))
    sure, unsure = (CALIBRATION.with_confidence(found, whole_cards=True)[0].confidence for found in (far, near))
    assert sure is not None
    assert unsure is not None
    assert sure > unsure > 0


def test_a_number_behind_what_is_no_card_number_is_less_sure() -> None:
    (_, (lead, behind)), *_ = card_features([Hypothesis("42", 0.0), Hypothesis(VISA, -3.0)])
    assert (lead, behind) == (LEAD_CAP, 3.0)  # nothing like it, but something else fits better


def test_only_the_best_string_has_confidence_where_no_card_is_asked_for() -> None:
    known = CALIBRATION.with_confidence(heard(d42=0.0, d43=-1.0), whole_cards=False)
    assert known[0].confidence is not None
    assert known[1].confidence is None
    assert CALIBRATION.with_confidence([], whole_cards=False) == []
    assert string_features(heard(d42=0.0, d43=-1.0))[0] == pytest.approx(1.0)


def test_a_digit_that_all_alternatives_have_is_surer_than_one_that_they_dispute() -> None:
    found = heard(d421=0.0, d431=-1.0, d41=-1.0)
    first, second, third = (lead for (lead,) in digit_features(found))
    assert first == third == LEAD_CAP
    assert second < 1
    sure, unsure, _ = CALIBRATION.of_digits(found)
    assert sure > unsure
    assert CALIBRATION.of_digits([]) == []


def test_a_number_that_was_hardly_said_is_no_candidate() -> None:
    least = LEAST_CONFIDENCE
    assert candidates([Hypothesis(VISA, 0.0, least + 0.01), Hypothesis(OTHER, -1.0, least - 0.01)]) == [VISA]
    assert candidates([Hypothesis(VISA, 0.0, least - 0.01)]) == []
    assert candidates([Hypothesis(VISA, 0.0)]) == [VISA]  # a model without calibration goes by margins


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Calibration.read(tmp_path) is None
    written = {name: {"bias": 0.5, **dict.fromkeys(features, 2.0)} for name, features in FEATURES.items()}
    (tmp_path / FILE).write_text(json.dumps(written))
    assert Calibration.read(tmp_path) == Calibration(
        Logistic(0.5, (2.0, 2.0)), Logistic(0.5, (2.0, 2.0)), Logistic(0.5, (2.0,))
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"card": {"bias": 1}}'])
def test_a_calibration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CalibrationError, match=FILE):
        Calibration.read(tmp_path)
