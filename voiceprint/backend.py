"""How two embeddings are compared, before calibration: by their cosine, or as two draws of a Gaussian model of voices.

``backend.npz`` of a model folder holds what a recipe fitted on training speakers: a mean, a projection to axes along
which recordings of one voice scatter by one, and how far voices lie apart along each. A score is then log P(both | one
voice) / P(both | two voices): PLDA with two full covariances on length-normalised embeddings (Garcia-Romero and
Espy-Wilson 2011). What lies along an axis counts the more the further voices lie apart along it. A folder without the
file compares by cosine.
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


@dataclass(frozen=True, eq=False)
class Sides:
    """One side of comparisons: vectors of shape (n, dim), and what each adds to all its scores, shape (n,)."""

    vectors: NDArray[np.float32]
    offset: Floats

    def __getitem__(self, rows: NDArray[np.int64]) -> Sides:
        return Sides(self.vectors[rows], self.offset[rows])


def compare(a: Sides, b: Sides) -> Floats:
    """Scores of shape (n,), row against row."""
    score: Floats = np.einsum("ij,ij->i", a.vectors, b.vectors).astype(np.float64) + a.offset + b.offset
    return score


class Cosine:
    """No back end: a score is the cosine of the two embeddings."""

    def sides(self, vectors: NDArray[np.float32]) -> Sides:
        """Embeddings of shape (n, dim) as they are compared."""
        return Sides(unit_rows(vectors), np.zeros(len(vectors)))


@dataclass(frozen=True, eq=False)
class TwoCovariances(Cosine):
    """``mean`` of shape (dim,), ``projection`` (dim, axes), ``between`` (axes,): the variance of voices, above 0."""

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    between: NDArray[np.float32]

    def sides(self, vectors: NDArray[np.float32]) -> Sides:
        between = self.between.astype(np.float64)
        total = between + 1
        projected = self.project(vectors) * np.sqrt(total.sum())  # as long as the model expects
        spread = total**2 - between**2  # determinant of the covariance of two recordings of one voice
        offset = projected**2 @ ((1 / total - total / spread) / 2)
        return Sides(np.asarray(projected * np.sqrt(between / spread), np.float32), offset)

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings along the axes, of unit length, shape (n, axes)."""
        return unit_rows((unit_rows(vectors) - self.mean) @ self.projection)


def save(model_dir: Path, fitted: TwoCovariances) -> None:
    """Writes ``backend.npz`` and pins it."""
    content = io.BytesIO()
    np.savez(content, mean=fitted.mean, projection=fitted.projection, between=fitted.between)
    manifest.add(model_dir, manifest.verify(model_dir), BACKEND, content.getvalue())


def load(model_dir: Path, pinned: Manifest) -> Cosine:
    """The back end of a folder whose checksums were verified. Raises ModelError if its file is none."""
    if BACKEND not in pinned.files:
        return Cosine()
    path = model_dir / BACKEND
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return TwoCovariances(*(arrays[n].astype(np.float32) for n in ("mean", "projection", "between")))
    except (OSError, ValueError, KeyError, BadZipFile):
        raise ModelError(f"{path} is no back end; restore the folder from its source") from None


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)
