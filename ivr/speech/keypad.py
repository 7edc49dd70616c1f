"""Keys pressed in a listening turn: when they make an answer. Pure; times in milliseconds of audio."""

from __future__ import annotations

from collections.abc import Callable

from ivr.speech.expect import EndReason

PAUSE_MS = 2500
AGENT_PAUSE_MS = 1000
_MAX_KEYS = 32
_KEYS = frozenset("0123456789*#")

CANCEL, DONE, AGENT = "*", "#", "0"


class Keypad:
    """The keys so far. ``whole`` says of a string of digits that no further key is to be waited for."""

    def __init__(self, whole: Callable[[str], bool]) -> None:
        self._whole = whole
        self._last_ms = 0
        self.digits = ""

    def press(self, key: str, now_ms: int) -> EndReason | None:
        """One key; the reason why it ends the turn, if it does. What is no telephone key is ignored."""
        if key not in _KEYS:
            return None
        self._last_ms = now_ms
        if key == CANCEL:
            return EndReason.CANCEL
        if key == DONE:
            return self._done() if self.digits else None
        self.digits += key
        return EndReason.KEYS if self._whole(self.digits) or len(self.digits) >= _MAX_KEYS else None

    def waited(self, now_ms: int) -> EndReason | None:
        """Whether the caller has paused long enough to be done."""
        pause_ms = AGENT_PAUSE_MS if self.digits == AGENT else PAUSE_MS
        if not self.digits or now_ms - self._last_ms < pause_ms:
            return None
        return EndReason.AGENT if self.digits == AGENT else EndReason.QUIET

    def _done(self) -> EndReason:
        return EndReason.AGENT if self.digits == AGENT else EndReason.KEYS
