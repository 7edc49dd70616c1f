"""Whether each part of the back end earns its keep, on development speakers only.

    python -m recipes.voiceprint.compare --speech ../shared/speech --model models/voice

Trials and lines are those of ``calibrate``. Every way of comparing is calibrated on four fifths of the speakers and
judged on the rest, five times over; the intervals, and those of the differences from the plain cosine, resample
speakers, the same for all.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.backend import fit_backend, labelled_embeddings
from recipes.voiceprint.calibrate import Round, rounds_of_calls, verification_trials
from recipes.voiceprint.data import load_noises, load_speakers
from voiceprint import Encoder
from voiceprint.backend import Cosine, Sides, TwoCovariances
from voiceprint.calibration import FALSE_MATCH_RATE, Trials, fit
from voiceprint.metrics import Ranked, TrialScores, cllr, equal_error_rate, error_curve, fnmr_at, min_dcf

FOLDS, RESAMPLES = 5, 200
FIGURES = ("EER", "FNMR at 1 %", "FNMR at 0.1 %", "FNMR at 1 in 3,000", "minDCF", "Cllr")


class Projected(Cosine):
    """The cosine along the axes of the back end, all of them counting alike."""

    def __init__(self, fitted: TwoCovariances) -> None:
        self._fitted = fitted

    def sides(self, vectors: NDArray[np.float32]) -> Sides:
        return super().sides(self._fitted.project(vectors))


def ways(fitted: TwoCovariances) -> dict[str, Cosine]:
    """The plain cosine, that of centred embeddings, that along the axes, and the back end."""
    centred = replace(fitted, projection=np.eye(len(fitted.mean), dtype=np.float32))
    return {
        "cosine": Cosine(),
        "centred": Projected(centred),
        "projected": Projected(fitted),
        "two covariances": fitted,
    }


def judged(comparing: Cosine, rounds: list[Round]) -> TrialScores:
    """Log-likelihood ratios of all trials, each by a calibration that did not know its caller."""
    trials = Trials.joined([verification_trials(comparing, *one) for one in rounds])
    enrolled = np.concatenate([np.tile([e.speaker for e in enrolments], len(calls)) for enrolments, calls in rounds])
    tested = np.concatenate([np.repeat([c.speaker for c in calls], len(enrolments)) for enrolments, calls in rounds])
    fold = np.random.default_rng(0).integers(0, FOLDS, int(enrolled.max()) + 1)
    llr = np.zeros(len(enrolled))
    for number in range(FOLDS):
        known = (fold[enrolled] != number) & (fold[tested] != number)
        asked = fold[tested] == number
        llr[asked] = fit(trials[known], FALSE_MATCH_RATE).llr(trials.score[asked], trials.speech_s[asked])
    return TrialScores(llr, trials.same, enrolled, tested)


def figures(ranked: Ranked, weight: NDArray[np.float64]) -> list[float]:
    fnmr, fmr = error_curve(*ranked.steps(weight))
    missed = [fnmr_at(fnmr, fmr, rate) for rate in (0.01, 0.001, FALSE_MATCH_RATE)]
    return [equal_error_rate(fnmr, fmr), *missed, min_dcf(fnmr, fmr), cllr(ranked, weight)]


def compare(rounds: list[Round], fitted: TwoCovariances) -> None:
    """Prints figure, interval, and interval of the difference from the cosine, for every way."""
    plain: NDArray[np.float64] | None = None
    for name, comparing in ways(fitted).items():
        ranked = Ranked(judged(comparing, rounds))
        values = figures(ranked, np.ones(len(ranked.same)))
        drawn = np.array([figures(ranked, weight) for weight in ranked.draws(RESAMPLES)])
        plain = drawn if plain is None else plain
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        less, more = np.percentile(drawn - plain, [2.5, 97.5], axis=0)
        print(name)
        for i, figure in enumerate(FIGURES):
            print(
                f"  {figure:20} {values[i]:.3f} [{low[i]:.3f} to {high[i]:.3f}]"
                f"   against cosine [{less[i]:+.3f} to {more[i]:+.3f}]",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    args = parser.parse_args()
    speakers, development = load_speakers(args.speech)
    encoder, noises = Encoder.load(args.model), load_noises(args.speech)
    compare(rounds_of_calls(encoder, development, noises), fit_backend(*labelled_embeddings(encoder, speakers, noises)))


if __name__ == "__main__":
    main()
