"""How two embeddings are compared, before calibration: as they are, or projected and measured against a cohort.

``backend.npz`` of a model folder holds what a recipe fitted on training speakers: a mean, a linear discriminant
projection, and the mean embeddings of a cohort, nameless and in no order of persons. A score is then the cosine's
distance, in deviations, from the cosines with the nearest of the cohort: seen from either side, and averaged (adaptive
score normalisation). A folder without the file compares by cosine.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from voiceprint import manifest
from voiceprint.errors import ModelError
from voiceprint.manifest import Manifest

BACKEND = "backend.npz"
Floats = NDArray[np.float64]
#: Cohort scores lie closer together than this only where they mean nothing.
_LEAST_DEVIATION = 1e-3
#: Rows whose cosines with the whole cohort are held at a time.
_ROWS = 2000


@dataclass(frozen=True, eq=False)
class Sides:
    """One side of comparisons: vectors of shape (n, dim), and mean and deviation of its cohort scores, shape (n,)."""

    vectors: NDArray[np.float32]
    mean: Floats
    deviation: Floats

    def __getitem__(self, rows: NDArray[np.int64]) -> Sides:
        return Sides(self.vectors[rows], self.mean[rows], self.deviation[rows])


def compare(a: Sides, b: Sides) -> Floats:
    """Scores of shape (n,), row against row."""
    cosine = np.einsum("ij,ij->i", a.vectors, b.vectors).astype(np.float64)
    score: Floats = ((cosine - a.mean) / a.deviation + (cosine - b.mean) / b.deviation) / 2
    return score


class Cosine:
    """No back end: a score is the cosine of the two embeddings."""

    def sides(self, vectors: NDArray[np.float32]) -> Sides:
        """Embeddings of shape (n, dim) as they are compared."""
        return Sides(_unit_rows(vectors), np.zeros(len(vectors)), np.ones(len(vectors)))


@dataclass(frozen=True, eq=False)
class Normalised(Cosine):
    """``mean`` of shape (dim,), ``projection`` (dim, dim), ``cohort`` (n, dim) projected, of unit length."""

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    cohort: NDArray[np.float32]
    top: int

    def sides(self, vectors: NDArray[np.float32]) -> Sides:
        projected = self.project(vectors)
        means, deviations = [], []
        for start in range(0, len(projected), _ROWS):
            scores = projected[start : start + _ROWS] @ self.cohort.T
            nearest = -np.partition(-scores, self.top - 1, axis=1)[:, : self.top].astype(np.float64)
            means.append(nearest.mean(axis=1))
            deviations.append(nearest.std(axis=1) + _LEAST_DEVIATION)
        return Sides(projected, np.concatenate(means), np.concatenate(deviations))

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return _unit_rows((_unit_rows(vectors) - self.mean) @ self.projection)


def save(model_dir: Path, fitted: Normalised) -> None:
    """Writes ``backend.npz`` and pins it; the cohort in half precision, which changes no score's second decimal."""
    cohort = fitted.cohort.astype(np.float16)
    content = io.BytesIO()
    np.savez(content, mean=fitted.mean, projection=fitted.projection, cohort=cohort, top=np.array(fitted.top))
    manifest.add(model_dir, manifest.verify(model_dir), BACKEND, content.getvalue())


def load(model_dir: Path, pinned: Manifest) -> Cosine:
    """The back end of a folder whose checksums were verified. Raises ModelError if its file is none."""
    if BACKEND not in pinned.files:
        return Cosine()
    path = model_dir / BACKEND
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, projection, cohort = (arrays[n].astype(np.float32) for n in ("mean", "projection", "cohort"))
            return Normalised(mean, projection, _unit_rows(cohort), int(arrays["top"]))
    except (OSError, ValueError, KeyError, BadZipFile):
        raise ModelError(f"{path} is no back end; restore the folder from its source") from None


def _unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)
