"""From embeddings to a decision: a calibrated log-likelihood ratio against a threshold, quality first.

The score of two embeddings (``backend``) means something else for every model, channel and duration. Logistic
regression on development trials turns it, with the seconds of speech, into log P(score | same) / P(score | different);
weights, threshold and the trials they come from stand in the model folder's ``calibration.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint import backend
from voiceprint.backend import BACKEND, Cosine, Floats, Sides, compare
from voiceprint.enrolment import EnrolmentLimits
from voiceprint.errors import ModelError
from voiceprint.manifest import verify
from voiceprint.utterance import Utterance, Vector, Voiceprint, pooled

CALIBRATION = "calibration.json"


class Outcome(Enum):
    MATCH = "match"
    NO_MATCH = "no_match"
    #: The recording cannot tell: too short, too noisy or clipped. Says nothing about the person.
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Decision:
    """``llr`` in nats; ``reason`` for the audit, never to be spoken."""

    outcome: Outcome
    llr: float
    reason: str


@dataclass(frozen=True)
class Calibration:
    """``llr = bias + (weight + weight_by_log_s * log seconds) * score + by_log_s * log seconds``."""

    bias: float
    weight: float
    by_log_s: float
    weight_by_log_s: float
    threshold: float
    #: Beyond this, more speech is not extrapolated to mean more certainty.
    most_speech_s: float

    def llr(self, score: Floats, speech_s: Floats) -> Floats:
        """Of many trials, arrays of shape (n,), in nats."""
        log_s = np.log(np.clip(speech_s, 0.1, self.most_speech_s))
        return self.bias + self.by_log_s * log_s + (self.weight + self.weight_by_log_s * log_s) * score

    @classmethod
    def from_json(cls, data: dict[str, float]) -> Calibration:
        """Also of files written when every score was a cosine."""
        return cls(**{_EARLIER_NAMES.get(name, name): value for name, value in data.items()})


_EARLIER_NAMES = {"cosine_weight": "weight", "cosine_by_log_s": "weight_by_log_s"}


@dataclass(frozen=True)
class QualityLimits:
    """Below these a comparison is not worth making. Seconds of net speech, dB, share of samples."""

    least_speech_s: float
    least_snr_db: float
    most_clipped: float

    def objection(self, utterances: Sequence[Utterance]) -> str | None:
        """Why these recordings cannot be judged, or None."""
        speech_s = sum(u.net_speech_s for u in utterances)
        if speech_s < max(self.least_speech_s, 0.01):
            return f"too short: {speech_s:.1f} s of speech, {self.least_speech_s:.1f} needed"
        snr_db = sum(u.snr_db * u.net_speech_s for u in utterances) / speech_s
        if snr_db < self.least_snr_db:
            return f"too noisy: {snr_db:.0f} dB, {self.least_snr_db:.0f} needed"
        clipped = sum(u.clipped * u.net_speech_s for u in utterances) / speech_s
        if clipped > self.most_clipped:
            return f"clipped: {clipped:.1%} of the samples"
        return None


class Pairs:
    """Many voiceprints against many recordings, ready to be scored in any combination."""

    def __init__(self, calibration: Calibration, people: Sides, tested: Sides, speech_s: Floats) -> None:
        self._calibration, self._people, self._tested, self._speech_s = calibration, people, tested, speech_s

    def llr(self, person: NDArray[np.int64], test: NDArray[np.int64]) -> Floats:
        """Of voiceprint ``person[i]`` against recording ``test[i]``, shape (n,)."""
        return self._calibration.llr(compare(self._people[person], self._tested[test]), self._speech_s[test])


@dataclass(frozen=True)
class Scorer:
    """Decides who speaks. Immutable and cheap; safe to share."""

    model_id: str
    verification: Calibration
    continuity: Calibration
    quality: QualityLimits
    continuity_quality: QualityLimits
    enrolment_limits: EnrolmentLimits
    backend: Cosine = field(default_factory=Cosine)

    @classmethod
    def load(cls, model_dir: Path) -> Scorer:
        """Reads ``calibration.json`` and the back end of a model folder. ModelError if missing or another's."""
        model_dir = Path(model_dir)
        manifest = verify(model_dir)
        if CALIBRATION not in manifest.files:
            raise ModelError(
                f"{model_dir} has no {CALIBRATION}: a threshold of another model is worse than none;"
                " calibrate on your own labelled telephone recordings (voiceprint calibrate)"
            )
        data = json.loads((model_dir / CALIBRATION).read_text(encoding="utf-8"))
        scorer = cls.from_json(data, backend.load(model_dir, manifest))
        if scorer.model_id != manifest.model_id:
            raise ModelError(
                f"{CALIBRATION} is of model {scorer.model_id}, the folder of {manifest.model_id}"
            )
        if data.get("backend") != manifest.files.get(BACKEND):
            raise ModelError(f"{CALIBRATION} was made with another {BACKEND}, or without one: calibrate again")
        return scorer

    @classmethod
    def from_json(cls, data: dict[str, Any], comparing: Cosine) -> Scorer:
        try:
            return cls(
                data["model_id"],
                Calibration.from_json(data["verification"]["calibration"]),
                Calibration.from_json(data["continuity"]["calibration"]),
                QualityLimits(**data["verification"]["quality"]),
                QualityLimits(**data["continuity"]["quality"]),
                EnrolmentLimits(**data["enrolment"]),
                comparing,
            )
        except (KeyError, TypeError) as error:
            raise ModelError(f"{CALIBRATION} is incomplete ({error}); calibrate the model again") from error

    def score(self, voiceprint: Voiceprint, utterances: Sequence[Utterance]) -> Decision:
        """Whether ``utterances``, all of one caller, are the person of ``voiceprint``.

        Raises ModelError if any of them was embedded by another model than this scorer was calibrated for.
        """
        self._same_model(voiceprint.model_id, *(u.model_id for u in utterances))
        if not utterances:
            return Decision(Outcome.INCONCLUSIVE, 0.0, "no recording")
        speech_s = sum(u.net_speech_s for u in utterances)
        objection = self.quality.objection(utterances)
        return self._decide(voiceprint.vector, pooled(utterances), speech_s, self.verification, objection)

    def llr(self, voice: Vector, heard: Vector, speech_s: float) -> float:
        """Log P(both | one voice) / P(both | two voices) of one comparison, in nats, whatever the quality."""
        return self._llr(voice, heard, speech_s, self.verification)

    def pairs(self, people: Sequence[Voiceprint], tested: Sequence[Utterance]) -> Pairs:
        """For scores of many trials, as :meth:`score` gives them. Raises ModelError as it does."""
        self._same_model(*(p.model_id for p in people), *(u.model_id for u in tested))
        return Pairs(
            self.verification,
            self.backend.sides(np.stack([p.vector for p in people])),
            self.backend.sides(np.stack([u.vector for u in tested])),
            np.array([u.net_speech_s for u in tested]),
        )

    def best_match(
        self, watched: Mapping[str, Voiceprint], utterances: Sequence[Utterance]
    ) -> tuple[str, Decision] | None:
        """Which of a few known voices this is, by its name, and how surely; None if it is none of them."""
        scored = {name: self.score(voiceprint, utterances) for name, voiceprint in watched.items()}
        matches = {name: decision for name, decision in scored.items() if decision.outcome is Outcome.MATCH}
        best = max(matches, key=lambda name: matches[name].llr, default=None)
        return None if best is None else (best, matches[best])

    def same_speaker(self, a: Utterance, b: Utterance) -> Decision:
        """Whether two turns of one call were spoken by one person, as card turn and challenge should be."""
        self._same_model(a.model_id, b.model_id)
        limits = self.continuity_quality
        objection = limits.objection([a]) or limits.objection([b])
        return self._decide(a.vector, b.vector, min(a.net_speech_s, b.net_speech_s), self.continuity, objection)

    def _same_model(self, *model_ids: str) -> None:
        other = set(model_ids) - {self.model_id}
        if other:
            raise ModelError(
                f"embedded by {', '.join(sorted(other))}, scored for {self.model_id}:"
                " enrol again with this model"
            )

    def _llr(self, a: Vector, b: Vector, speech_s: float, calibration: Calibration) -> float:
        score = compare(self.backend.sides(a[None]), self.backend.sides(b[None]))
        return float(calibration.llr(score, np.array([speech_s]))[0])

    def _decide(
        self, a: Vector, b: Vector, speech_s: float, calibration: Calibration, objection: str | None
    ) -> Decision:
        llr = self._llr(a, b, speech_s, calibration)
        if objection:
            return Decision(Outcome.INCONCLUSIVE, llr, objection)
        outcome = Outcome.MATCH if llr >= calibration.threshold else Outcome.NO_MATCH
        sign = ">=" if outcome is Outcome.MATCH else "<"
        return Decision(
            outcome, llr, f"llr {llr:.2f} {sign} {calibration.threshold:.2f} on {speech_s:.1f} s of speech"
        )
