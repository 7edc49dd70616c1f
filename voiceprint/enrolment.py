"""From recordings of one person to a voiceprint, or the advice what to do better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from voiceprint.errors import ModelError, PoorQuality
from voiceprint.utterance import Utterance, Vector, Voiceprint, pooled, unit

#: Log-likelihood ratio, in nats, that a voice spoke a recording of so many seconds: ``Scorer.llr``.
Llr = Callable[[Vector, Vector, float], float]


@dataclass(frozen=True)
class EnrolmentLimits:
    """What recordings must reach. Seconds of net speech, dB, share of clipped samples, nats, cosine."""

    least_utterances: int = 3
    least_speech_each_s: float = 0.8
    least_speech_s: float = 4.0
    least_snr_db: float = 8.0
    most_clipped: float = 0.02
    #: Each recording against the others together. Below it, somebody else spoke. On development speakers one in
    #: thirty of a person's own recordings from another call is below, as with the cosine, and a third fewer strangers
    #: are above: they are as alike in their cosine for what all voices on a telephone have in common.
    least_llr: float = -1.1
    #: The same as a cosine, for whoever has no calibrated score.
    least_agreement: float = 0.3

    def of_an_addition(self) -> EnrolmentLimits:
        """For recordings that join a voiceprint: one will do, as good as each had to be."""
        return replace(self, least_utterances=1, least_speech_s=self.least_speech_each_s)


DEFAULT_LIMITS = EnrolmentLimits()
#: Recordings that a voiceprint is made of at most; of a voice that ages, the latest are kept.
MOST_UTTERANCES = 30


def enrol(
    utterances: Sequence[Utterance], limits: EnrolmentLimits = DEFAULT_LIMITS, llr: Llr | None = None
) -> Voiceprint:
    """A voiceprint from at least three recordings of random digits, best from several calls.

    With the model's ``Scorer.llr`` whether one person spoke is decided by that, else by the cosine.
    Raises PoorQuality, whose ``advice`` is one of ``more_recordings``, ``speak_longer``, ``quieter_place``,
    ``speak_softer`` and ``one_person``; ModelError if the recordings were embedded by different models.
    """
    if len(utterances) < limits.least_utterances:
        raise PoorQuality("more_recordings", f"{len(utterances)} of {limits.least_utterances} recordings")
    if len({u.model_id for u in utterances}) > 1:
        raise ModelError("the recordings were embedded by different models; embed them again with one")
    _check_recordings(utterances, limits)
    if len(utterances) > 1:
        others = (pooled([*utterances[:i], *utterances[i + 1 :]]) for i in range(len(utterances)))
        each = ((other, u.vector, u.net_speech_s) for other, u in zip(others, utterances, strict=True))
        _check_one_voice(each, limits, llr)
    vectors = np.stack([unit(u.vector) for u in utterances])
    return Voiceprint(vectors, utterances[0].model_id, sum(u.net_speech_s for u in utterances))


def extend(
    voiceprint: Voiceprint, later: Voiceprint, limits: EnrolmentLimits = DEFAULT_LIMITS, llr: Llr | None = None
) -> Voiceprint:
    """``voiceprint`` with the recordings of a later enrolment, best from other calls and telephones.

    ``llr`` as in :func:`enrol`.
    Raises PoorQuality (``one_person``) if ``later`` is another voice, ModelError if another model embedded it.
    """
    if voiceprint.model_id != later.model_id:
        raise ModelError(
            f"the voiceprint was embedded by {voiceprint.model_id}, the recordings by {later.model_id}: enrol again"
        )
    each_s = later.net_speech_s / later.utterances
    _check_one_voice(((voiceprint.vector, vector, each_s) for vector in later.vectors), limits, llr)
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


def _check_one_voice(
    recordings: Iterable[tuple[Vector, Vector, float]], limits: EnrolmentLimits, llr: Llr | None
) -> None:
    """Of each the voice that it should be, its own vector, and its seconds of speech."""
    for i, (voice, vector, speech_s) in enumerate(recordings, 1):
        if llr:
            alike = llr(voice, vector, speech_s) >= limits.least_llr
        else:
            alike = float(voice @ vector) >= limits.least_agreement
        if not alike:
            raise PoorQuality("one_person", f"recording {i} sounds like another person")
