"""Recordings as files, and their embeddings as a file: each recording is embedded once.

An embedding is found again by the checksum of the recording's bytes, so a file that was moved is known and one that
was changed is not. The file holds voices: it is made readable by its owner only, and is as personal as a recording.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import soundfile

from voiceprint.audio import Pcm
from voiceprint.encoder import Encoder
from voiceprint.errors import ListError, ModelError, RecordingError
from voiceprint.utterance import Utterance

_QUALITY = ("net_speech_s", "snr_db", "clipped")


def decode(data: bytes, name: str) -> tuple[Pcm, int]:
    """(mono float32 audio in -1..1, its rate in Hz) of a WAV, FLAC or Ogg file's bytes. Raises RecordingError."""
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (OSError, RuntimeError):
        raise RecordingError(f"{name}: not a readable WAV, FLAC or Ogg recording") from None
    if not len(samples):
        raise RecordingError(f"{name}: the recording is empty")
    return samples.mean(axis=1), int(rate)


class Embeddings:
    """What one model embedded: rows of (name of the file, SHA-256 of its bytes), an utterance for each checksum."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self._rows: dict[tuple[str, str], None] = {}
        self._heard: dict[str, Utterance] = {}

    @classmethod
    def load(cls, path: Path, model_id: str) -> Embeddings:
        """Reads :meth:`save`'s file; none is an empty one. Raises ModelError if another model made it."""
        embeddings = cls(model_id)
        if not path.exists():
            return embeddings
        try:
            with np.load(path, allow_pickle=False) as arrays:
                made_by = str(arrays["model_id"])
                vectors = arrays["vectors"].astype(np.float32)
                quality = np.stack([arrays[name] for name in _QUALITY], axis=1)
                names = [(str(f), str(c)) for f, c in zip(arrays["files"], arrays["sha256"], strict=True)]
        except (OSError, ValueError, KeyError, BadZipFile):
            raise ListError(f"{path} is no file of embeddings; name another, or remove it") from None
        if made_by != model_id:
            raise ModelError(f"{path} was made by {made_by}, not by {model_id}: embeddings never compare")
        for name, vector, measures in zip(names, vectors, quality, strict=True):
            embeddings._rows[name] = None
            embeddings._heard[name[1]] = Utterance(vector, made_by, *map(float, measures))
        return embeddings

    def embed(self, encoder: Encoder, file: str, path: Path) -> Utterance:
        """A recording, embedded unless its bytes were before. Raises RecordingError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from None
        checksum = hashlib.sha256(data).hexdigest()
        if checksum not in self._heard:
            self._heard[checksum] = encoder.embed(*decode(data, str(path)))
        self._rows[file, checksum] = None
        return self._heard[checksum]

    def save(self, path: Path) -> None:
        """Writes NumPy's npz, whole or not at all, readable by its owner only."""
        heard = [self._heard[checksum] for _, checksum in self._rows]
        arrays = {
            "model_id": np.array(self.model_id),
            "files": np.array([file for file, _ in self._rows], str),
            "sha256": np.array([checksum for _, checksum in self._rows], str),
            "vectors": np.stack([u.vector for u in heard]),
            **{name: np.array([getattr(u, name) for u in heard]) for name in _QUALITY},
        }
        partial = path.with_name(path.name + ".part")
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
