"""From recordings of one person to a voiceprint, or the advice what to do better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import ModelError, PoorQuality
from voiceprint.utterance import Utterance, Voiceprint, pooled, unit


@dataclass(frozen=True)
class EnrolmentLimits:
    """What recordings must reach. Seconds of net speech, dB, share of clipped samples, cosine."""

    least_utterances: int = 3
    least_speech_each_s: float = 0.8
    least_speech_s: float = 4.0
    least_snr_db: float = 8.0
    most_clipped: float = 0.02
    #: Each recording against the others together. Below it, somebody else spoke.
    least_agreement: float = 0.3

    def of_an_addition(self) -> EnrolmentLimits:
        """For recordings that join a voiceprint: one will do, as good as each had to be."""
        return replace(self, least_utterances=1, least_speech_s=self.least_speech_each_s)


DEFAULT_LIMITS = EnrolmentLimits()
#: Recordings that a voiceprint is made of at most; of a voice that ages, the latest are kept.
MOST_UTTERANCES = 30


def enrol(utterances: Sequence[Utterance], limits: EnrolmentLimits = DEFAULT_LIMITS) -> Voiceprint:
    """A voiceprint from at least three recordings of random digits, best from several calls.

    Raises PoorQuality, whose ``advice`` is one of ``more_recordings``, ``speak_longer``, ``quieter_place``,
    ``speak_softer`` and ``one_person``; ModelError if the recordings were embedded by different models.
    """
    if len(utterances) < limits.least_utterances:
        raise PoorQuality("more_recordings", f"{len(utterances)} of {limits.least_utterances} recordings")
    if len({u.model_id for u in utterances}) > 1:
        raise ModelError("the recordings were embedded by different models; embed them again with one")
    _check_recordings(utterances, limits)
    _check_one_person(utterances, limits)
    vectors = np.stack([unit(u.vector) for u in utterances])
    return Voiceprint(vectors, utterances[0].model_id, sum(u.net_speech_s for u in utterances))


def extend(voiceprint: Voiceprint, later: Voiceprint, limits: EnrolmentLimits = DEFAULT_LIMITS) -> Voiceprint:
    """``voiceprint`` with the recordings of a later enrolment, best from other calls and telephones.

    Raises PoorQuality (``one_person``) if ``later`` is another voice, ModelError if another model embedded it.
    """
    if voiceprint.model_id != later.model_id:
        raise ModelError(
            f"the voiceprint was embedded by {voiceprint.model_id}, the recordings by {later.model_id}: enrol again"
        )
    _check_agreement(later.vectors @ voiceprint.vector, limits)
    joined = np.concatenate([voiceprint.vectors, later.vectors])
    vectors = joined[-MOST_UTTERANCES:]
    seconds = (voiceprint.net_speech_s + later.net_speech_s) * len(vectors) / len(joined)
    return Voiceprint(vectors, voiceprint.model_id, seconds)


def _check_recordings(utterances: Sequence[Utterance], limits: EnrolmentLimits) -> None:
    shortest, total = min(u.net_speech_s for u in utterances), sum(u.net_speech_s for u in utterances)
    if shortest < limits.least_speech_each_s or total < limits.least_speech_s:
        raise PoorQuality(
            "speak_longer", f"{total:.1f} s of speech, {shortest:.1f} s in the shortest recording"
        )
    noisiest = min(u.snr_db for u in utterances)
    if noisiest < limits.least_snr_db:
        raise PoorQuality(
            "quieter_place", f"{noisiest:.0f} dB signal-to-noise, {limits.least_snr_db:.0f} needed"
        )
    clipped = max(u.clipped for u in utterances)
    if clipped > limits.most_clipped:
        raise PoorQuality("speak_softer", f"{clipped:.1%} of a recording is clipped")


def _check_one_person(utterances: Sequence[Utterance], limits: EnrolmentLimits) -> None:
    if len(utterances) < 2:
        return
    others = [pooled([u for j, u in enumerate(utterances) if j != i]) for i in range(len(utterances))]
    _check_agreement([float(u.vector @ o) for u, o in zip(utterances, others, strict=True)], limits)


def _check_agreement(cosines: Sequence[float] | NDArray[np.float32], limits: EnrolmentLimits) -> None:
    for i, cosine in enumerate(cosines):
        if cosine < limits.least_agreement:
            raise PoorQuality("one_person", f"recording {i + 1} sounds like another person")
