"""Telephone channels, drawn independently for every crop and every side of a trial.

Each speaker of the corpora has one room and one microphone, so the recording gives the speaker away unless
it is made to vary: room, frequency response, background, level, pass band and codec are all random here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.data import SAMPLE_RATE, Clip

Pcm = NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """The ranges a channel is drawn from. Probabilities 0..1, levels in dB, frequencies in Hz."""

    noise: float = 0.0
    snr_db: tuple[float, float] = (10.0, 30.0)
    reverb: float = 0.0
    equaliser_db: float = 4.0
    low_hz: tuple[float, float] = (255.0, 345.0)
    high_hz: tuple[float, float] = (3250.0, 3550.0)
    band_pass: float = 1.0
    level_db: tuple[float, float] = (-32.0, -18.0)
    mu_law: float = 1.0


#: Wider than any telephone, for training.
TRAINING = Channels(
    noise=0.75, snr_db=(3.0, 32.0), reverb=0.4, equaliser_db=8.0, low_hz=(80.0, 380.0),
    high_hz=(3050.0, 3800.0), band_pass=0.85, level_db=(-34.0, -14.0), mu_law=0.7,
)  # fmt: skip
#: What trials are judged on: a telephone line, and one in a noisy place.
TELEPHONE = Channels()
NOISY_TELEPHONE = Channels(noise=1.0)


def transmit(
    speech: Pcm,
    channels: Channels,
    rng: np.random.Generator,
    noises: Sequence[Clip],
    others: Sequence[Pcm] = (),
) -> Pcm:
    """``speech`` as it arrives over a channel drawn from ``channels``; same shape.

    ``noises`` are recordings of backgrounds, ``others`` crops of other voices from which babble is made.
    """
    speech = speech * (0.1 / max(1e-4, rms(speech)))
    if channels.noise and rng.random() < channels.noise:
        noise = background(len(speech), rng, noises, others)
        speech = speech + noise * (0.1 * 10 ** (-rng.uniform(*channels.snr_db) / 20) / max(1e-6, rms(noise)))
    size = 1 << (len(speech) + 1200).bit_length()
    spectrum = np.fft.rfft(speech, size) * response(channels, rng, size)
    line = np.fft.irfft(spectrum, size)[: len(speech)]
    line *= 10 ** (rng.uniform(*channels.level_db) / 20) / max(1e-6, rms(line))
    return mu_law(line) if rng.random() < channels.mu_law else np.clip(line, -1, 1).astype(np.float32)


def rms(speech: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(speech)) + 1e-12))


def background(n: int, rng: np.random.Generator, noises: Sequence[Clip], others: Sequence[Pcm]) -> Pcm:
    """``n`` samples of a recorded noise, of coloured noise, or of several people talking at once."""
    kind = rng.random()
    if kind < 0.25 and len(others) >= 3:
        return np.sum([others[i] for i in rng.integers(0, len(others), 4)], axis=0)[::-1][:n]
    if kind < 0.8 and noises:
        noise = noises[int(rng.integers(len(noises)))]
        if len(noise) < n:
            noise = np.tile(noise, n // len(noise) + 1)
        start = int(rng.integers(0, len(noise) - n + 1))
        return noise[start : start + n].astype(np.float32) / 32768
    white = np.fft.rfft(rng.standard_normal(n).astype(np.float32))
    tilt = (1 + np.arange(len(white)) / len(white) * 40) ** -rng.uniform(0, 1.2)
    return np.fft.irfft(white * tilt, n).astype(np.float32)


def response(channels: Channels, rng: np.random.Generator, size: int) -> NDArray[np.complex128]:
    """The frequency response of room, microphone and line for an FFT of ``size`` points."""
    hz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 1.0)
    knots = np.geomspace(150, 3800, int(rng.integers(4, 9)))
    gain_db = rng.uniform(-channels.equaliser_db, channels.equaliser_db, len(knots))
    gain = 10 ** (np.interp(np.log(hz), np.log(knots), gain_db) / 20)
    if rng.random() < channels.band_pass:
        low, high = rng.uniform(*channels.low_hz), rng.uniform(*channels.high_hz)
        gain = gain / np.sqrt(1 + (low / hz) ** rng.integers(4, 12)) / np.sqrt(1 + (hz / high) ** rng.integers(12, 50))
    if channels.reverb and rng.random() < channels.reverb:
        return gain * np.fft.rfft(room(rng), size)
    return gain.astype(np.complex128)


def room(rng: np.random.Generator) -> NDArray[np.float64]:
    """An impulse response: direct sound and an exponentially decaying tail (at most 140 ms are kept)."""
    decay_s = rng.uniform(0.08, 0.5)
    n = int(min(decay_s, 0.14) * SAMPLE_RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / SAMPLE_RATE / decay_s)
    tail *= np.sqrt(10 ** (-rng.uniform(2, 18) / 10) / np.sum(tail**2))
    tail[0] = 1.0
    return tail


def mu_law(speech: NDArray[np.floating]) -> Pcm:
    """There and back through 8-bit mu-law (the companding curve of G.711)."""
    squeezed = np.log1p(255 * np.minimum(np.abs(speech), 1)) / np.log(256)
    squeezed = np.round(squeezed * 127) / 127
    return (np.sign(speech) * (256**squeezed - 1) / 255).astype(np.float32)
