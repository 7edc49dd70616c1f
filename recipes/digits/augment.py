"""What the telephone, the room and the speaker do to a voice. Float32 samples at 8 kHz throughout."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import soundfile as sf

SAMPLE_RATE = 8000
#: GSM 06.10 is the full-rate codec of mobile telephones; twice in a row, as between two networks, is the nearest to
#: the damage of AMR that comes with a free licence. The codecs of a call, its share; else linear.
_CODECS = (
    (("ULAW",), 0.4),
    (("ALAW",), 0.15),
    (("GSM610",), 0.1),
    (("GSM610", "GSM610"), 0.06),
    (("ALAW", "ULAW"), 0.04),
)


def resample(samples: np.ndarray, factor: float) -> np.ndarray:
    """Faster and higher by ``factor``: another vocal tract, another tempo."""
    positions = np.arange(int(len(samples) / factor)) * factor
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def change_tempo(samples: np.ndarray, factor: float) -> np.ndarray:
    """Faster by ``factor`` at the same pitch (WSOLA: 40 ms windows laid where they fit the last one)."""
    window, hop, search = 320, 160, 60
    if len(samples) < 2 * window or abs(factor - 1) < 0.03:
        return samples
    fade = np.hanning(window + 1)[:window].astype(np.float32)
    length = int(len(samples) / factor)
    out = np.zeros(length + window, np.float32)
    out[:hop] = samples[:hop] * fade[hop:]  # the first half window has no predecessor
    last = 0
    for start in range(0, length - hop, hop):
        at = int(start * factor)
        if start and last + hop + window <= len(samples):
            low, high = max(0, at - search), min(len(samples) - window, at + search)
            if high > low:
                wanted = samples[last + hop : last + hop + window]
                at = low + int(np.correlate(samples[low : high + window], wanted, "valid").argmax())
        piece = samples[at : at + window]
        out[start : start + len(piece)] += piece * fade[: len(piece)]
        last = at
    return out[:length]


def band_limit(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone's band and a device's tilt."""
    spectrum = np.fft.rfft(samples)
    hz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    low, high = rng.uniform(50, 350), rng.uniform(2900, 3950)
    gain = 1 / (1 + (low / np.maximum(hz, 1)) ** 6) / (1 + (hz / high) ** 20)
    gain *= (np.maximum(hz, 50) / 1000) ** rng.uniform(-0.5, 0.6)
    return np.fft.irfft(spectrum * gain, len(samples)).astype(np.float32)


def reverberate(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room: a decaying noise tail of 50 ... 400 ms after the direct sound."""
    length = int(SAMPLE_RATE * rng.uniform(0.05, 0.4))
    response = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    response[0] = rng.uniform(3, 12)
    size = len(samples) + 4096
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
    return (wet / (np.abs(wet).max() + 1e-9)).astype(np.float32)


class NoiseBank:
    """A minute each of synthetic, recorded and babble noise, cut anywhere."""

    def __init__(
        self, noises: Sequence[np.ndarray], voices: Sequence[np.ndarray], rng: np.random.Generator
    ) -> None:
        size = 60 * SAMPLE_RATE
        self._rng = rng
        self._bank = [self._coloured(size, slope) for slope in (0, 0, 0.5, 0.5, 1.0)]
        self._bank += [n for n in noises if len(n) > 10 * SAMPLE_RATE]
        for talkers in (1, 2, 3, 5, 8):
            lines = [
                np.concatenate([voices[i] for i in rng.permutation(len(voices))[:8]]) for _ in range(talkers)
            ]
            self._bank.append(np.sum([np.resize(line, size) for line in lines], axis=0))

    def _coloured(self, size: int, slope: float) -> np.ndarray:
        spectrum = np.fft.rfft(self._rng.standard_normal(size))
        return np.fft.irfft(spectrum / (np.arange(len(spectrum)) + size / 400) ** slope, size)

    def cut(self, length: int) -> np.ndarray:
        """``length`` samples of some noise at an RMS of 1."""
        noise = self._bank[self._rng.integers(len(self._bank))]
        start = self._rng.integers(len(noise) - length)
        piece = noise[start : start + length].astype(np.float32)
        return piece / (piece.std() + 1e-9)


def code(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a telephone codec and back; clips at +-1."""
    samples = np.clip(samples, -1, 1)
    draw = rng.random()
    for codecs, probability in _CODECS:
        if 0 <= draw < probability:
            for codec in codecs:
                samples = _coded(samples, codec)
        draw -= probability
    return samples


def _coded(samples: np.ndarray, codec: str) -> np.ndarray:
    buffer = io.BytesIO()
    sf.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype=codec)
    buffer.seek(0)
    return np.resize(sf.read(buffer, dtype="float32")[0], len(samples))


def lose_packets(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lose 1 ... 8 % of 20 ms packets, some in a row; each is silent or says the last one again, more quietly."""
    packet, share, repeated = SAMPLE_RATE // 50, rng.uniform(0.01, 0.08), rng.random() < 0.6
    out = samples.copy()
    lost = False
    for start in range(packet, len(out) - packet, packet):
        lost = rng.random() < (0.4 if lost else share)
        if lost:
            out[start : start + packet] = 0.7 * out[start - packet : start] if repeated else 0
    return out
