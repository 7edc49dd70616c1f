"""Words, their HMM states and their costs: the one place from which training and decoding graphs are made.

A word is a left-to-right chain of states, each held for one 30 ms frame or longer. States are shared where
words share a sound ("sixty" begins like "six"), so that the tens, for which there is only synthetic speech,
learn from real digits. Kaldi wants word positions, so every (word, position) is a phone of its own;
phones of a shared state share its pdf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

SILENCE = "SIL"
UNKNOWN = "[unk]"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _chain(name: str, states: int) -> list[str]:
    return [f"{name}{i}" for i in range(1, states + 1)]


_TEEN, _TY, _TWE = _chain("teen", 3), _chain("ty", 2), _chain("twe", 2)

#: Word -> names of its states. Two states at least: a word needs a begin and an end phone.
LEXICON: dict[str, list[str]] = {
    "zero": _chain("zero", 4),
    "oh": _chain("oh", 2),
    "one": _chain("one", 3),
    "two": _chain("two", 3),
    "three": _chain("three", 3),
    "four": _chain("four", 3),
    "five": _chain("five", 3),
    "six": _chain("six", 4),
    "seven": _chain("seven", 5),
    "eight": _chain("eight", 3),
    "nine": _chain("nine", 3),
    "double": _chain("double", 4),
    "triple": _chain("triple", 4),
    "ten": _chain("ten", 3),
    "eleven": _chain("eleven", 5),
    "twelve": [*_TWE, *_chain("elve", 2)],
    "thirteen": [*_chain("thir", 2), *_TEEN],
    "fourteen": [*_chain("four", 3), *_TEEN],
    "fifteen": [*_chain("fif", 3), *_TEEN],
    "sixteen": [*_chain("six", 4), *_TEEN],
    "seventeen": [*_chain("seven", 5), *_TEEN],
    "eighteen": [*_chain("eight", 2), *_TEEN],
    "nineteen": [*_chain("nine", 3), *_TEEN],
    "twenty": [*_TWE, "twen3", *_TY],
    "thirty": [*_chain("thir", 2), *_TY],
    "forty": [*_chain("four", 3), *_TY],
    "fifty": [*_chain("fif", 3), *_TY],
    "sixty": [*_chain("six", 4), *_TY],
    "seventy": [*_chain("seven", 5), *_TY],
    "eighty": [*_chain("eight", 2), *_TY],
    "ninety": [*_chain("nine", 3), *_TY],
    "hundred": _chain("hundred", 5),
    "yes": _chain("yes", 3),
    "no": _chain("no", 3),
    "start": _chain("start", 4),
    "again": _chain("again", 4),
    "cancel": _chain("cancel", 5),
    "agent": _chain("agent", 5),
    "repeat": _chain("repeat", 5),
    UNKNOWN: _chain("unk", 3),
    # Added to a model that was there (recipes.digits.words): what was before them keeps its place.
    "confirm": _chain("confirm", 5),
    "pay": _chain("pay", 3),
}
#: Cost of a digit in nats: about that of a grammar of twenty words, so that grammars of ten to forty
#: words, whose cost Vosk derives from their length, stay within a nat of what was trained.
DIGIT_COST = 3.0
COMMAND_COST = 1.5
#: What a word costs beyond a digit. The tens must not steal from the digits that they begin with.
EXTRA_COST = dict.fromkeys(LEXICON, 0.0) | {
    **dict.fromkeys(("double", "triple"), 1.5),
    **{w: 3.0 for w in LEXICON if w.endswith(("teen", "ty")) or w in ("ten", "eleven", "twelve", "hundred")},
    **dict.fromkeys(("yes", "no", "start", "again", "cancel", "agent", "repeat"), COMMAND_COST),
    # Learnt from machines alone: believed less readily than a yes. Chosen on development speakers' other words.
    **dict.fromkeys(("confirm", "pay"), COMMAND_COST + 2.0),
    UNKNOWN: 2.0,
}
#: Silence between words: taken or left out with equal probability.
SILENCE_PROBABILITY = 0.5


@dataclass(frozen=True)
class Phone:
    """One (word, position) of the model; ``id`` counts from 1 as Kaldi's do."""

    id: int
    word: str
    pdf: int
    boundary: str  # Kaldi's word_boundary.int: nonword, begin, internal, end


@dataclass(frozen=True)
class Lexicon:
    """The words of a language: each one's states, its cost beyond a digit's, and the words of the digits 0 to 9."""

    states: Mapping[str, Sequence[str]]
    extra_cost: Mapping[str, float]
    digits: Sequence[str]

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(self.states)

    @cached_property
    def pdfs(self) -> tuple[str, ...]:
        return (SILENCE, *dict.fromkeys(state for states in self.states.values() for state in states))

    @cached_property
    def pdf_id(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.pdfs)}

    @cached_property
    def word_id(self) -> dict[str, int]:
        return {w: i for i, w in enumerate(self.words, start=1)}

    @cached_property
    def phones(self) -> list[Phone]:
        """Silence first."""
        phones = [Phone(1, "", self.pdf_id[SILENCE], "nonword")]
        for word, states in self.states.items():
            for position, state in enumerate(states):
                boundary = "begin" if position == 0 else "end" if position == len(states) - 1 else "internal"
                phones.append(Phone(len(phones) + 1, word, self.pdf_id[state], boundary))
        return phones

    @cached_property
    def word_phones(self) -> dict[str, list[Phone]]:
        return {w: [p for p in self.phones if p.word == w] for w in self.words}

    def word_cost(self, word: str) -> float:
        """Cost of entering ``word`` in nats, the same in the training denominator and in the decoding graph."""
        return DIGIT_COST + self.extra_cost[word]


ENGLISH = Lexicon(LEXICON, EXTRA_COST, DIGITS)
WORDS, PDFS, PDF_ID, WORD_ID = ENGLISH.words, ENGLISH.pdfs, ENGLISH.pdf_id, ENGLISH.word_id
