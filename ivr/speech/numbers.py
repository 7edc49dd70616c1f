"""Spoken numbers: from the words heard to the digit strings they may mean. Pure.

People read card numbers digit by digit ("four two oh"), with "double" and "triple", in pairs
("forty-two forty-two", "nineteen oh five"), in groups ("four hundred", "forty-two hundred"), and
correct themselves ("no ...", "start again"). Some of it is ambiguous ("forty, two" is 42 or 402), so
a reading carries a cost in nats: how much less usual it is than the plainest one. Mandarin numbers are
read digit by digit; no word is in both languages, so nobody needs to say which one was heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf

from ivr.speech import mandarin

# fmt: off
DIGITS = {
    "zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}
TEENS = {
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19",
}
TENS = {
    "twenty": "2", "thirty": "3", "forty": "4", "fifty": "5",
    "sixty": "6", "seventy": "7", "eighty": "8", "ninety": "9",
}
# fmt: on
TIMES = {"double": 2, "triple": 3}
HUNDRED = "hundred"
CORRECTION = "no"
RESTART = ("start", "again")

#: Digit words of all languages.
DIGIT_OF = DIGITS | mandarin.DIGITS
_CORRECTIONS = (CORRECTION, *mandarin.CORRECTIONS)
_RESTARTS = (RESTART, mandarin.RESTART)

#: Words that bring digits by themselves.
NUMBER_WORDS = frozenset((*DIGIT_OF, *TEENS, *TENS))
#: Every English word the parser understands; anything else is passed over, as noise between digits.
WORDS = (*DIGITS, *TIMES, *TEENS, *TENS, HUNDRED, CORRECTION, *RESTART)

#: Nats a reading costs. Chosen, not learnt: no corpus of corrected card numbers exists.
TENS_AND_UNIT_APART = 3.0  # "forty, two" for 402
HUNDRED_APART = 1.0  # "one hundred, five" for 1005, against 105
CORRECTION_OF_ONE_DIGIT = 0.5  # "four five, no, six": 46
CORRECTION_OF_MORE = 1.5  # two to four digits back, or all; times the share of them that the new ones change
CORRECTION_MISHEARD = 3.0  # no "no" was said

_LONGEST_CORRECTED_GROUP = 4
_MAX_READINGS = 32
MAX_HYPOTHESES = 64


@dataclass(frozen=True)
class Reading:
    """One meaning of the words; ``cost`` in nats, 0 for the plainest."""

    digits: str = field(repr=False)
    cost: float


@dataclass(frozen=True)
class Hypothesis:
    """One digit string a caller may have said; ``score`` in nats, comparable within one turn only.

    ``confidence``: the probability that it was said, where the model is calibrated and was asked.
    """

    digits: str = field(repr=False)
    score: float
    confidence: float | None = None


def hypotheses(alternatives: Iterable[tuple[Sequence[str], float]], limit: int = MAX_HYPOTHESES) -> list[Hypothesis]:
    """The digit strings behind a recogniser's alternatives (words, score), best first, each once."""
    best: dict[str, float] = {}
    for words, score in alternatives:
        for reading in readings(words):
            best[reading.digits] = max(best.get(reading.digits, -inf), score - reading.cost)
    ranked = sorted(best.items(), key=lambda item: -item[1])
    return [Hypothesis(digits, score) for digits, score in ranked[:limit]]


def readings(words: Sequence[str]) -> list[Reading]:
    """What ``words`` may mean as a digit string, plainest first; at most 32, at least one (perhaps empty)."""
    heard: dict[str, float] = {"": 0.0}
    for index, group in enumerate(_between_corrections(_since_restart(words))):
        said = _group_readings(group)
        heard = said if index == 0 else _best(_corrected(heard, said))
    return [Reading(digits, cost) for digits, cost in heard.items()]


def plainest(words: Sequence[str]) -> str:
    """The digits that ``words`` most simply mean."""
    return readings(words)[0].digits


def _since_restart(words: Sequence[str]) -> Sequence[str]:
    for end in range(len(words), 0, -1):
        if any(tuple(words[max(0, end - len(said)) : end]) == said for said in _RESTARTS):
            return words[end:]
    return words


def _between_corrections(words: Sequence[str]) -> Iterator[Sequence[str]]:
    start = 0
    for index, word in enumerate(words):
        if word in _CORRECTIONS:
            yield words[start:index]
            start = index + 1
    yield words[start:]


def _corrected(before: dict[str, float], after: dict[str, float]) -> Iterator[tuple[str, float]]:
    """``before`` "no" ``after``: the last one to four digits, or all, are replaced."""
    for old, old_cost in before.items():
        for new, new_cost in after.items():
            cost = old_cost + new_cost
            yield old + new, cost + CORRECTION_MISHEARD
            backs = {*range(1, min(_LONGEST_CORRECTED_GROUP, len(old)) + 1), len(old)} - {0}
            for back in backs:
                yield old[: len(old) - back] + new, cost + _correction_cost(old[len(old) - back :], new)


