"""The word loop, once as matrices for training and once as the two graphs that Vosk composes.

Between two words there is silence or none, with equal probability; ``[unk]`` may not follow ``[unk]``
without silence between, which keeps lattices of unclear speech small. Both forms take their costs from
:mod:`lexicon`: a denominator that differs from the decoding graph shows up as inserted or deleted digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .lexicon import DIGIT_COST, DIGITS, ENGLISH, SILENCE, SILENCE_PROBABILITY, UNKNOWN, Lexicon, Phone


@dataclass(frozen=True)
class Hmm:
    """A weighted automaton over states that each emit the score of one pdf.

    ``transitions`` (N, N), ``initial`` (N,) and ``final`` (N,) are weights, not normalised; ``pdfs`` (N,).
    """

    transitions: np.ndarray
    initial: np.ndarray
    final: np.ndarray
    pdfs: np.ndarray
    words: list[str]  # of each state that begins a word; "" elsewhere


#: A word between two nodes of an utterance's word graph; node 0 is its start, the highest node its end.
WordArc = tuple[int, int, str]


def utterance_arcs(words: Sequence[str]) -> list[WordArc]:
    """Word graph of a transcript in words. One ``[unk]`` stands for any amount of unknown speech."""
    distinct = [w for w, before in zip(words, ["", *words], strict=False) if not w == before == UNKNOWN]
    arcs = [(i, i + 1, w) for i, w in enumerate(distinct)]
    return arcs + [(i + 1, i + 1, w) for i, w in enumerate(distinct) if w == UNKNOWN]


def number_arcs(digits: str) -> list[WordArc]:
    """Word graph of a number of which only the digits are known: "oh" for zero, double and triple allowed."""
    spoken = [DIGITS[int(d)] for d in digits]
    arcs: list[WordArc] = []
    extra = len(digits)  # nodes after "double" and "triple", before the digit that they repeat
    for i, word in enumerate(spoken):
        arcs += [(i, i + 1, alternative) for alternative in _said_as(word)]
        for prefix, count in (("double", 2), ("triple", 3)):
            if spoken[i : i + count] == [word] * count:
                extra += 1
                arcs += [(i, -extra, prefix)] + [(-extra, i + count, alt) for alt in _said_as(word)]
    return _end_last(arcs, len(digits), extra)


def _said_as(digit: str) -> tuple[str, ...]:
    return ("zero", "oh") if digit == "zero" else (digit,)


def _end_last(arcs: list[WordArc], end: int, extra: int) -> list[WordArc]:
    """Renumber so that the end node is the highest: ``-k`` -> ``k - 1``, ``end`` -> ``extra``."""

    def number(node: int) -> int:
        return -node - 1 if node < 0 else extra if node == end else node

    return [(number(a), number(b), w) for a, b, w in arcs]


def hmm(arcs: Sequence[WordArc], lexicon: Lexicon = ENGLISH) -> Hmm:
    """Expand a word graph to states: each arc a chain of word states, each node an optional silence."""
    nodes = max((max(a, b) for a, b, _ in arcs), default=0) + 1
    pdfs = [lexicon.pdf_id[SILENCE]] * nodes
    labels = [""] * nodes
    starts, ends, inner = [], [], []
    for _, _, word in arcs:
        first = len(pdfs)
        pdfs += [lexicon.pdf_id[s] for s in lexicon.states[word]]
        labels += [word] + [""] * (len(lexicon.states[word]) - 1)
        starts.append(first)
        ends.append(len(pdfs) - 1)
        inner += [(s, s + 1) for s in range(first, len(pdfs) - 1)]
    transitions = np.eye(len(pdfs))
    initial, final = np.zeros(len(pdfs)), np.zeros(len(pdfs))
    for source, target in inner:
        transitions[source, target] = 1
    initial[0], final[nodes - 1] = SILENCE_PROBABILITY, 1
    for (begin, end, word), start, last in zip(arcs, starts, ends, strict=True):
        weight = math.exp(-lexicon.word_cost(word))
        transitions[begin, start] = weight  # from silence
        transitions[last, end] = SILENCE_PROBABILITY  # to silence
        final[last] = end == nodes - 1
        if begin == 0:
            initial[start] = (1 - SILENCE_PROBABILITY) * weight
        for (_, before, previous), previous_last in zip(arcs, ends, strict=True):
            if before == begin and not word == previous == UNKNOWN:
                transitions[previous_last, start] += (1 - SILENCE_PROBABILITY) * weight
    return Hmm(transitions, initial, final, np.array(pdfs), labels)


def loop(lexicon: Lexicon = ENGLISH) -> Hmm:
    """Any words in any order: the denominator of training. The same as the graphs below."""
    return hmm([(0, 0, w) for w in lexicon.words], lexicon)


@dataclass(frozen=True)
class Fst:
    """A transducer that starts in state 0: arcs (source, target, input id, output id, cost), final states."""

    arcs: list[tuple[int, int, int, int, float]]
    final: set[int]

    @property
    def states(self) -> int:
        return 1 + max(max(arc[:2]) for arc in self.arcs)


# Vosk's graphs. Transition ids: 2 * phone - 1 stays in the phone, 2 * phone enters it
# (Kaldi's "reordered" convention: the forward transition first, then the self loops).

#: A runtime grammar is a bigram model made by Vosk in which every word of a list of n costs ln n + 3 ln 2,
#: and Vosk takes graph costs by 0.9 when it ranks alternatives. With this offset taken off each word, a word
#: of a grammar of fourteen (the digits, double, triple, [unk]) costs there what a digit cost in training.
GRAMMAR_WORDS = 14
GRAMMAR_OFFSET = math.log(GRAMMAR_WORDS) + 3 * math.log(2) - DIGIT_COST / 0.9


def _stay(phone: Phone) -> int:
    return 2 * phone.id - 1


def _enter(phone: Phone) -> int:
    return 2 * phone.id


def lexicon_fst(lexicon: Lexicon = ENGLISH) -> Fst:
    """HCLr.fst: states of words with their extra costs, to be composed with Gr.fst or a runtime grammar."""
    start, any_word, known_word, after_unknown, silence = range(5)
    silence_phone = lexicon.phones[0]
    silent, direct = -math.log(SILENCE_PROBABILITY), -math.log(1 - SILENCE_PROBABILITY)
    arcs: list[tuple[int, int, int, int, float]] = []

    def arc(source: int, target: int, transition_id: int = 0, word_id: int = 0, cost: float = 0.0) -> None:
        arcs.append((source, target, transition_id, word_id, cost))

    for hub, words in ((start, any_word), (after_unknown, known_word)):
        arc(hub, words, cost=direct)
        arc(hub, silence, _enter(silence_phone), cost=silent)
    arc(silence, silence, _stay(silence_phone))
    arc(silence, any_word)
    arc(any_word, known_word)
    state = silence
    for word in lexicon.words:
        source = any_word if word == UNKNOWN else known_word
        for position, phone in enumerate(lexicon.word_phones[word]):
            state += 1
            first = position == 0
            arc(
                source,
                state,
                _enter(phone),
                lexicon.word_id[word] * first,
                (lexicon.extra_cost[word] - GRAMMAR_OFFSET) * first,
            )
            arc(state, state, _stay(phone))
            source = state
        arc(source, after_unknown if word == UNKNOWN else start)
    return Fst(arcs, {start, after_unknown, silence})


def grammar_fst(lexicon: Lexicon = ENGLISH) -> Fst:
    """Gr.fst, used when no runtime grammar is given: every word at the cost it had in training."""
    cost = DIGIT_COST + GRAMMAR_OFFSET
    return Fst([(0, 0, i, i, cost) for i in lexicon.word_id.values()], {0})
