"""Vosk: a digit model shared by a process, and recognisers that hear one turn each.

Source of every fact about Vosk here: vosk-api 0.3.45, src/recognizer.cc and src/model.cc.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from enum import Enum
from heapq import nlargest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, lfilter

from ivr.speech import mandarin, numbers
from ivr.speech.audio import SAMPLE_RATE, Pcm, read_audio, to_pcm
from ivr.speech.confidence import Calibration, CalibrationError
from ivr.speech.library import vosk
from ivr.speech.pan import luhn_valid

UNKNOWN = "[unk]"

vosk.SetLogLevel(-1)

#: A recording of eight digits in each language that there is a model for.
PROOFS = {"en": "proof.wav", "zh": "proof_zh.wav"}
PROOF_DIGITS = 8

#: The graph of whole card numbers (recipes/digits/cards.py), beside those that runtime grammars are composed with.
CARD_GRAPH = "HCLG.card.fst"


#: How often a word is listed in the grammar of card numbers, of whose list Vosk makes a language model: nearly
#: everybody says nearly every number digit by digit, and listed once, the teens and tens take from the digits.
#: Measured on people the model had not heard: 5.5 % digit errors at 1, 4.0 % at 3, 3.8 % at 8 and beyond. ``[unk]``
#: stays at 1: with 32, half as many of development speakers' other words are heard as digits, but one digit in a
#: hundred more is lost in noise, and other words make no card number.
DIGIT_WEIGHT, TIMES_WEIGHT = 8, 4


class Grammar(Enum):
    """The words a turn may consist of, in English. What is said beside them is heard as ``[unk]``, not as a digit."""

    CARD = (
        *numbers.WORDS,
        *tuple(numbers.DIGITS) * (DIGIT_WEIGHT - 1),
        *tuple(numbers.TIMES) * (TIMES_WEIGHT - 1),
        UNKNOWN,
    )
    DIGITS = (*numbers.DIGITS, UNKNOWN)
    YES_NO = ("yes", "no", UNKNOWN)
    CONFIRM = ("yes", "no", "cancel", "confirm", "pay", UNKNOWN)
    CHOICE = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", UNKNOWN)

    def words(self, locale: str) -> tuple[str, ...]:
        """The same in another language."""
        return _IN_MANDARIN[self] if locale == "zh" else self.value


_IN_MANDARIN = {
    Grammar.CARD: (
        *tuple(mandarin.DIGITS) * DIGIT_WEIGHT,
        *mandarin.CORRECTIONS,
        *mandarin.RESTART,
        UNKNOWN,
    ),
    Grammar.DIGITS: (*mandarin.DIGITS, UNKNOWN),
    Grammar.YES_NO: (*mandarin.ANSWERS, UNKNOWN),
    Grammar.CONFIRM: (*mandarin.ANSWERS, UNKNOWN),
    Grammar.CHOICE: (*(word for word, digit in mandarin.DIGITS.items() if digit != "0"), UNKNOWN),
}


class DigitModelError(Exception):
    """A folder that cannot serve as a digit model; the message says what is wrong with it."""


@dataclass(frozen=True)
class Word:
    """A word heard, with its times in seconds since the turn began."""

    text: str = field(repr=False)
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Spoken:
    """One alternative of what was said; ``score``: log-likelihood in nats, comparable within a turn."""

    words: tuple[Word, ...] = field(repr=False)
    score: float

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]


class DigitModel:
    """A Vosk model folder that knows our words in a language and obeys runtime grammars. Share one a process.

    Raises DigitModelError when the folder is no such model.
    """

    def __init__(self, model_dir: Path | str, locale: str = "en") -> None:
        self.model_dir = Path(model_dir)
        self._locale = locale
        if not (self.model_dir / "am" / "final.mdl").exists() and not (self.model_dir / "final.mdl").exists():
            raise DigitModelError(f"{self.model_dir} is no Vosk model: it has no final.mdl")
        try:
            self._model = vosk.Model(model_path=str(self.model_dir))
        except Exception as error:  # vosk raises nothing more precise
            raise DigitModelError(f"{self.model_dir} is no Vosk model that loads") from error
        try:
            self.calibration = Calibration.read(self.model_dir)
        except CalibrationError as error:
            raise DigitModelError(str(error)) from error
        self._rate = sample_rate(self.model_dir)
        self._card_model = _with_graph(self.model_dir, self.model_dir / "graph" / CARD_GRAPH)
        self._prove_words()
        self._prove_grammars()
        self._prove_card_graph()

    def recogniser(self, grammar: Grammar) -> Recogniser:
        """A recogniser for one turn, to be used in the thread that asks for it."""
        return Recogniser(self._model, self._rate, grammar.words(self._locale))

    def card_recogniser(self) -> Recogniser | None:
        """A recogniser that hears whole card numbers only, with scores that compare with ``Grammar.CARD``'s.

        None when the model has no graph of card numbers, as models of others have none.
        """
        return Recogniser(self._card_model, self._rate, None) if self._card_model else None

    def _prove_card_graph(self) -> None:
        """The proof's digits twice have a wrong check digit; the graph makes another number of them, a right one."""
        if (cards := self.card_recogniser()) is None:
            return
        for _ in range(2):
            cards.accept(self._proof())
        heard = numbers.plainest(cards.finish(1)[0].texts)
        if not (luhn_valid(heard) and abs(len(heard) - 2 * PROOF_DIGITS) <= 2):
            raise DigitModelError(f"{self.model_dir}: {CARD_GRAPH} is not the graph of whole card numbers")

    def _prove_words(self) -> None:
        words = Grammar.CARD.words(self._locale) + Grammar.CONFIRM.words(self._locale)
        missing = [w for w in words if self._model.vosk_model_find_word(w) < 0]
        if missing:
            raise DigitModelError(f"{self.model_dir} does not know the words: {', '.join(dict.fromkeys(missing))}")

    def _prove_grammars(self) -> None:
        """With a static graph Vosk ignores a grammar and only warns; so decode spoken digits with each of them.

        Each may hear its own words only, those of yes and no, or of a choice, in place of the digits spoken; and the
        two that numbers are heard with, for cards and for challenges, must hear as many as there are.
        """
        recording = self._proof()
        counted = (Grammar.CARD, Grammar.DIGITS)
        half = recording[: len(recording) // 2]
        words = {grammar: self._hear(recording if grammar in counted else half, grammar) for grammar in Grammar}
        if any(not set(words[grammar]) <= set(grammar.words(self._locale)) for grammar in Grammar):
            raise DigitModelError(f"{self.model_dir} ignores grammars: it needs HCLr.fst and Gr.fst, not HCLG.fst")
        for heard in (len(numbers.plainest(words[grammar])) for grammar in counted):
            if abs(heard - PROOF_DIGITS) > 1:
                raise DigitModelError(f"{self.model_dir} hears {heard} digits in a recording of {PROOF_DIGITS}")

    def _proof(self) -> Pcm:
        return read_audio(Path(__file__).with_name(PROOFS[self._locale]))

    def _hear(self, pcm: Pcm, grammar: Grammar) -> list[str]:
        recogniser = self.recogniser(grammar)
        recogniser.accept(pcm)
        return recogniser.finish(1)[0].texts


class Recogniser:
    """Hears one turn. Not for sharing between threads; bounded by the audio it is given."""

    def __init__(self, model: vosk.Model, rate: int, words: tuple[str, ...] | None) -> None:
        # As they are: Vosk does not decode the escapes of JSON.
        grammars = [] if words is None else [json.dumps(words, ensure_ascii=False)]
        self._kaldi = vosk.KaldiRecognizer(model, rate, *grammars)
        self._kaldi.SetWords(True)
        self._kaldi.SetMaxAlternatives(MAX_ALTERNATIVES)
        self._upsample = _Upsampler(rate // SAMPLE_RATE) if rate > SAMPLE_RATE else None
        self._finished = [Spoken((), 0.0)]
        self._pending = False  # whether audio came since the last segment was finished

    def accept(self, pcm: Pcm) -> None:
        """Hear int16 samples at 8 kHz, any number of them."""
        if not len(pcm):
            return
        samples = self._upsample(pcm) if self._upsample else pcm
        samples = np.clip(samples + np.resize(_HISS, len(samples)).astype(np.int32), -32768, 32767)
        self._pending = True
        if self._kaldi.AcceptWaveform(samples.astype("<i2").tobytes()):
            # The model's own endpoint rules fired; what is not fetched now would be lost.
            self._append(self._kaldi.Result())

    def partial_words(self) -> list[str]:
        """The words of the best path so far, since the turn began."""
        text: str = json.loads(self._kaldi.PartialResult())["partial"] if self._pending else ""
        return self._finished[0].texts + text.split()

    def finish(self, n: int) -> list[Spoken]:
        """The ``n`` best alternatives of the whole turn so far, best first; at least one, perhaps empty.

        Closes the segment in hand: what is accepted afterwards is heard as beginning anew, and a
        later ``finish`` joins the segments.
        """
        if self._pending:
            self._append(self._kaldi.FinalResult())
        return self._finished[:n]

    def _append(self, result: str) -> None:
        self._pending = False
        segment = [_spoken(alternative) for alternative in json.loads(result).get("alternatives", [])]
        if not segment:
            return
        if not segment[0].words:
            segment = segment[:1]  # a pause: its less likely words are none of the turn's alternatives
        joined = (Spoken(a.words + b.words, a.score + b.score) for a in self._finished for b in segment)
        self._finished = nlargest(MAX_ALTERNATIVES, joined, key=lambda spoken: spoken.score)


#: Exact zeros between words, as of a line with silence suppression, are unlike all that a model was trained on;
#: a hiss of 2 steps in 32,768 (-84 dBFS) is not. The same each time, so that results are.
_HISS = np.round(np.random.default_rng(0).normal(0, 2, SAMPLE_RATE)).astype(np.int16)

#: More than thirty adds [unk] and silence variants of strings already there, and costs time.
MAX_ALTERNATIVES = 30


def _spoken(alternative: dict[str, Any]) -> Spoken:
    words = tuple(Word(w["word"], w["start"], w["end"]) for w in alternative.get("result", []))
    return Spoken(words, alternative["confidence"])


def _with_graph(model_dir: Path, graph: Path) -> vosk.Model | None:
    """The model with a graph of its own: Vosk reads it only under the name HCLG.fst, so in a folder of links."""
    if not graph.exists():
        return None
    with tempfile.TemporaryDirectory(prefix="ivr-model-") as made:
        folder = Path(made)
        for made_here in ("graph", "conf"):
            (folder / made_here).mkdir()
        for part in ("am", "ivector", "conf/mfcc.conf", "graph/words.txt", "graph/phones"):
            if (model_dir / part).exists():
                (folder / part).symlink_to((model_dir / part).resolve())
        options = (model_dir / "conf" / "model.conf").read_text(encoding="utf-8")
        (folder / "conf" / "model.conf").write_text(f"{options}\n{_UNHURRIED}\n", encoding="utf-8")
        (folder / "graph" / "HCLG.fst").symlink_to(graph.resolve())
        return vosk.Model(model_path=str(folder))


#: Nobody waits for what the graph of card numbers hears before the turn ends, and the network takes less time for a
#: second of speech at once (in frames of 10 ms) than for a fifth: a tenth of this recogniser's.
_UNHURRIED = "--frames-per-chunk=96"


def sample_rate(model_dir: Path) -> int:
    """The rate a model's features are made at, from its ``mfcc.conf``; Kaldi's default is 16 kHz."""
    for conf in (model_dir / "conf" / "mfcc.conf", model_dir / "mfcc.conf"):
        if conf.exists():
            options = dict(line.strip().split("=", 1) for line in conf.read_text().splitlines() if "=" in line)
            return int(float(options.get("--sample-frequency", 16000)))
    return 16000


class _Upsampler:
    """Telephone audio for a wide-band model, which refuses 8 kHz. Keeps its filter state between calls."""

    def __init__(self, factor: int) -> None:
        self._factor = factor
        self._taps = firwin(32 * factor + 1, 1 / factor) * factor
        self._state: NDArray[np.float64] = np.zeros(len(self._taps) - 1)

    def __call__(self, pcm: Pcm) -> Pcm:
        spread = np.zeros(len(pcm) * self._factor)
        spread[:: self._factor] = pcm
        smooth, self._state = lfilter(self._taps, 1.0, spread, zi=self._state)
        return to_pcm(smooth)
