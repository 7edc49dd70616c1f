"""The back end of an encoder, fitted on training speakers: how one voice scatters, and how far voices lie apart.

No speaker of the development set or of the held-out list is in it. What was kept, and what was tried and was not better
on development speakers, stands in the model card; ``recipes.voiceprint.compare`` prints it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.data import SAMPLE_RATE, SHORT_CLIP_S, Clip, Speaker
from recipes.voiceprint.strings import over_one_line, string
from voiceprint import Encoder
from voiceprint.backend import TwoCovariances

#: Every second training speaker, in three draws of two halves of her clips, half of them over a line with noise.
EVERY, DRAWS = 2, 3
LEAST_SECONDS, MOST_SECONDS = 1.0, 8
#: Axes along which voices lie no further apart than this, of the variance of one voice, tell nothing.
LEAST_BETWEEN = 1e-3


def halves(speaker: Speaker, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """A speaker's clips as strings of one half and the other; one string only where there is one clip."""
    order = rng.permutation(len(speaker.clips))
    parts = ([_part(speaker.clips[i], rng) for i in order[side::2]] for side in (0, 1))
    return [string(clips, _words(clips), rng)[: MOST_SECONDS * SAMPLE_RATE] for clips in parts if clips]


def _words(clips: list[Clip]) -> int:
    return 2 if len(clips[0]) >= 2 * SAMPLE_RATE else max(2, len(clips))


def _part(clip: Clip, rng: np.random.Generator) -> Clip:
    if len(clip) <= SHORT_CLIP_S * SAMPLE_RATE:
        return clip
    start = int(rng.integers(0, len(clip) - 2 * SAMPLE_RATE))
    return clip[start : start + int(SHORT_CLIP_S * SAMPLE_RATE)]


def labelled_embeddings(
    encoder: Encoder, speakers: list[Speaker], noises: list[Clip]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(speaker numbers of shape (n,), embeddings of shape (n, dim)) of training speakers over telephone lines."""
    rng = np.random.default_rng(5)
    numbers, vectors = [], []
    for number, speaker in enumerate(speakers[::EVERY]):
        if speaker.seconds < LEAST_SECONDS:
            continue
        for said in (half for _ in range(DRAWS) for half in halves(speaker, rng)):
            heard = over_one_line([said], bool(rng.random() < 0.5), noises, rng)[0]
            numbers.append(number)
            vectors.append(encoder.embed(heard, SAMPLE_RATE).vector)
    return np.array(numbers), np.stack(vectors)


def fit_backend(numbers: NDArray[np.int64], vectors: NDArray[np.float32]) -> TwoCovariances:
    """Mean and the covariances within and between speakers, diagonal together, of labelled embeddings."""
    speakers, index, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    means = np.zeros((len(speakers), vectors.shape[1]))
    np.add.at(means, index, vectors)
    means /= counts[:, None]
    apart = vectors - means[index]
    within = apart.T @ apart / (len(vectors) - len(speakers))
    between = np.cov(means.T) - within / counts.mean()  # less what is left of the scatter in means
    spread, axes = np.linalg.eigh(within)
    whitening = axes @ np.diag(spread**-0.5) @ axes.T
    variance, directions = np.linalg.eigh(whitening @ between @ whitening)
    return TwoCovariances(
        vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
        (whitening @ directions[:, ::-1]).astype(np.float32),
        np.maximum(variance[::-1], LEAST_BETWEEN).astype(np.float32),
    )
