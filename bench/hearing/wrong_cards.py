"""Lists of cards that lie as near to the number said as an unlucky customer's, or an attacker's, could.

Every list holds one card of each class, and not the number that was said: to accept any of them is to debit the wrong
card. A list's cards are compared with the candidates as the service does, best first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from ivr.speech.pan import is_complete, luhn_check_digit

LISTS = 1000
ISSUER_DIGITS, LAST_DIGITS = 6, 4
#: The nearest neighbours: as many digits as Luhn lets through, where nobody looks at them.
NEIGHBOURS = "two digits changed"
CLASSES = (NEIGHBOURS, "neighbours swapped", "repeated digit dropped", "same issuer and last four", "other card")

Numbers = NDArray[np.int64]
_DOUBLED = np.array([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])


def two_digits_changed(said: str) -> list[str]:
    """Every card of the same issuer's digits and last four with two digits changed; Luhn leaves none with one."""
    found = set()
    for one, two in combinations(range(ISSUER_DIGITS, len(said) - LAST_DIGITS), 2):
        for pair in product("0123456789", repeat=2):
            digits = list(said)
            digits[one], digits[two] = pair
            found.add("".join(digits))
    return _cards(said, found)


def swapped(said: str) -> list[str]:
    """Two digits beside each other swapped, as it is (Luhn lets 09 and 90 through) or with its own check digit."""
    moved = [said[:i] + said[i + 1] + said[i] + said[i + 2 :] for i in range(len(said) - 1)]
    return _cards(said, {*moved, *(m[:-1] + luhn_check_digit(m[:-1]) for m in moved)})


def dropped(said: str) -> list[str]:
    """One of two same digits left out: a shorter number, or as long a one with its own check digit at the end."""
    shorter = [said[:i] + said[i + 1 :] for i in range(1, len(said)) if said[i] == said[i - 1]]
    return _cards(said, {*shorter, *(s + luhn_check_digit(s) for s in shorter)})


def _cards(said: str, found: set[str]) -> list[str]:
    return sorted(n for n in found if n != said and is_complete(n))


def alike(said: str, kept_last: int, rng: np.random.Generator, count: int = LISTS) -> Numbers:
    """Random cards of the same issuer's digits and length, that many last digits the same."""
    end = len(said) - kept_last
    digits = np.tile(np.array([int(d) for d in said]), (count, 1))
    digits[:, ISSUER_DIGITS:end] = rng.integers(0, 10, (count, end - ISSUER_DIGITS))
    doubled = np.arange(len(said) - 1, -1, -1) % 2 == 1
    digits[:, end - 1] = 0
    missing = -np.where(doubled, _DOUBLED[digits], digits).sum(1) % 10
    digits[:, end - 1] = np.argsort(_DOUBLED)[missing] if doubled[end - 1] else missing
    numbers: Numbers = digits @ (10 ** np.arange(len(said) - 1, -1, -1, dtype=np.int64))
    return np.where(numbers == int(said), 0, numbers)  # 0: no card


def lists(said: str, rng: np.random.Generator) -> Numbers:
    """(LISTS, classes): the cards of each list as numbers, 0 where a class has none for this number.

    The first three classes have few members: they are all gone through, again and again.
    """
    few: Sequence[Callable[[str], list[str]]] = (two_digits_changed, swapped, dropped)
    columns = [np.resize(np.array([int(n) for n in of(said)] or [0], np.int64), LISTS) for of in few]
    return np.stack([*columns, alike(said, LAST_DIGITS, rng), alike(said, 0, rng)], axis=1)


def accepted(said: str, candidates: Sequence[str], rng: np.random.Generator) -> Counter[str]:
    """How many of a number's lists have a card accepted, by the class of the card: that of the best candidate."""
    of_lists = lists(said, rng)
    taken = np.zeros(len(of_lists), bool)
    found: Counter[str] = Counter()
    for candidate in (int(c) for c in candidates if c != said):
        is_it = of_lists == candidate
        for i, name in enumerate(CLASSES):
            found[name] += int((is_it[:, i] & ~taken).sum())
        taken |= is_it.any(1)
    return +found
