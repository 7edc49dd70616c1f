"""What a listening turn is for, and what came of it: the words that the call flow and the ear share. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from ivr.speech import mandarin
from ivr.speech.audio import Pcm
from ivr.speech.numbers import DIGIT_OF, Hypothesis
from ivr.speech.pan import is_complete, may_go_on

#: Words that agree by naming what is done, so that "don't" before them makes them mean the opposite.
_DEEDS = frozenset(("confirm", "pay"))
_MEANING = DIGIT_OF | mandarin.ANSWERS | dict.fromkeys(_DEEDS, "yes") | {"cancel": "no"}


class Kind(StrEnum):
    CARD = "card"
    DIGITS = "digits"
    YES_NO = "yes_no"
    CONFIRM = "confirm"  # as yes_no; "confirm" and "pay" are a yes, "cancel" is a no
    CHOICE = "choice"
    KEYS = "keys"


@dataclass(frozen=True)
class Expect:
    """What the caller was asked for. Keys are taken in every turn, and win over speech.

    ``count``: how many digits (DIGITS) or choices (CHOICE). ``key_lengths``: how many keys make an
    answer; the turn ends at once at the longest, and after a pause or ``#`` at any length.
    """

    kind: Kind
    count: int = 0
    key_lengths: frozenset[int] = frozenset()

    @classmethod
    def card(cls) -> Expect:
        return cls(Kind.CARD)

    @classmethod
    def digits(cls, count: int, key_lengths: frozenset[int] | None = None) -> Expect:
        return cls(Kind.DIGITS, count, frozenset({count}) if key_lengths is None else key_lengths)

    @classmethod
    def yes_no(cls) -> Expect:
        return cls(Kind.YES_NO, key_lengths=frozenset({1}))

    @classmethod
    def confirm(cls) -> Expect:
        return cls(Kind.CONFIRM)

    @classmethod
    def choice(cls, count: int) -> Expect:
        return cls(Kind.CHOICE, count, frozenset({1}))

    @classmethod
    def keys(cls, *lengths: int) -> Expect:
        return cls(Kind.KEYS, key_lengths=frozenset(lengths))

    def whole_keys(self, keys: str) -> bool:
        """Whether no further key is to be waited for. A 0 alone may ask for an agent, so it waits."""
        whole_card = is_complete(keys) and not may_go_on(keys)
        return keys != "0" and (whole_card or len(keys) == max(self.key_lengths, default=None))

    def keyed_answer(self, keys: str) -> str | int | None:
        """What keys say in place of a word: 1 is yes and 2 is no; the number of a choice is itself."""
        if self.kind is Kind.YES_NO:
            return {"1": "yes", "2": "no"}.get(keys)
        return self._choice(keys) if self.kind is Kind.CHOICE else None

    def spoken_answer(self, words: Collection[str], besides: bool = False) -> str | int | None:
        """What the words heard say: the answer that all of them are; None when they are none or differ.

        ``besides``: whether other speech was heard, too; "do not pay" is no yes.
        """
        if besides and _DEEDS.issuperset(words):
            return None
        answers = {_MEANING.get(word, word) for word in words}
        if len(answers) != 1:
            return None
        (answer,) = answers
        if self.kind in (Kind.YES_NO, Kind.CONFIRM):
            return answer if answer in ("yes", "no") else None
        return self._choice(answer) if self.kind is Kind.CHOICE else None

    def _choice(self, digit: str) -> int | None:
        return int(digit) if digit.isdigit() and 1 <= int(digit) <= self.count else None


class EndReason(StrEnum):
    """Why a turn ended."""

    COMPLETE = "complete"  # what was asked for was said
    KEYS = "keys"  # it was keyed: whole, or ended with the hash key
    QUIET = "quiet"  # something was said or keyed, less than what was asked for, and then nothing more
    NOTHING = "nothing"
    TIMEOUT = "timeout"
    HANGUP = "hangup"  # the stream closed first
    CANCEL = "cancel"
    AGENT = "agent"


@dataclass(frozen=True, eq=False)
class Heard:
    """What came of a turn. Holds what must not be shown, so its repr says only how it ended."""

    end: EndReason
    hypotheses: tuple[Hypothesis, ...] = field(default=(), repr=False)  # best first; CARD and DIGITS
    keys: str = field(default="", repr=False)
    answer: str | int | None = field(default=None, repr=False)  # "yes", "no", or the choice; said or keyed
    pcm: Pcm = field(default_factory=lambda: np.zeros(0, np.int16), repr=False)  # the whole turn, 8 kHz
    speech_ms: int = 0
    onset_ms: int | None = None  # when speech began, counted from the start of listening

    @property
    def confidence(self) -> float | None:
        """How probably the best number was said, to two places; for our records, never for the caller."""
        known = [h.confidence for h in self.hypotheses if h.confidence is not None]
        return round(max(known), 2) if known else None
