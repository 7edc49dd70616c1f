"""Embeddings with what has to travel with them, and their form as bytes for an encrypted store.

Layout of the bytes: four letters (kind and version), the length of a JSON header (uint32, little-endian),
the header, the vectors as little-endian float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

_UTTERANCE, _VOICEPRINT = b"VPU1", b"VPV1"


def unit(vector: NDArray[np.floating]) -> Vector:
    """``vector`` of shape (dim,) at length one; a zero vector stays zero."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 0 else vector, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Utterance:
    """One recording: ``vector`` float32 of shape (dim,) and unit length, and how good the recording was.

    ``net_speech_s``: seconds in which somebody speaks. ``snr_db``: speech to noise. ``clipped``: share of
    samples at full scale, 0..1.
    """

    vector: Vector = field(repr=False)
    model_id: str
    net_speech_s: float
    snr_db: float
    clipped: float

    def to_bytes(self) -> bytes:
        header = {"model_id": self.model_id, "quality": [self.net_speech_s, self.snr_db, self.clipped]}
        return _pack(_UTTERANCE, header, self.vector[None])

    @classmethod
    def from_bytes(cls, data: bytes) -> Utterance:
        """Raises ValueError if ``data`` is not what :meth:`to_bytes` made."""
        header, vectors = _unpack(_UTTERANCE, data)
        return cls(vectors[0], header["model_id"], *header["quality"])


@dataclass(frozen=True, eq=False)
class Voiceprint:
    """A person: ``vectors`` float32 of shape (utterances, dim), each of unit length, and their direction."""

    vectors: NDArray[np.float32] = field(repr=False)
    model_id: str
    net_speech_s: float

    @property
    def vector(self) -> Vector:
        """The unit vector of shape (dim,) that the utterances agree on."""
        return unit(self.vectors.mean(axis=0))

    @property
    def utterances(self) -> int:
        return len(self.vectors)

    def to_bytes(self) -> bytes:
        return _pack(
            _VOICEPRINT, {"model_id": self.model_id, "net_speech_s": self.net_speech_s}, self.vectors
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Voiceprint:
        """Raises ValueError if ``data`` is not what :meth:`to_bytes` made."""
        header, vectors = _unpack(_VOICEPRINT, data)
        return cls(vectors, header["model_id"], header["net_speech_s"])


def pooled(utterances: Sequence[Utterance]) -> Vector:
    """One unit vector for several recordings of a voice, each counting by its seconds of speech."""
    return unit(np.sum([u.vector * max(u.net_speech_s, 0.05) for u in utterances], axis=0))


def _pack(kind: bytes, header: dict[str, Any], vectors: NDArray[np.float32]) -> bytes:
    text = json.dumps(header | {"dim": vectors.shape[1]}).encode()
    return kind + struct.pack("<I", len(text)) + text + vectors.astype("<f4").tobytes()


def _unpack(kind: bytes, data: bytes) -> tuple[dict[str, Any], NDArray[np.float32]]:
    if data[:4] != kind:
        raise ValueError(f"these bytes are no {kind.decode()} record")
    try:
        (size,) = struct.unpack_from("<I", data, 4)
        header = json.loads(data[8 : 8 + size])
        vectors = np.frombuffer(data, "<f4", offset=8 + size).reshape(-1, header["dim"])
    except (struct.error, KeyError, ValueError) as error:
        raise ValueError(f"damaged {kind.decode()} record") from error
    return header, vectors.astype(np.float32)
