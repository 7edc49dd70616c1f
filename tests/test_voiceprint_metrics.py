"""Error rates on scores whose figures are known: by hand, or in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from voiceprint.metrics import Ranked, TrialScores, error_curve, figures, fnmr_at
from voiceprint.report import report


def trials(genuine: list[float], impostor: list[float], speakers: int = 4) -> TrialScores:
    """Genuine trials of speaker 0, 1, 2, ... with themselves; impostor trials of neighbours."""
    same = np.arange(len(genuine) + len(impostor)) < len(genuine)
    enrolled = np.arange(len(same)) % speakers
    tested = np.where(same, enrolled, (enrolled + 1) % speakers)
    return TrialScores(np.array(genuine + impostor), same, enrolled, tested)


def normals(n: int, distance: float, shift: float = 0.0) -> TrialScores:
    """Log-likelihood ratios of two normal distributions of equal width, ``distance`` widths apart: calibrated."""
    mean = distance**2 / 2
    quantiles = norm.ppf((np.arange(n) + 0.5) / n) * distance
    return trials([*(mean + quantiles + shift)], [*(-mean + quantiles + shift)], speakers=50)


def test_scores_that_separate_cost_nothing() -> None:
    found = figures(trials([4.0, 5.0], [-5.0, -4.0, -3.0]), 50)
    assert (found.eer.value, found.min_dcf.value, found.fnmr_at_fmr_1pct.value, found.min_cllr.value) == (0, 0, 0, 0)


def test_scores_that_say_nothing_cost_one_bit() -> None:
    found = figures(trials([0.0] * 8, [0.0] * 20), 50)
    values = found.eer.value, found.cllr.value, found.min_cllr.value, found.min_dcf.value
    assert values == pytest.approx((0.5, 1, 1, 1))


def test_two_scores_by_hand() -> None:
    # A quarter of either kind on the wrong side: the posteriors are 1/4 and 3/4, the entropy of which is left.
    low, high = -np.log(3), np.log(3)
    found = figures(trials([low] + [high] * 3, [high] + [low] * 3), 50)
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert found.min_cllr.value == pytest.approx(entropy)
    assert found.cllr.value == pytest.approx(entropy)  # ln 3 is what these scores should say
    assert found.eer.value == pytest.approx(0.25)
    bolder = figures(trials([3 * low] + [3 * high] * 3, [3 * high] + [3 * low] * 3), 50)
    assert bolder.cllr.value == pytest.approx(0.75 * np.log2(1 + 1 / 27) + 0.25 * np.log2(1 + 27))
    assert bolder.min_cllr.value == pytest.approx(entropy)


def test_detection_cost_by_hand() -> None:
    # At the threshold that one owner in ten misses no impostor passes: 0.01 x 0.1, over 0.01.
    found = figures(trials([0.5] + [2.0] * 9, [1.0] * 10 + [0.0] * 90), 50)
    assert found.min_dcf.value == pytest.approx(0.1)


@pytest.mark.parametrize("distance", [1.0, 2.0, 3.0])
def test_normal_scores_have_the_error_rates_of_the_normal_distribution(distance: float) -> None:
    found = figures(normals(20000, distance), 50)
    assert found.eer.value == pytest.approx(norm.cdf(-distance / 2), abs=2e-4)
    assert found.fnmr_at_fmr_1pct.value == pytest.approx(norm.cdf(norm.isf(0.01) - distance), abs=2e-3)
    assert found.min_cllr.value == pytest.approx(found.cllr.value, abs=2e-3)  # calibrated by construction


def test_a_wrong_offset_costs_calibration_and_no_discrimination() -> None:
    right, wrong = figures(normals(2000, 2.0), 50), figures(normals(2000, 2.0, shift=3.0), 50)
    assert wrong.cllr.value > right.cllr.value + 0.2
    assert wrong.min_cllr.value == pytest.approx(right.min_cllr.value)
    assert wrong.eer.value == pytest.approx(right.eer.value)


def test_equal_scores_are_one_step_whatever_their_order() -> None:
    ranked = Ranked(trials([1.0, 1.0], [1.0, 1.0, 0.0, 0.0]))
    fnmr, fmr = error_curve(*ranked.steps(np.ones(6)))
    np.testing.assert_allclose(fnmr, [0, 0, 1])
    np.testing.assert_allclose(fmr, [1, 0.5, 0])
    assert fnmr_at(fnmr, fmr, 0.4) == 1.0


def test_speakers_are_resampled_and_not_trials() -> None:
    # One speaker of ten fails all of a hundred trials: the rate hangs on whether she is drawn.
    enrolled = np.repeat(np.arange(10), 100)
    genuine = np.where(enrolled == 0, -5.0, 5.0)
    one, other = (a.ravel() for a in np.meshgrid(np.arange(10), np.arange(10)))
    differ = one != other
    together = TrialScores(
        np.concatenate([genuine, np.zeros(differ.sum())]),
        np.arange(1000 + differ.sum()) < 1000,
        np.concatenate([enrolled, one[differ]]),
        np.concatenate([enrolled, other[differ]]),
    )
    rate = figures(together).fnmr_at_fmr_1pct
    assert rate.value == pytest.approx(0.1)
    assert rate.low == 0.0
    assert rate.high >= 0.25  # of trials drawn one by one: 0.12


def test_a_rate_of_one_in_a_thousand_needs_three_thousand_pairs_of_speakers() -> None:
    def everybody(speakers: int) -> TrialScores:
        one, other = (a.ravel() for a in np.meshgrid(np.arange(speakers), np.arange(speakers)))
        return TrialScores(np.where(one == other, 2.0, -2.0), one == other, one, other)

    few, many = everybody(77), everybody(79)
    assert (few.impostor, few.impostor_pairs) == (77 * 76, 2926)
    assert few.impostor > 3000
    assert figures(few, 50).fnmr_at_fmr_01pct is None
    assert "not measurable: 2,926 pairs of speakers" in report(few, figures(few, 50))
    assert many.impostor_pairs == 3081
    assert "not measurable" not in report(many, figures(many, 50))


def test_the_report_says_what_the_trials_can_prove() -> None:
    one, other = (a.ravel() for a in np.meshgrid(np.arange(61), np.arange(61)))  # 1,830 pairs, 61 genuine
    counted = TrialScores(np.where(one == other, 2.0, -2.0), one == other, one, other)
    text = report(counted, figures(counted, 50))
    assert "at most 0.16 %" in text  # 3 in 1,830
    assert "false match rates of 1.6 % and more" in text  # 30 in 1,830
    assert "false non-match rates of 49 % and more" in text  # 30 in 61
    few = trials([1.0], [-1.0])
    assert "false match rates none, false non-match rates none" in report(few, figures(few, 50))
    assert "independent" in text
