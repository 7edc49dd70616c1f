"""What can go wrong, as types a caller can act on. No message ever carries audio, an embedding or a key."""

from __future__ import annotations


class VoiceprintError(Exception):
    """Base of all errors of this package."""


class ModelError(VoiceprintError):
    """A model folder is missing, altered or incomplete, or embeddings of different models were mixed."""


class PoorQuality(VoiceprintError):
    """The recordings cannot be enrolled. ``advice`` is a key a prompt can be chosen by."""

    def __init__(self, advice: str, detail: str) -> None:
        super().__init__(f"{advice}: {detail}")
        self.advice = advice


class SealError(VoiceprintError):
    """A sealed voiceprint cannot be opened: unknown key id, another context, or altered bytes."""
