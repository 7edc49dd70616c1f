"""Which card was said: how often the service finds it, and how often it takes another for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.hearing.ears import Answer
from bench.hearing.rates import SEED, Verdicts, rate, upper_bound
from bench.hearing.wrong_cards import CLASSES, LISTS, NEIGHBOURS, accepted
from ivr.customers.budget import FREE_IN_A_ROW
from ivr.speech.cards import LEAST_CONFIDENCE, candidates, guesses
from ivr.speech.numbers import Hypothesis
from recipes.digits.evaluate import Spoken

WANTED_STRINGS = 3000
FOUND_TARGET, ATTACKER_TARGET = 0.97, 0.01
#: What is left to guess for whoever knows eight digits of the issuer, the last four and the checksum.
LEFT_TO_GUESS = 1000
_LEAST = tuple(round(0.05 * i, 2) for i in range(20))


@dataclass(frozen=True)
class Outcome:
    """A number said, and what a first attempt would compare: found, and in how many lists another card was taken."""

    test: str
    condition: str
    speaker: str
    said: str
    numbers: tuple[Hypothesis, ...]
    found: bool
    wrong: Counter[str]


def outcome(test: str, condition: str, spoken: Spoken, answer: Answer, rng: np.random.Generator) -> Outcome:
    """What a call does with what it heard."""
    compared = candidates(answer.numbers)[: guesses(0)]
    wrong = accepted(spoken.digits, compared, rng)
    return Outcome(
        test, condition, spoken.speaker, spoken.digits, answer.numbers, spoken.digits in compared, wrong
    )


def outcomes(test: str, condition: str, spoken: Sequence[Spoken], answers: Sequence[Answer]) -> list[Outcome]:
    rng = np.random.default_rng(SEED)
    return [outcome(test, condition, s, a, rng) for s, a in zip(spoken, answers, strict=True)]


def found(of: Sequence[Outcome]) -> dict[str, object]:
    """The share of numbers found, of how many and whom, and who was found least often."""
    mine = {s: [o.found for o in of if o.speaker == s] for s in {o.speaker for o in of}}
    least = sorted((float(np.mean(f)), s) for s, f in mine.items())[:6]
    return asdict(rate(of, lambda o: o.found)) | {"fewest": {s: round(share, 3) for share, s in least}}


def wrong(of: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """By class: lists in which such a card was accepted, strings in which any was, and the bounds."""
    result = {}
    for name in CLASSES:
        strings = rate(of, lambda o, name=name: o.wrong[name] > 0)  # type: ignore[misc]
        by_string, by_speaker = upper_bound(strings)
        result[name] = {
            "lists": float(sum(o.wrong[name] for o in of)),
            "strings": float(sum(o.wrong[name] > 0 for o in of)),
            "at_most_of_strings": by_string,
            "at_most_of_speakers": by_speaker,
        }
    return result


def at_no_wrong_card(of: Sequence[Outcome]) -> tuple[float, dict[str, float]] | None:
    """The least confidence from which on no wrong card is accepted, and the share found then by test and condition.

    None where a wrong card is accepted whatever the confidence, or the model has none. For comparison: it is read off
    the test itself, which the service's own limit is not.
    """
    rng = np.random.default_rng(SEED)
    for least in _LEAST:
        taken = {i: candidates(o.numbers, least_confidence=least)[: guesses(0)] for i, o in enumerate(of)}
        if any(accepted(o.said, taken[i], rng) for i, o in enumerate(of) if set(taken[i]) - {o.said}):
            continue
        tests = sorted({(o.test, o.condition) for o in of})
        share = {
            f"{test}, {condition}": float(
                np.mean([o.said in taken[i] for i, o in enumerate(of) if (o.test, o.condition) == (test, condition)])
            )
            for test, condition in tests
        }
        return least, share
    return None


def judge(of: Sequence[Outcome], verdicts: Verdicts) -> dict[str, Any]:
    """Print what came of all card numbers, and a line for each bar; the figures for the record."""
    tests = {(o.test, o.condition): [p for p in of if (p.test, p.condition) == (o.test, o.condition)] for o in of}
    shares = {f"{test}, {condition}": found(mine) for (test, condition), mine in tests.items()}
    for (test, condition), mine in tests.items():
        share = rate(mine, lambda o: o.found)
        print(f"{test}, {condition}: the card is found in {share}, {share.speakers} people")
        if condition == "clean":
            verdicts.add(f"{test}/{condition}/cards_found", share.value, FOUND_TARGET, len(mine), at_least=True)
    by_class = wrong(of)
    people = len({o.speaker for o in of})
    print(f"wrong cards: {len(of)} strings of {people} people, each with {LISTS} lists")
    for name, counts in by_class.items():
        print(
            f"  {name}: accepted in {counts['lists']:.0f} lists of {counts['strings']:.0f} strings; with 95 % at most "
            f"{counts['at_most_of_strings']:.3%} of strings, {counts['at_most_of_speakers']:.2%} by speakers"
        )
    if best := at_no_wrong_card(of):
        then = ", ".join(f"{test} {share:.2%}" for test, share in best[1].items())
        print(f"  none from confidence {best[0]} on (the service's: {LEAST_CONFIDENCE}); found then: {then}")
    verdicts.add("wrong_cards/strings", len(of), WANTED_STRINGS, len(of), at_least=True)
    verdicts.add("wrong_cards/neighbours_accepted", by_class[NEIGHBOURS]["lists"], 0, len(of))
    verdicts.add("wrong_cards/all_accepted", sum(c["lists"] for c in by_class.values()), 0, len(of))
    chance = sum(map(guesses, range(FREE_IN_A_ROW))) / LEFT_TO_GUESS
    verdicts.add("attacker/chance_in_the_free_failures", chance, ATTACKER_TARGET, FREE_IN_A_ROW)
    return {"found": shares, "wrong": by_class, "at_no_wrong_card": best}
