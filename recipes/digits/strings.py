"""Strings of digits as one person says them, joined from isolated clips, and the noise and telephone they come through.

What is measured, calibrated and diagnosed is heard in these: here, so that it is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ivr.speech.audio import pcm_to_ulaw, to_pcm, ulaw_to_pcm
from ivr.speech.pan import is_complete

from .clips import Clip
from .evaluate import VALUE, Spoken, join

#: Signal-to-noise ratios at which everything is measured; None: no noise but the telephone's own.
CONDITIONS: dict[str, float | None] = {"clean": None, "15 dB": 15.0, "5 dB": 5.0}
CARD_DIGITS = 16
_TRIES = 5000

Words = Sequence[tuple[str, Clip]]
Number = Callable[[Words, np.random.Generator], str | None]


def digits(words: Words, length: int, rng: np.random.Generator) -> str:
    """Random digits of those that there are clips of; none twice in a row of which there is one clip only."""
    clips = [VALUE[word] for word, _ in words]
    names = sorted(set(clips))
    said = ""
    for _ in range(length):
        may = [n for n in names if n != said[-1:] or clips.count(n) > 1] or names
        said += may[rng.integers(len(may))]
    return said


def card_number(words: Words, rng: np.random.Generator) -> str | None:
    """A possible 16-digit card number of the digits that there are clips of; None when there seems to be none."""
    return next((n for _ in range(_TRIES) if is_complete(n := digits(words, CARD_DIGITS, rng))), None)


def several_digits(clips: Mapping[str, Words], at_least: int = 5) -> dict[str, Words]:
    """The people of whom there are so many different digits."""
    return {speaker: words for speaker, words in clips.items() if len({w for w, _ in words}) >= at_least}


def joined(clips: Mapping[str, Words], per_speaker: int, seed: int, number: Number = card_number) -> list[Spoken]:
    """So many strings of each person, as they are before any line; none of whom ``number`` finds none."""
    rng = np.random.default_rng(seed)
    spoken = []
    for speaker, words in sorted(clips.items()):
        for _ in range(per_speaker):
            if (wanted := number(words, rng)) is None:
                break
            samples, said, repeated = join(words, len(wanted), rng, wanted)
            spoken.append(Spoken(to_pcm(samples * 32767), said, speaker, repeated))
    return spoken


def through(spoken: Spoken, snr_db: float | None, rng: np.random.Generator) -> Spoken:
    """As it arrives: mu-law, after pink noise at ``snr_db`` below the RMS of the speech (None: none)."""
    samples = spoken.samples.astype(np.float64)
    if snr_db is not None:
        spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 20.0), len(samples))
        active = samples[np.abs(samples) > 328]  # a hundredth of full scale
        level = np.sqrt((active**2).mean()) if len(active) else 3277
        samples = samples + noise / noise.std() * level * 10 ** (-snr_db / 20)
    heard = ulaw_to_pcm(pcm_to_ulaw(to_pcm(samples)))
    return Spoken(heard, spoken.digits, spoken.speaker, spoken.repeated_clips)


def alone(clip: Clip, said: str, speaker: str) -> Spoken:
    """A recording as it is, half of full scale, with 0.3 s of near silence around."""
    around = 2400
    hiss = np.random.default_rng(len(clip.samples)).standard_normal(len(clip.samples) + 2 * around) * 1e-4
    return Spoken(to_pcm((np.pad(0.5 * clip.samples, around) + hiss) * 32767), said, speaker)
