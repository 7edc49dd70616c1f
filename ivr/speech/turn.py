"""One listening turn: mu-law frames and keys in, and the moment at which enough was heard.

A turn ends when what was asked for is complete and half a second was quiet; never by whether it is
the right answer, for that would tell the caller. Silence is judged twice: by the energy of the
frames, and, in noise that never goes quiet, by the recogniser having found no new word for a while.
"""

from __future__ import annotations

from ivr.speech.activity import Activity
from ivr.speech.audio import FRAME_BYTES, FRAME_MS, Pcm, ulaw_to_pcm
from ivr.speech.ear import Ear, Whole
from ivr.speech.expect import EndReason, Expect, Heard, Kind
from ivr.speech.keypad import Keypad
from ivr.speech.recogniser import DigitModel

__all__ = ["EndReason", "Expect", "Heard", "Kind", "Listening", "hear"]

COMPLETE_QUIET_MS = 500
#: A caller who has paused longer than that may be pausing again, if what was heard is only nearly whole:
#: then this much more than the longest pause so far, but no more than a caller waits for an answer.
BEYOND_PAUSE_MS = 100
NEARLY_QUIET_MS = 700
SO_FAR_QUIET_MS = 1200
MIDDLE_QUIET_MS = 2500
START_QUIET_MS = 6000
LONGEST_START_MS = 9000  # of speech without a word we know
LONGEST_TURN_MS = 60_000

#: In noise that never goes quiet, no new word for this much longer than a pause stands for the pause.
NOISY_COMPLETE_MS = 500
NOISY_MIDDLE_MS = 5000

_MAX_FRAME_BYTES = 8000  # a second; the carrier sends 160


def hear(model: DigitModel, pcm: Pcm, expect: Expect) -> Heard:
    """A whole recording, int16 at 8 kHz, in place of a turn."""
    ear = Ear(model, expect)
    ear.hear(pcm, is_speech=True)
    return Heard(EndReason.COMPLETE, ear.whole_numbers(), answer=ear.answer(), pcm=pcm)


class Listening:
    """Use from one thread: ``frame`` and ``key`` until one says that the turn is over, then ``close``.

    ``model`` may be None for a turn that keys can answer. Holds at most 60 s of audio. Never raises for what
    a carrier or a caller sends.
    """

    def __init__(self, model: DigitModel | None, expect: Expect) -> None:
        if model is None and not expect.key_lengths:
            raise ValueError(f"a turn of kind {expect.kind} needs a digit model")
        self._expect = expect
        self._ear = Ear(model, expect) if model and expect.kind is not Kind.KEYS else None
        self._keypad = Keypad(expect.whole_keys)
        self._activity = Activity()
        self._audio = bytearray()
        self._now_ms = 0
        self._end: EndReason | None = None

    def frame(self, ulaw: bytes) -> bool:
        """Audio of any length up to a second, 20 ms as a rule; True when the turn is over."""
        if self._end is None and isinstance(ulaw, bytes | bytearray) and len(ulaw) <= _MAX_FRAME_BYTES:
            self._audio += ulaw
            while self._end is None and len(self._audio) >= (self._now_ms // FRAME_MS + 1) * FRAME_BYTES:
                self._end = self._next_frame()
        return self._end is not None

    def key(self, key: str) -> bool:
        """One telephone key (0-9, *, #), anything else is ignored; True when the turn is over."""
        if self._end is None:
            self._end = self._keypad.press(key, self._now_ms)
        return self._end is not None

    def close(self) -> Heard:
        """What was heard; with the reason HANGUP when the turn was not over."""
        self._end = self._end or EndReason.HANGUP
        keys = self._keypad.digits
        ear = None if keys else self._ear  # keys win over speech
        return Heard(
            end=self._end,
            hypotheses=ear.whole_numbers() if ear else (),
            keys=keys,
            answer=self._expect.keyed_answer(keys) if keys else ear.answer() if ear else None,
            pcm=ulaw_to_pcm(bytes(self._audio)),
            speech_ms=self._activity.speech_ms,
            onset_ms=self._activity.onset_ms,
        )

    def _next_frame(self) -> EndReason | None:
        """Take in the next 20 ms; the reason why they end the turn, if they do."""
        start = self._now_ms // FRAME_MS * FRAME_BYTES
        pcm = ulaw_to_pcm(bytes(self._audio[start : start + FRAME_BYTES]))
        self._now_ms += FRAME_MS
        self._activity.add(pcm)
        if self._now_ms >= LONGEST_TURN_MS:
            return EndReason.TIMEOUT
        if self._keypad.digits:
            return self._keypad.waited(self._now_ms)
        if self._ear is None:
            return EndReason.NOTHING if self._now_ms >= START_QUIET_MS else None
        self._ear.hear(pcm, is_speech=self._activity.quiet_ms == 0)
        return self._spoken_end(self._ear)

    def _spoken_end(self, ear: Ear) -> EndReason | None:
        noisy_ms = min(self._activity.stretch_ms, ear.unchanged_ms)
        quiet_ms = max(self._activity.quiet_ms, noisy_ms - NOISY_COMPLETE_MS)
        if quiet_ms < COMPLETE_QUIET_MS:
            return None
        whole = ear.whole()
        if whole and quiet_ms >= self._quiet_needed_ms(whole):
            return EndReason.COMPLETE
        if not ear.anything():
            waited_ms = START_QUIET_MS if self._activity.quiet_ms else LONGEST_START_MS
            return EndReason.NOTHING if self._now_ms >= waited_ms else None
        over = max(self._activity.quiet_ms, noisy_ms - NOISY_MIDDLE_MS) >= MIDDLE_QUIET_MS
        return EndReason.QUIET if over else None

    def _quiet_needed_ms(self, whole: Whole) -> int:
        match whole:
            case Whole.EXACTLY:
                return COMPLETE_QUIET_MS
            case Whole.NEARLY:
                beyond_ms = self._activity.longest_pause_ms + BEYOND_PAUSE_MS
                return min(max(COMPLETE_QUIET_MS, beyond_ms), NEARLY_QUIET_MS)
            case Whole.SO_FAR:
                return SO_FAR_QUIET_MS
