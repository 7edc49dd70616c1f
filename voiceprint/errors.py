"""What can go wrong, as types a caller can act on. No message ever carries audio, an embedding or a key."""

from __future__ import annotations


class VoiceprintError(Exception):
    """Base of all errors of this package."""


class ModelError(VoiceprintError):
    """A model folder is missing, altered or incomplete, or embeddings of different models were mixed."""


class EncoderBusy(VoiceprintError):
    """More recordings wait to be embedded than can be in useful time; nothing was computed."""


class PoorQuality(VoiceprintError):
    """The recordings cannot be enrolled. ``advice`` is a key a prompt can be chosen by."""

    def __init__(self, advice: str, detail: str) -> None:
        super().__init__(f"{advice}: {detail}")
        self.advice = advice


class RecordingError(VoiceprintError):
    """A file cannot be used as a recording; the message names it."""


class ListError(VoiceprintError):
    """A list of trials, scores or recordings cannot be used; the message names file and line."""


class MissingExtra(VoiceprintError):
    """An optional package is not installed; the message says how to get it."""


class SealError(VoiceprintError):
    """A sealed voiceprint cannot be opened: unknown key id, another context, or altered bytes."""
