"""Digit strings joined from clips, and telephone calls made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.channel import NOISY_TELEPHONE, TELEPHONE, transmit
from recipes.voiceprint.data import SAMPLE_RATE, Clip


def string(clips: Sequence[Clip], digits: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """``digits`` clips in random order, each as often as the others, with gaps as people make them."""
    order = np.concatenate([rng.permutation(len(clips)) for _ in range(digits // len(clips) + 1)])[:digits]
    parts = [p for i in order for p in (clips[i], np.zeros(int(rng.uniform(0, 0.25) * SAMPLE_RATE), np.int16))]
    return np.concatenate(parts).astype(np.float32) / 32768


def over_one_line(
    strings: list[NDArray[np.float32]], noisy: bool, noises: list[Clip], rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Strings with pauses between, through one channel drawn for them, cut apart again."""
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    levelled = [s * (0.1 / max(1e-4, float(np.sqrt((s**2).mean())))) for s in strings]
    session = np.concatenate([part for s in levelled for part in (s, pause)])
    heard = transmit(session, NOISY_TELEPHONE if noisy else TELEPHONE, rng, noises)
    ends = np.cumsum([len(s) + len(pause) for s in strings])
    return np.split(heard, ends[:-1])
