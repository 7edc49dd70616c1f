"""The graph of whole card numbers, ``graph/HCLG.card.fst``: 12 to 19 digits with a right check digit.

The best paths through it are the possible numbers in the order of how well they fit the audio, missing, added and
changed digits included. It accepts something whatever is said, so its scores mean something only against those of
the free loop of words on the same audio; with the costs below the same words score the same in both.

It is composed with the words' states here, not by Vosk while it hears: all callers share one graph, where each would
compose it for himself, at 2.6 MB for eight seconds of speech.

``python -m recipes.digits.cards models/digits`` writes it into a model that lies there.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path

from ivr.speech.numbers import DIGIT_OF
from ivr.speech.recogniser import CARD_GRAPH, Grammar

from . import kaldi
from .graphs import Fst, lexicon_fst
from .lexicon import ENGLISH, UNKNOWN, Lexicon

SHORTEST, LONGEST = 12, 19
TIMES = {"double": 2, "triple": 3}


def costs(grammar: tuple[str, ...]) -> dict[str, float]:
    """What Vosk makes a word of a grammar cost: it is one of so many entries of the list."""
    listed = Counter(grammar)
    return {w: math.log(listed.total() / n) + 3 * math.log(2) for w, n in listed.items()}


#: Whether the number has an odd or even length (which settles what digits the checksum doubles), digits so far,
#: checksum so far, and how many times the next digit counts.
State = tuple[int, int, int, int]
_START = (-1, 0, 0, 1)


def _after(state: State, digit: int) -> State | None:
    """The state after ``digit``, said as often as the state wants it; None when the number gets too long."""
    parity, count, checksum, times = state
    for _ in range(times):
        doubled = (parity - 1 - count) % 2 == 1
        checksum += 2 * digit - 9 * (digit > 4) if doubled else digit
        count += 1
    return (parity, count, checksum % 10, 1) if count <= LONGEST else None


def card_fst(lexicon: Lexicon = ENGLISH, grammar: tuple[str, ...] = Grammar.CARD.value) -> Fst:
    """The acceptor, over word ids; words for one digit (zero, oh) are written as one, so that one number is one path.

    [unk] may lie around. ``grammar``: the words that the service listens for in a card number.
    """
    ids = {_START: 0}
    arcs: list[tuple[int, int, int, int, float]] = []
    cost = costs(grammar)
    value = {word: DIGIT_OF[word] for word in cost if word in DIGIT_OF}
    times_of = {word: times for word, times in TIMES.items() if word in cost}

    def arc(source: State, target: State, word: str) -> None:
        written = lexicon.digits[int(value[word])] if word in value else word
        said, shown = lexicon.word_id[word], lexicon.word_id[written]
        arcs.append((ids[source], ids.setdefault(target, len(ids)), said, shown, cost[word]))

    waiting = [_START]
    while waiting:
        state = waiting.pop()
        for parity in (0, 1) if state == _START else (state[0],):
            here = (parity, *state[1:])
            targets = [(word, _after(here, int(digit))) for word, digit in value.items()]
            if here[3] == 1:
                targets += [(word, (*here[:3], times)) for word, times in times_of.items()]
            for word, target in targets:
                if target is None:
                    continue
                if target not in ids:
                    waiting.append(target)
                arc(state, target, word)
    whole = {
        state
        for state in ids
        if state[1] >= SHORTEST and state[1] % 2 == state[0] and state[2] == 0 and state[3] == 1
    }
    for state in {_START, *whole}:
        arc(state, state, UNKNOWN)
    return Fst(arcs, {ids[state] for state in whole})


def composed(lexicon: Fst, grammar: Fst) -> Fst:
    """Both in one: what the lexicon reads, for the words that the grammar accepts, at the sum of their costs."""
    words: dict[int, dict[int, list[tuple[int, int, float]]]] = defaultdict(lambda: defaultdict(list))
    for source, target, word, written, cost in grammar.arcs:
        words[source][word].append((target, written, cost))
    states: dict[int, list[tuple[int, int, int, float]]] = defaultdict(list)
    for source, target, transition, word, cost in lexicon.arcs:
        states[source].append((target, transition, word, cost))
    ids = {(0, 0): 0}
    arcs: list[tuple[int, int, int, int, float]] = []
    waiting = [(0, 0)]
    while waiting:
        here = waiting.pop()
        for target, transition, word, cost in states[here[0]]:
            for after, written, more in words[here[1]][word] if word else [(here[1], 0, 0.0)]:
                there = (target, after)
                if there not in ids:
                    ids[there] = len(ids)
                    waiting.append(there)
                arcs.append((ids[here], ids[there], transition, written, cost + more))
    final = {i for (state, word_state), i in ids.items() if state in lexicon.final and word_state in grammar.final}
    return Fst(arcs, final)


def write(model: Path, lexicon: Lexicon = ENGLISH, grammar: tuple[str, ...] = Grammar.CARD.value) -> None:
    """Put the graph into a model's folder."""
    graph = composed(lexicon_fst(lexicon), card_fst(lexicon, grammar))
    (model / "graph" / CARD_GRAPH).write_bytes(kaldi.openfst(graph, sort_by_output=False))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    kaldi.write_manifest(folder, manifest["id"], manifest["training"])