def _correction_cost(old: str, new: str) -> float:
    """People who take back a group say it again from its start: "one two one four, no, one two one five"."""
    if len(old) == 1:
        return CORRECTION_OF_ONE_DIGIT
    repeated = sum(a == b for a, b in zip(old, new, strict=False))
    return CORRECTION_OF_MORE * (1 - repeated / len(old))


def _group_readings(words: Sequence[str]) -> dict[str, float]:
    """The readings of words without a correction among them: digits to cost."""
    reached: list[dict[str, float]] = [{} for _ in range(len(words) + 1)]
    reached[0][""] = 0.0
    for start in range(len(words)):
        if not reached[start]:
            continue
        prefixes = _best(reached[start].items())
        for end, digits, cost in _items(words, start):
            for prefix, so_far in prefixes.items():
                longer = prefix + digits
                reached[end][longer] = min(reached[end].get(longer, inf), so_far + cost)
    return _best(reached[-1].items())


def _items(words: Sequence[str], start: int) -> Iterator[tuple[int, str, float]]:
    """Every number item that begins at ``start``: (where it ends, its digits, its cost)."""
    times = TIMES.get(words[start])
    if times:
        item = next(_plain_items(words, start + 1), None)
        if item is None:
            yield start + 1, "", 0.0  # "double" of nothing: passed over
        else:
            yield item[0], item[1] * times, item[2]
        return
    found = False
    for end, digits, cost in _plain_items(words, start):
        found = True
        if _at(words, end) == HUNDRED:
            yield from _hundreds(words, end + 1, digits, cost)
        else:
            yield end, digits, cost
    if not found:
        yield start + 1, "", 0.0


def _plain_items(words: Sequence[str], start: int) -> Iterator[tuple[int, str, float]]:
    """A digit, a teen, or a multiple of ten with or without its unit; the plainest first."""
    word = _at(words, start)
    if word in DIGIT_OF:
        yield start + 1, DIGIT_OF[word], 0.0
    elif word in TEENS:
        yield start + 1, TEENS[word], 0.0
    elif word in TENS:
        unit = DIGITS.get(_at(words, start + 1), "0")
        if unit != "0":
            yield start + 2, TENS[word] + unit, 0.0
        yield start + 1, TENS[word] + "0", TENS_AND_UNIT_APART if unit != "0" else 0.0


def _hundreds(words: Sequence[str], start: int, digits: str, cost: float) -> Iterator[tuple[int, str, float]]:
    """``digits`` hundred: 400, and with what follows up to 99: "four hundred twelve" for 412."""
    rest = next(_plain_items(words, start), None)
    yield start, digits + "00", cost + (HUNDRED_APART if rest else 0.0)
    if rest:
        yield rest[0], digits + rest[1].zfill(2), cost + rest[2]


def _at(words: Sequence[str], index: int) -> str:
    return words[index] if index < len(words) else ""


def _best(scored: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The cheapest readings, cheapest first, each once, at its cheapest."""
    cheapest: dict[str, float] = {}
    for digits, cost in scored:
        cheapest[digits] = min(cheapest.get(digits, inf), cost)
    return dict(nsmallest(_MAX_READINGS, cheapest.items(), key=lambda item: item[1]))


def varied(digits: Iterable[str], count: int) -> str:
    """The first ``count`` of random digits, none more than twice: a voice is known by how many sounds it makes."""
    chosen = ""
    for digit in digits:
        if chosen.count(digit) < 2:
            chosen += digit
        if len(chosen) == count:
            break
    return chosen


def edit_distance(a: str, b: str) -> int:
    """The fewest digits substituted, inserted or deleted that turn ``a`` into ``b`` (Levenshtein)."""
    return sum(x != y for x, y in aligned(a, b))


def aligned(said: str, heard: str) -> list[tuple[str, str]]:
    """Digit by digit with the fewest edits: (said, heard), "" where one has no digit."""
    rows = [[*range(len(heard) + 1)]]
    for i, x in enumerate(said):
        row = [i + 1]
        for j, y in enumerate(heard):
            row.append(min(rows[i][j] + (x != y), rows[i][j + 1] + 1, row[j] + 1))
        rows.append(row)
    pairs: list[tuple[str, str]] = []
    i, j = len(said), len(heard)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (said[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((said[i], heard[j]))
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            pairs.append((said[i], ""))
        else:
            j -= 1
            pairs.append(("", heard[j]))
    return pairs[::-1]
