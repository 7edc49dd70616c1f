"""Telephone audio: levels, voice activity, signal-to-noise ratio. Pure functions of numpy arrays.

Speech here is mono float32 in -1..1. Activity is measured on frames of 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

FRAME_MS = 10
#: Speech is at most this far below the loud frames; telephone speech spans about 30 dB.
_DYNAMIC_RANGE_DB = 38.0
#: With less between quiet and loud frames than this there is no telling speech from noise.
_LEAST_CONTRAST_DB = 6.0
#: mu-law knows two steps above this; speech that dwells on them is clipped.
_CLIP_LEVEL = 0.94
#: Below this level (dBFS) there is only silence: the idle pattern of a mu-law line lies near -72.
_SILENCE_DBFS = -60.0


@dataclass(frozen=True)
class Activity:
    """Where somebody speaks. ``mask`` has one bool a sample; the rest describes the whole recording."""

    mask: NDArray[np.bool_]
    net_speech_s: float
    snr_db: float
    clipped: float


def to_float(pcm: NDArray[np.generic]) -> Pcm:
    """int16 or float mono audio of shape (n,) as float32 in -1..1. Raises ValueError on any other shape."""
    if pcm.ndim != 1:
        raise ValueError(f"audio must be mono, of shape (n,), not {pcm.shape}")
    if pcm.dtype == np.int16:
        return (pcm.astype(np.float32)) / 32768.0
    return np.nan_to_num(np.clip(pcm.astype(np.float32), -1.0, 1.0))


def resample(speech: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """Polyphase resampling; the same array where the rates agree."""
    if from_hz == to_hz or not len(speech):
        return speech
    from scipy.signal import resample_poly  # slow to import, and most audio is at the rate that it is wanted at

    divisor = gcd(from_hz, to_hz)
    return np.asarray(resample_poly(speech, to_hz // divisor, from_hz // divisor), np.float32)


def frame_levels_db(speech: Pcm, sample_rate: int) -> NDArray[np.float64]:
    """Power of each 10 ms frame in dBFS, smoothed over three frames."""
    frame = sample_rate * FRAME_MS // 1000
    count = len(speech) // frame
    if not count:
        return np.zeros(0)
    power = (speech[: count * frame].reshape(count, frame).astype(np.float64) ** 2).mean(axis=1)
    return 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-10)


def activity(speech: Pcm, sample_rate: int, hangover_ms: int = 60) -> Activity:
    """Energy voice activity: a frame is speech when it lies well above the noise floor of its recording."""
    frame = sample_rate * FRAME_MS // 1000
    clipped = float((np.abs(speech) > _CLIP_LEVEL).mean()) if len(speech) else 0.0
    levels = frame_levels_db(speech, sample_rate)
    nothing = Activity(np.zeros(len(speech), bool), 0.0, 0.0, clipped)
    if len(levels) < 5:
        return nothing
    floor, loud = np.percentile(levels, 10), np.percentile(levels, 97)
    if loud < _SILENCE_DBFS:
        return nothing
    if loud - floor < _LEAST_CONTRAST_DB:  # even loudness: tightly cut speech, or noise; the two look alike
        return Activity(np.ones(len(speech), bool), len(speech) / sample_rate, float(loud - floor), clipped)
    speaking = levels > max(floor + 0.3 * (loud - floor), loud - _DYNAMIC_RANGE_DB, _SILENCE_DBFS)
    snr_db = _snr_db(levels, speaking)
    reach = hangover_ms // FRAME_MS
    padded = np.convolve(speaking, np.ones(2 * reach + 1), "same") > 0
    mask = np.zeros(len(speech), bool)
    mask[: len(levels) * frame] = np.repeat(padded, frame)
    return Activity(mask, float(speaking.sum()) * FRAME_MS / 1000, snr_db, clipped)


def _snr_db(levels: NDArray[np.float64], speaking: NDArray[np.bool_]) -> float:
    """Ratio of speech to noise power, where noise is the quieter half of the frames without speech."""
    power = 10 ** (levels / 10)
    quiet = np.sort(power[~speaking])
    noise = float(quiet[: max(1, len(quiet) // 2)].mean()) if len(quiet) else float(power.min())
    return float(np.clip(10 * np.log10(max(power[speaking].mean() / noise - 1, 1e-2)), -10.0, 60.0))
