"""From scores of labelled trials to a calibration, a threshold and limits, and their record in the model folder.

``calibration.json`` says, beside what a :class:`~voiceprint.scoring.Scorer` needs, which trials it comes from and how
many of them fall on either side of the threshold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from voiceprint import manifest
from voiceprint.backend import BACKEND, Floats
from voiceprint.enrolment import EnrolmentLimits
from voiceprint.errors import ListError
from voiceprint.scoring import CALIBRATION, Calibration, QualityLimits

#: The share of development impostor trials that may pass. A call may have three attempts, and shall let a
#: stranger pass at most once in a thousand calls; strangers are of either sex, so one of the same sex passes
#: about twice as often.
FALSE_MATCH_RATE = 0.001 / 3
#: Inside one call, a second look after verification: cheaper to be wrong about.
CONTINUITY_FALSE_MATCH_RATE = 0.05
QUALITY = QualityLimits(least_speech_s=2.0, least_snr_db=6.0, most_clipped=0.05)
CONTINUITY_QUALITY = QualityLimits(least_speech_s=0.7, least_snr_db=6.0, most_clipped=0.05)
#: The share of a person's own recordings that may look like another's when she enrols.
AGREEMENT_QUANTILE = 0.02


@dataclass
class Trials:
    """Arrays of shape (n,): score of the two sides, seconds of tested speech, whether same speaker."""

    score: Floats
    speech_s: Floats
    same: NDArray[np.bool_]

    def __getitem__(self, which: NDArray[np.bool_]) -> Trials:
        return Trials(self.score[which], self.speech_s[which], self.same[which])

    @classmethod
    def joined(cls, parts: Sequence[Trials]) -> Trials:
        columns = ([getattr(part, name) for part in parts] for name in ("score", "speech_s", "same"))
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True)
class Measured:
    """What a calibration is made of: trials of calls, pairs of turns, and cosines of one person's own recordings."""

    verification: Trials
    continuity: Trials
    agreements: Floats


def fit(trials: Trials, false_match_rate: float) -> Calibration:
    """Logistic regression, at even odds, on score and log seconds; then the threshold for the rate."""
    most_s = float(np.percentile(trials.speech_s, 95))
    log_s = np.log(np.clip(trials.speech_s, 0.1, most_s))
    columns = np.stack([np.ones_like(log_s), trials.score, log_s, trials.score * log_s], axis=1)
    sign = np.where(trials.same, 1.0, -1.0)
    share = np.where(trials.same, 0.5 / trials.same.sum(), 0.5 / (~trials.same).sum())

    def cost(w: Floats) -> float:
        return float((share * np.logaddexp(0, -sign * (columns @ w))).sum() + 1e-5 * (w @ w))

    bias, weight, by_log_s, weight_by_log_s = (float(round(x, 4)) for x in minimize(cost, np.zeros(4)).x)
    llr = columns @ np.array([bias, weight, by_log_s, weight_by_log_s])
    threshold = round(float(np.quantile(llr[~trials.same], 1 - false_match_rate)) + 0.005, 2)
    return Calibration(bias, weight, by_log_s, weight_by_log_s, threshold, round(most_s, 2))


def rates(trials: Trials, calibration: Calibration) -> dict[str, Any]:
    """Counts on either side of the threshold, for the record."""
    accepted = calibration.llr(trials.score, trials.speech_s) >= calibration.threshold
    return {
        "genuine": int(trials.same.sum()),
        "genuine_rejected": int((trials.same & ~accepted).sum()),
        "impostor": int((~trials.same).sum()),
        "impostor_accepted": int((~trials.same & accepted).sum()),
    }


def write(
    model_dir: Path,
    measured: Measured,
    *,
    speakers: int,
    material: str,
    false_match_rate: float = FALSE_MATCH_RATE,
) -> dict[str, Any]:
    """Fits, writes ``calibration.json`` into ``model_dir`` and pins it in the manifest; returns what was written.

    Raises ListError if the trials are too few for the rate: the threshold would lie where nobody was seen.
    """
    pinned = manifest.verify(model_dir)
    trials, continuity = measured.verification, measured.continuity
    needed = round(3 / false_match_rate)
    if (~trials.same).sum() < needed:
        raise ListError(
            f"{(~trials.same).sum()} impostor trials cannot show a false match rate of {false_match_rate:.2g}:"
            f" {needed} are needed, so record more speakers or ask for less"
        )
    verify, follow = fit(trials, false_match_rate), fit(continuity, CONTINUITY_FALSE_MATCH_RATE)
    longer = trials[trials.speech_s >= np.median(trials.speech_s)]
    agreement = max(0.0, float(np.quantile(measured.agreements, AGREEMENT_QUANTILE)))
    written = {
        "model_id": pinned.model_id,
        "backend": pinned.files.get(BACKEND),
        "sample_rate": pinned.sample_rate,
        "speakers": speakers,
        "material": material,
        "verification": {
            "calibration": asdict(verify), "quality": asdict(QUALITY), "false_match_rate": false_match_rate,
            "all": rates(trials, verify), "longer_half": rates(longer, verify),
        },
        "continuity": {
            "calibration": asdict(follow), "quality": asdict(CONTINUITY_QUALITY),
            "false_match_rate": CONTINUITY_FALSE_MATCH_RATE, "all": rates(continuity, follow),
        },
        "enrolment": asdict(EnrolmentLimits(least_agreement=round(agreement, 3))),
    }  # fmt: skip
    manifest.add(model_dir, pinned, CALIBRATION, (json.dumps(written, indent=2) + "\n").encode())
    return written
