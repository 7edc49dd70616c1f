"""Voices as another encoder hears them, clean: what the student is taught to hear over the telephone.

The teacher is the encoder in the package ``resemblyzer`` (Apache-2.0; GE2E of Wan et al. 2018, 256 numbers, trained on
8,371 other speakers of LibriSpeech and VoxCeleb). It is poor over a telephone line and good without one.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly

from recipes.voiceprint.data import SAMPLE_RATE, SPEEDS, CropSampler

#: It hears windows of 1.6 s; so many of a speaker are enough.
WINDOW_S, MOST_WINDOWS, BATCH = 1.6, 3, 64


def resemblyzer() -> ModuleType:
    """The package, which asks webrtcvad, which asks a module for its version that setuptools no longer has."""
    stand_in = ModuleType("pkg_resources")
    stand_in.get_distribution = lambda _: SimpleNamespace(version="")  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", stand_in)
    import resemblyzer as package

    return package


def targets(sampler: CropSampler) -> NDArray[np.float32]:
    """The teacher's mean embedding of every class, of unit length, shape (classes, 256)."""
    package = resemblyzer()
    teacher = package.VoiceEncoder("cpu", verbose=False)
    found = np.zeros((sampler.classes, 256), np.float32)
    waiting: list[tuple[int, NDArray[np.float32]]] = []

    def hear() -> None:
        with torch.no_grad():
            heard = teacher(torch.from_numpy(np.stack([mels for _, mels in waiting]))).numpy()
        np.add.at(found, [label for label, _ in waiting], heard)
        waiting.clear()

    for label in range(sampler.classes):
        waiting += [(label, mels) for mels in _windows(sampler, label, package)]
        if len(waiting) >= BATCH:
            hear()
    if waiting:
        hear()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _windows(sampler: CropSampler, label: int, package: Any) -> list[NDArray[np.float32]]:
    """Mel windows of shape (160, 40) of a class's clips, joined as they are, and said again where they are short."""
    speed, speaker = divmod(label, len(sampler.speakers))
    up, down = SPEEDS[speed]
    most = int(MOST_WINDOWS * WINDOW_S * SAMPLE_RATE * down / up)
    joined = np.concatenate([clip[:most] for clip in sampler.speakers[speaker].clips])[:most]
    speech = resample_poly(joined.astype(np.float32) / 32768, 2 * up, down)
    window = int(WINDOW_S * 2 * SAMPLE_RATE)
    count = max(1, round(len(speech) / window))
    speech = package.normalize_volume(np.resize(speech, count * window), -30, increase_only=True)
    mels = package.wav_to_mel_spectrogram(speech)
    return [mels[i * 160 : (i + 1) * 160] for i in range(count)]
