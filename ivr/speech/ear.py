"""What a recogniser has heard of a turn so far, and whether it is what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

import numpy as np
import structlog

from ivr.speech.audio import SAMPLE_RATE, Pcm
from ivr.speech.cards import candidates
from ivr.speech.expect import Expect, Kind
from ivr.speech.numbers import NUMBER_WORDS, Hypothesis, hypotheses, plainest
from ivr.speech.pan import is_complete, issuer, may_go_on
from ivr.speech.recogniser import MAX_ALTERNATIVES, UNKNOWN, DigitModel, Grammar, Recogniser, Spoken

log = structlog.get_logger()


class Whole(Enum):
    """In what way what was heard is what was asked for."""

    EXACTLY = auto()
    NEARLY = auto()  # one digit wrong, missing or too many, as far as the recogniser can tell
    SO_FAR = auto()  # a card number that may be the beginning of a longer one


T = TypeVar("T")

#: How far below the best path an alternative with the right number of digits may lie to end a DIGITS turn.
COUNT_MARGIN_NATS = 4.0

#: Digits from which a pause may be the end of a card number: one short of the shortest usual one. Judging
#: closes the recogniser's segment, which costs accuracy, so pauses before this are left alone.
_NEARLY_WHOLE = 13
_HEAR_EVERY_MS = 200  # Vosk hears in steps of 200 ms; smaller pieces only cost, and how it is cut changes no word
_NO_SAMPLES = np.zeros(0, np.int16)

_GRAMMARS = {
    Kind.CARD: Grammar.CARD,
    Kind.DIGITS: Grammar.DIGITS,
    Kind.YES_NO: Grammar.YES_NO,
    Kind.CONFIRM: Grammar.CONFIRM,
    Kind.CHOICE: Grammar.CHOICE,
}


class Ear:
    """Hears one turn, in the thread that calls ``hear``. If its recogniser fails, it is deaf, not broken."""

    def __init__(self, model: DigitModel, expect: Expect) -> None:
        self._model = model
        self._expect = expect
        self._recogniser: Recogniser | None = None
        self._cards: Recogniser | None = None
        self._deaf = False
        self._waiting: list[Pcm] = []
        self._words: list[str] = []
        self._was_speech = False
        self._judged: Whole | None = None
        self._is_judged = False  # once a pause
        self.unchanged_ms = 0  # since the best path last gained or changed a word

    def hear(self, pcm: Pcm, is_speech: bool) -> None:
        """The next samples, int16 at 8 kHz, and whether somebody speaks in them."""
        self._waiting.append(pcm)
        if is_speech and not self._was_speech:
            self._is_judged = False
        self._was_speech = is_speech
        heard_ms = sum(map(len, self._waiting)) * 1000 // SAMPLE_RATE
        if heard_ms < _HEAR_EVERY_MS:
            return
        self.unchanged_ms += heard_ms
        words = self._hearing(Recogniser.partial_words, self._words)
        if words != self._words:
            self._words = words
            self._is_judged = False
            self.unchanged_ms = 0

    def anything(self) -> bool:
        """Whether a word was heard that answers, be it in part: noise has its "no" and "again" in it."""
        if self._expect.kind in (Kind.CARD, Kind.DIGITS):
            return any(word in NUMBER_WORDS for word in self._words)
        return any(word != UNKNOWN for word in self._words)

    def whole(self) -> Whole | None:
        """Whether what was asked for was said, by its length and checksum or its word alone. Ask at a pause."""
        if not self._is_judged:
            self._judged = self._judge()
            self._is_judged = True
        return self._judged

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The digit strings that may have been said, best first; none in turns that ask for a word."""
        if self._expect.kind not in (Kind.CARD, Kind.DIGITS):
            return ()
        return tuple(h for h in hypotheses((s.texts, s.score) for s in self._spoken()) if h.digits)

    def whole_numbers(self) -> tuple[Hypothesis, ...]:
        """As ``hypotheses``, with the whole card numbers that fit best, and confidence. Only for the end of a turn.

        Where the graph of whole numbers listened, a string that is none was surely not said as one: confidence 0.
        """
        heard = {h.digits: h.score for h in self.hypotheses()}
        none: list[Spoken] = []
        whole = self._hearing(lambda _: self._cards.finish(MAX_ALTERNATIVES) if self._cards else none, none)
        for h in hypotheses((s.texts, s.score) for s in whole):
            heard[h.digits] = max(h.score, heard.get(h.digits, h.score))
        ranked = sorted(heard.items(), key=lambda item: -item[1])
        found = [
            Hypothesis(digits, score, 0.0 if self._cards and not is_complete(digits) else None)
            for digits, score in ranked
            if digits
        ]
        calibration = self._model.calibration
        return tuple(calibration.with_confidence(found, self._expect.kind is Kind.CARD) if calibration else found)

    def answer(self) -> str | int | None:
        """The word that was said, in turns that ask for one."""
        best = self._spoken()[0].texts
        return self._expect.spoken_answer([word for word in best if word != UNKNOWN], besides=UNKNOWN in best)

    def _judge(self) -> Whole | None:
        if self._expect.kind is Kind.CARD:
            return self._whole_card()
        if self._expect.kind is Kind.DIGITS:
            return self._whole_count(self._expect.count)
        return Whole.EXACTLY if self.answer() is not None else None

    def _whole_card(self) -> Whole | None:
        heard = plainest(self._words)
        if len(heard) < _NEARLY_WHOLE and not is_complete(heard):
            return None
        ranked = self.hypotheses()
        best = ranked[0].digits if ranked else ""
        if is_complete(best):
            return Whole.SO_FAR if may_go_on(best) else Whole.EXACTLY
        # Where an issuer has several usual lengths, only a longer silence tells the end from a pause.
        near = any(_usual(pan) and abs(len(pan) - len(best)) <= 2 for pan in candidates(ranked))
        return Whole.NEARLY if near else None

    def _whole_count(self, count: int) -> Whole | None:
        if len(plainest(self._words)) < count - 1:
            return None  # as with cards: closing the segment at every pause would cost the words around it
        ranked = self.hypotheses()
        best = len(ranked[0].digits) if ranked else 0
        if best == count:
            return Whole.EXACTLY
        near = any(len(h.digits) == count for h in ranked if ranked[0].score - h.score <= COUNT_MARGIN_NATS)
        return Whole.NEARLY if best > count or (best == count - 1 and near) else None

    def _spoken(self) -> list[Spoken]:
        """Every alternative so far; closes the recogniser's segment, so only for judging at a pause."""
        spoken = self._hearing(lambda recogniser: recogniser.finish(MAX_ALTERNATIVES), [Spoken((), 0.0)])
        self._words = spoken[0].texts
        return spoken

    def _hearing(self, use: Callable[[Recogniser], T], otherwise: T) -> T:
        """``use`` of the recogniser, once it has heard what was waiting; ``otherwise`` from a deaf ear on."""
        samples, self._waiting = np.concatenate([_NO_SAMPLES, *self._waiting]), []
        if self._deaf:
            return otherwise
        try:
            # Made here, not with the object: Vosk wants a recogniser made in the thread that uses it.
            if self._recogniser is None:
                self._recogniser = self._model.recogniser(_GRAMMARS[self._expect.kind])
                self._cards = self._model.card_recogniser() if self._expect.kind is Kind.CARD else None
            self._recogniser.accept(samples)
            if self._cards:
                self._cards.accept(samples)
            return use(self._recogniser)
        except Exception as error:  # vosk raises nothing more precise, and keys must still work
            log.error("recogniser failed", error=type(error).__name__)
            self._deaf = True
            return otherwise


def _usual(pan: str) -> bool:
    found = issuer(pan)
    return found is not None and found.usual == len(pan)
