"""The back end of an encoder, fitted on training speakers: mean, linear discriminants, cohort.

No speaker of the development set or of the held-out list is in it. What was kept, and what was tried and was not better
on development speakers, stands in the model card; ``recipes.voiceprint.compare`` prints it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.data import SAMPLE_RATE, SHORT_CLIP_S, Clip, Speaker
from recipes.voiceprint.strings import over_one_line, string
from voiceprint import Encoder
from voiceprint.backend import Normalised

#: Every second training speaker, once over a line and once over a line with noise: a thousand are cohort enough.
EVERY, LINES = 2, 2
LEAST_SECONDS, MOST_SECONDS = 1.0, 8
#: Within-speaker covariance is shrunk by so much towards a multiple of the identity: two recordings a speaker tell
#: little, and those of speakers that the network has learnt by heart too little.
SHRINKAGE = 0.6
TOP = 200


def sample(speaker: Speaker, rng: np.random.Generator) -> NDArray[np.float32]:
    """Half of a speaker's clips in random order, long ones in part."""
    count = (len(speaker.clips) + 1) // 2
    clips = [_part(speaker.clips[i], rng) for i in rng.permutation(len(speaker.clips))[:count]]
    words = 2 if len(clips[0]) >= 2 * SAMPLE_RATE else max(6, count)
    return string(clips, words, rng)[: MOST_SECONDS * SAMPLE_RATE]


def _part(clip: Clip, rng: np.random.Generator) -> Clip:
    if len(clip) <= SHORT_CLIP_S * SAMPLE_RATE:
        return clip
    start = int(rng.integers(0, len(clip) - 2 * SAMPLE_RATE))
    return clip[start : start + int(SHORT_CLIP_S * SAMPLE_RATE)]


def cohort_embeddings(
    encoder: Encoder, speakers: list[Speaker], noises: list[Clip]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(speaker numbers of shape (n,), embeddings of shape (n, dim)) of training speakers over telephone lines."""
    rng = np.random.default_rng(5)
    numbers, vectors = [], []
    for number, speaker in enumerate(speakers[::EVERY]):
        if speaker.seconds < LEAST_SECONDS:
            continue
        for line in range(LINES):
            heard = over_one_line([sample(speaker, rng)], line % 2 == 1, noises, rng)[0]
            numbers.append(number)
            vectors.append(encoder.embed(heard, SAMPLE_RATE).vector)
    return np.array(numbers), np.stack(vectors)


def fit_backend(numbers: NDArray[np.int64], vectors: NDArray[np.float32], top: int = TOP) -> Normalised:
    """Mean, discriminants and cohort of labelled embeddings; the cohort is sorted by a coordinate, not by person."""
    speakers, index = np.unique(numbers, return_inverse=True)
    means = np.zeros((len(speakers), vectors.shape[1]))
    np.add.at(means, index, vectors)
    means /= np.bincount(index)[:, None]
    mean = vectors.mean(axis=0, dtype=np.float64)
    within, total = np.cov((vectors - means[index]).T) * LINES, np.cov((vectors - mean).T)
    dim = len(mean)
    shrunk = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / dim * np.eye(dim)
    spread, axes = np.linalg.eigh(shrunk)
    whitening = axes @ np.diag(spread**-0.5) @ axes.T
    directions = np.linalg.eigh(whitening @ total @ whitening)[1][:, ::-1]
    fitted = Normalised(
        mean.astype(np.float32), (whitening @ directions).astype(np.float32), np.zeros((0, dim), np.float32), top
    )
    cohort = fitted.project(means.astype(np.float32))
    return Normalised(fitted.mean, fitted.projection, cohort[np.argsort(cohort[:, 0])], min(top, len(cohort)))
