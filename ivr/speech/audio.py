"""Telephone audio: G.711 mu-law and 16-bit PCM, and recordings read as the telephone would bring them."""

from __future__ import annotations

from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 8000
FRAME_MS = 20
FRAME_BYTES = SAMPLE_RATE * FRAME_MS // 1000

Pcm = NDArray[np.int16]

_BIAS = 0x84  # G.711: the bias that makes every segment a power of two
_CLIP = 32635


class AudioError(Exception):
    """A recording that cannot be used; the message names the file and says why."""


def _decoding_table() -> Pcm:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + _BIAS) << ((code & 0x70) >> 4)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


_DECODED = _decoding_table()


def ulaw_to_pcm(data: bytes) -> Pcm:
    """G.711 mu-law to int16 PCM, one sample a byte."""
    pcm: Pcm = _DECODED[np.frombuffer(data, dtype=np.uint8)]
    return pcm


def pcm_to_ulaw(pcm: Pcm) -> bytes:
    """int16 PCM to G.711 mu-law, one byte a sample."""
    samples = pcm.astype(np.int32)
    magnitude = np.minimum(np.abs(samples), _CLIP) + _BIAS
    segment = np.frexp(magnitude.astype(np.float64))[1].astype(np.int32) - 8  # 0 for 0x84..0xff, ..., 7
    code = (segment << 4) | ((magnitude >> (segment + 3)) & 0x0F) | np.where(samples < 0, 0x80, 0)
    return (~code & 0xFF).astype(np.uint8).tobytes()


def to_pcm(samples: NDArray[np.float64]) -> Pcm:
    """Samples on the scale of int16, rounded and clipped."""
    pcm: Pcm = np.clip(np.round(samples), -32768, 32767).astype(np.int16)
    return pcm


def read_audio(path: Path | str) -> Pcm:
    """A WAV or FLAC file of any rate and any number of channels, as int16 mono at 8 kHz.

    Raises AudioError when it is missing, is no recording, or holds no sound.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (OSError, RuntimeError) as error:
        reason = "there is no such file" if not Path(path).exists() else "not a readable WAV or FLAC recording"
        raise AudioError(f"{path}: {reason}") from error
    if not len(samples):
        raise AudioError(f"{path}: the recording is empty")
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        from scipy.signal import resample_poly  # slow to import, and most recordings are of a telephone

        common = gcd(rate, SAMPLE_RATE)
        mono = resample_poly(mono, SAMPLE_RATE // common, rate // common)
    return to_pcm(mono * 32768)
