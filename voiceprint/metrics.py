"""Error rates of speaker verification, with intervals by bootstrap over speakers (ISO/IEC 19795-1 terms)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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


@dataclass(frozen=True)
class Rate:
    """A share 0..1 with its 95 % interval."""

    value: float
    low: float
    high: float


def error_rates(
    trials: TrialScores, false_match_rate: float = 0.01, resamples: int = 200
) -> tuple[Rate, Rate]:
    """(equal error rate, false non-match rate at ``false_match_rate``), speakers resampled with replacement.

    A genuine trial counts as often as its speaker was drawn, an impostor trial as often as both together.
    """
    order = np.argsort(trials.score, kind="stable")
    same, enrolled, tested = trials.same[order], trials.enrolled[order], trials.tested[order]

    def at(weight: Floats) -> tuple[float, float]:
        genuine, impostor = np.where(same, weight, 0.0), np.where(same, 0.0, weight)
        if not genuine.sum() or not impostor.sum():
            return float("nan"), float("nan")
        fnmr = np.concatenate([[0.0], np.cumsum(genuine) / genuine.sum()])
        fmr = np.concatenate([[1.0], 1 - np.cumsum(impostor) / impostor.sum()])
        return _equal(fnmr, fmr), float(fnmr[np.argmax(fmr <= false_match_rate + 1e-12)])

    speakers = int(max(enrolled.max(), tested.max())) + 1
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(resamples):
        count = np.bincount(rng.integers(0, speakers, speakers), minlength=speakers).astype(float)
        drawn.append(at(np.where(same, count[enrolled], count[enrolled] * count[tested])))
    low, high = np.nanpercentile(np.array(drawn), [2.5, 97.5], axis=0)
    values = at(np.ones(len(same)))
    return tuple(Rate(v, float(lo), float(hi)) for v, lo, hi in zip(values, low, high, strict=True))  # type: ignore[return-value]


def _equal(fnmr: Floats, fmr: Floats) -> float:
    """Where the two curves cross, between the steps."""
    after = int(np.argmax(fnmr >= fmr))
    gap_before, gap_after = fmr[after - 1] - fnmr[after - 1], fmr[after] - fnmr[after]
    share = gap_before / (gap_before - gap_after) if gap_before != gap_after else 0.0
    rise = share * (fnmr[after] - fnmr[after - 1])
    return float(max(fnmr[after - 1] + rise, fmr[after - 1] + share * (fmr[after] - fmr[after - 1])))


def all_pairs(scores: Floats, enrolled: Sequence[int], tested: Sequence[int]) -> TrialScores:
    """Trials of every test against every enrolment; ``scores`` has shape (tests, enrolments)."""
    enrol, test = np.asarray(enrolled), np.asarray(tested)
    same = test[:, None] == enrol[None]
    shape = scores.shape
    return TrialScores(
        scores.ravel(),
        same.ravel(),
        np.broadcast_to(enrol[None], shape).ravel(),
        np.broadcast_to(test[:, None], shape).ravel(),
    )
