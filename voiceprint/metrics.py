"""Error rates of speaker verification, with intervals by bootstrap over speakers (ISO/IEC 19795-1 terms).

Trials that share a speaker are not independent, so speakers are resampled, not trials: a genuine trial counts as
often as its speaker was drawn, an impostor trial as often as both of its speakers together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import xlogy

Floats = NDArray[np.float64]

#: The detection cost of the VoxCeleb lists: one trial in a hundred is genuine, either error costs the same.
TARGET_PRIOR = 0.01
#: A false match rate of 0.1 % is not measurable below this many different pairs of speakers (rule of three).
LEAST_PAIRS = 3000


@dataclass(frozen=True)
class TrialScores:
    """Scores of shape (n,), whether each trial is genuine, and the speaker index of either side."""

    score: Floats
    same: NDArray[np.bool_]
    enrolled: NDArray[np.int64]
    tested: NDArray[np.int64]

    @property
    def genuine(self) -> int:
        return int(self.same.sum())

    @property
    def impostor(self) -> int:
        return int((~self.same).sum())

    @property
    def speakers(self) -> int:
        return len(np.union1d(self.enrolled, self.tested))

    @property
    def impostor_pairs(self) -> int:
        """Pairs of different speakers: who against whom counts once, however many trials there are."""
        one, other = self.enrolled[~self.same], self.tested[~self.same]
        span = int(max(self.enrolled.max(initial=0), self.tested.max(initial=0))) + 1
        return len(np.unique(np.minimum(one, other) * span + np.maximum(one, other)))


@dataclass(frozen=True)
class Rate:
    """A share 0..1, or a cost, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """What the field reports of a set of trials; ``fnmr_at_fmr_01pct`` is None where it cannot be measured."""

    eer: Rate
    min_dcf: Rate
    fnmr_at_fmr_1pct: Rate
    fnmr_at_fmr_01pct: Rate | None
    cllr: Rate
    min_cllr: Rate


class Ranked:
    """Trials sorted by score once, for figures under any weights. Equal scores are one step: no order among them."""

    def __init__(self, trials: TrialScores) -> None:
        order = np.argsort(trials.score, kind="stable")
        score = trials.score[order]
        self.same, self.enrolled, self.tested = trials.same[order], trials.enrolled[order], trials.tested[order]
        self.starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
        self.thresholds = score[self.starts]
        llr = np.where(self.same, -score, score)
        self.bits = np.logaddexp(0, llr) / np.log(2)

    def steps(self, weight: Floats) -> tuple[Floats, Floats]:
        """Shares of all genuine and of all impostor trials at each distinct score, lowest first."""
        genuine = np.add.reduceat(np.where(self.same, weight, 0.0), self.starts)
        impostor = np.add.reduceat(np.where(self.same, 0.0, weight), self.starts)
        if not genuine.sum() or not impostor.sum():
            nothing = np.full(len(self.starts), np.nan)
            return nothing, nothing
        return genuine / genuine.sum(), impostor / impostor.sum()

    def draws(self, resamples: int) -> Iterator[Floats]:
        """Weights of the trials for speakers drawn with replacement; the same draws for the same trials."""
        speakers = int(max(self.enrolled.max(), self.tested.max())) + 1
        rng = np.random.default_rng(1)
        for _ in range(resamples):
            count = np.bincount(rng.integers(0, speakers, speakers), minlength=speakers).astype(float)
            yield np.where(self.same, count[self.enrolled], count[self.enrolled] * count[self.tested])


def error_curve(genuine: Floats, impostor: Floats) -> tuple[Floats, Floats]:
    """(false non-match rates, false match rates) from accepting everything to nothing, of :meth:`Ranked.steps`."""
    return np.r_[0.0, np.cumsum(genuine)], np.r_[1.0, np.maximum(1 - np.cumsum(impostor), 0.0)]


