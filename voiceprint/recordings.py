"""Recordings as files, and their embeddings as a file: each recording is embedded once.

An embedding is found again by the checksum of the recording's bytes, so a file that was moved is known and one that
was changed is not. The file holds voices: it is made readable by its owner only, and is as personal as a recording.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import soundfile

from voiceprint.audio import Pcm
from voiceprint.encoder import Encoder
from voiceprint.errors import ListError, ModelError, RecordingError
from voiceprint.utterance import Utterance


def decode(data: bytes, name: str) -> tuple[Pcm, int]:
    """(mono float32 audio in -1..1, its rate in Hz) of a WAV, FLAC or Ogg file's bytes. Raises RecordingError."""
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (OSError, RuntimeError):
        raise RecordingError(f"{name}: not a readable WAV, FLAC or Ogg recording") from None
    if not len(samples):
        raise RecordingError(f"{name}: the recording is empty")
    return samples.mean(axis=1), int(rate)


@dataclass
class Embeddings:
    """What was embedded by one model, by the SHA-256 of the recording."""

    model_id: str
    by_checksum: dict[str, Utterance]

    @classmethod
    def load(cls, path: Path, model_id: str) -> Embeddings:
        """Reads :meth:`save`'s file; none is an empty one. Raises ModelError if another model made it."""
        if not path.exists():
            return cls(model_id, {})
        try:
            with np.load(path, allow_pickle=False) as arrays:
                made_by = str(arrays["model_id"])
                vectors = arrays["vectors"].astype(np.float32)
                quality = np.stack([arrays[name] for name in ("net_speech_s", "snr_db", "clipped")], axis=1)
                checksums = [str(name) for name in arrays["sha256"]]
        except (OSError, ValueError, KeyError, BadZipFile):
            raise ListError(f"{path} is no file of embeddings; name another, or remove it") from None
        if made_by != model_id:
            raise ModelError(f"{path} was made by {made_by}, not by {model_id}: embeddings never compare")
        heard = (Utterance(v, made_by, *map(float, q)) for v, q in zip(vectors, quality, strict=True))
        return cls(model_id, dict(zip(checksums, heard, strict=True)))

    def embed(self, encoder: Encoder, path: Path) -> tuple[str, Utterance]:
        """(checksum, utterance) of a recording, embedded unless it was before. Raises RecordingError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from None
        checksum = hashlib.sha256(data).hexdigest()
        if checksum not in self.by_checksum:
            self.by_checksum[checksum] = encoder.embed(*decode(data, str(path)))
        return checksum, self.by_checksum[checksum]

    def save(self, path: Path, files: Sequence[str], checksums: Sequence[str]) -> None:
        """Writes NumPy's npz, whole or not at all: one row a file, in the order of ``files``."""
        heard = [self.by_checksum[checksum] for checksum in checksums]
        arrays = {
            "model_id": np.array(self.model_id),
            "files": np.array(files, str),
            "sha256": np.array(checksums, str),
            "vectors": np.stack([u.vector for u in heard]),
            "net_speech_s": np.array([u.net_speech_s for u in heard]),
            "snr_db": np.array([u.snr_db for u in heard]),
            "clipped": np.array([u.clipped for u in heard]),
        }
        partial = path.with_name(path.name + ".part")
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