def equal_error_rate(fnmr: Floats, fmr: Floats) -> float:
    """Where the two curves cross, between the steps."""
    if np.isnan(fnmr[-1]):
        return float("nan")
    after = int(np.argmax(fnmr >= fmr))
    gap_before, gap_after = fmr[after - 1] - fnmr[after - 1], fmr[after] - fnmr[after]
    share = gap_before / (gap_before - gap_after) if gap_before != gap_after else 0.0
    rise = share * (fnmr[after] - fnmr[after - 1])
    return float(max(fnmr[after - 1] + rise, fmr[after - 1] + share * (fmr[after] - fmr[after - 1])))


def fnmr_at(fnmr: Floats, fmr: Floats, false_match_rate: float) -> float:
    """The false non-match rate at the lowest threshold that keeps the false match rate."""
    return float(fnmr[np.argmax(fmr <= false_match_rate + 1e-12)])


def min_dcf(fnmr: Floats, fmr: Floats, target_prior: float = TARGET_PRIOR) -> float:
    """The least detection cost over all thresholds; 1 is what always refusing costs."""
    cost = target_prior * fnmr + (1 - target_prior) * fmr
    return float(cost.min() / min(target_prior, 1 - target_prior))


def cllr(ranked: Ranked, weight: Floats) -> float:
    """Cost of the log-likelihood ratios (nats) in bits (Brümmer and du Preez 2006): 1 says nothing, more misleads."""
    same = ranked.same
    genuine, impostor = weight[same], weight[~same]
    if not genuine.sum() or not impostor.sum():
        return float("nan")
    bits = ranked.bits
    return 0.5 * float(np.average(bits[same], weights=genuine) + np.average(bits[~same], weights=impostor))


def min_cllr(genuine: Floats, impostor: Floats) -> float:
    """The cost left when the scores are calibrated as well as can be, by pooling adjacent violators.

    Takes the shares of :meth:`Ranked.steps`; what is above it is the calibration's fault.
    """
    if np.isnan(genuine).any():
        return float("nan")
    there = genuine + impostor > 0
    genuine, impostor = genuine[there], impostor[there]
    both = genuine + impostor
    same = isotonic_regression(genuine / both, weights=both).x
    return float(0.5 * abs((xlogy(genuine, same) + xlogy(impostor, 1 - same)).sum()) / np.log(2))


def figures(trials: TrialScores, resamples: int = 200) -> Figures:
    """Every figure with its interval. Scores are taken as log-likelihood ratios in nats where that matters (Cllr)."""
    ranked = Ranked(trials)

    def at(weight: Floats) -> tuple[float, ...]:
        genuine, impostor = ranked.steps(weight)
        fnmr, fmr = error_curve(genuine, impostor)
        rates = equal_error_rate(fnmr, fmr), min_dcf(fnmr, fmr), fnmr_at(fnmr, fmr, 0.01), fnmr_at(fnmr, fmr, 0.001)
        return (*rates, cllr(ranked, weight), min_cllr(genuine, impostor))

    drawn = np.array([at(weight) for weight in ranked.draws(resamples)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0).tolist()
    values = at(np.ones(len(ranked.same)))
    eer, dcf, at_1pct, at_01pct, cost, least_cost = map(Rate, values, low, high)
    measurable = trials.impostor_pairs > LEAST_PAIRS
    return Figures(eer, dcf, at_1pct, at_01pct if measurable else None, cost, least_cost)


def all_pairs(
    scores: Floats, enrolled: Sequence[int], tested: Sequence[int], left_out: NDArray[np.bool_] | None = None
) -> TrialScores:
    """Trials of every test against every enrolment; ``scores`` has shape (tests, enrolments).

    Genuine trials in ``left_out``, of the same shape, are none: where both sides hold the same recording, say.
    """
    enrol, test = np.broadcast_arrays(np.asarray(enrolled)[None], np.asarray(tested)[:, None])
    same = test == enrol
    kept = np.ones(scores.shape, bool) if left_out is None else ~(same & left_out)
    return TrialScores(scores[kept], same[kept], enrol[kept], test[kept])
