"""Which of a customer's cards was said: a few candidate numbers, compared as keyed hashes.

Pure. The numbers exist only as arguments and results here, in the memory of one turn.

A recogniser that gets one digit in a hundred wrong gets one 16-digit number in seven wrong, so the
best hypothesis alone would turn many callers away. The alternatives, and the strings one repaired
digit away from them, nearly always hold the number that was said. But each candidate is also a guess
given away: to somebody who knows a customer's issuer and last four digits, a thousand Luhn-valid
numbers remain, and eight candidates an attempt make the odds 1 in 125. Hence a limit, and a margin
that leaves candidates out when the audio was clear.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ivr.speech.numbers import Hypothesis
from ivr.speech.pan import LONGEST, SHORTEST, is_complete, luhn_sum, pan_hash

LIMIT = 8
#: Nats below the best candidate. Of 88 joined 16-digit card numbers of development speakers (clean; 15 dB), 77 %
#: are heard exactly; the first candidate is right in 82 % (85 %), one of the first four in 85 % (86 %). Most of the
#: rest are speakers one of whose few clips is mislabelled or cut off. Repairs at usual costs beside the graph's
#: numbers add nothing.
MARGIN_NATS = 3.0
#: Nats below what was heard without any rule of card numbers. Right numbers lie within 8 of it.
FREE_MARGIN_NATS = 12.0

#: By a calibrated model (ivr/speech/confidence.py): a number that was more probably not said is not compared. Of 84
#: numbers of development speakers (clean; 15 dB; 5 dB) a neighbour, two digits changed, is then among the candidates of
#: 0, 0, 1, against 2, 1, 7 by the margins alone, and the number said is found in 65, 65, 47, against 70, 68, 64.
LEAST_CONFIDENCE = 0.5

#: Nats by which a repaired string is less likely than the hypothesis it repairs. The order is measured, the
#: figures are not critical: twice as much for all of them finds as many cards.
CONFUSABLE_NATS = 4.0
SUBSTITUTION_NATS = 6.0
INSERTION_NATS = 6.0  # a digit was said and not heard
DELETION_NATS = 7.0  # a digit was heard and not said
REPEATED_NATS = 5.0  # either, beside the same digit: "two two two" heard as "two two"

#: What the shipped model confuses most on people it has not heard; no other pair makes a twentieth of its errors.
CONFUSABLE = frozenset(frozenset(pair) for pair in ("38", "59", "68", "07", "23", "27", "24", "04", "28"))


#: Candidates that may be compared after so many failures of a customer in a row; after more, the last. In the five
#: free failures these are nine guesses, and 1,000 numbers remain to whoever knows an issuer's eight digits and the
#: last four: fewer than one in a hundred.
GUESSES = (4, 2, 1, 1, 1)


def guesses(failures: int) -> int:
    """How many candidates an attempt may compare after so many failures in a row."""
    return GUESSES[min(failures, len(GUESSES) - 1)]


class MissingKey(LookupError):
    """A card's hash was made under a key that is not at hand: the key file lost it."""


@dataclass(frozen=True)
class CardHash:
    """An authorised card as the database knows it: the keyed hash of its number, and which key."""

    card_id: str
    key_id: str
    digest: bytes = field(repr=False)


def candidates(
    hypotheses: Sequence[Hypothesis],
    limit: int = LIMIT,
    margin_nats: float = MARGIN_NATS,
    least_confidence: float = LEAST_CONFIDENCE,
) -> list[str]:
    """Whole card numbers (possible length, right check digit) that may have been said, best first.

    With a graph of whole card numbers (recipes/digits/cards.py) the hypotheses hold every number that fits the
    audio, each with its own score. Where none is whole, each of unknown confidence is repaired by one digit in every
    way that makes it so, at usual costs: for models without that graph, beside which a repair is a guess that nothing
    heard speaks for. At most ``limit``, none more than ``margin_nats`` below the
    best candidate, none more than FREE_MARGIN_NATS below the best of all, which says that it was no card number, and
    none that was said less probably than ``least_confidence``, as far as that is known.
    """
    best = max((h.score for h in hypotheses), default=0.0)
    heard = _substitutions_heard(hypotheses, best)
    costs: dict[str, float] = {}
    whole = [h for h in hypotheses if is_complete(h.digits)]
    unsure = {h.digits for h in whole if h.confidence is not None and h.confidence < least_confidence}
    for hypothesis in whole or [h for h in hypotheses if h.confidence is None]:
        for pan, repair in [(hypothesis.digits, 0.0)] if whole else _repairs(hypothesis.digits, heard):
            cost = best - hypothesis.score + repair
            costs[pan] = min(cost, costs.get(pan, cost))
    worst = min(min(costs.values(), default=0.0) + margin_nats, FREE_MARGIN_NATS)
    near = [pan for pan in costs if costs[pan] <= worst and pan not in unsure]
    return sorted(near, key=lambda pan: (costs[pan], pan))[:limit]


def which_card(
    candidates: Sequence[str], customer_id: str, cards: Sequence[CardHash], keys: Mapping[str, bytes]
) -> str | None:
    """The id of the customer's card that the best matching candidate is, or None.

    Takes the same time whatever matches: always LIMIT hashes a key, every hash compared with every
    card, each comparison constant-time. Raises MissingKey when a card names a key not in ``keys``.
    """
    guesses = [*candidates[:LIMIT], *[""] * (LIMIT - len(candidates))]  # "" is no card's number
    digests = {key_id: [pan_hash(key, customer_id, guess) for guess in guesses] for key_id, key in keys.items()}
    matches: list[str | None] = [None] * LIMIT
    for card in cards:
        if card.key_id not in digests:
            raise MissingKey(f"card {card.card_id} was hashed under key {card.key_id}, which the key file lacks")
        for rank, digest in enumerate(digests[card.key_id]):
            equal = hmac.compare_digest(digest, card.digest)
            matches[rank] = card.card_id if equal and guesses[rank] else matches[rank]
    return next((card_id for card_id in matches if card_id), None)


def _substitutions_heard(hypotheses: Sequence[Hypothesis], best: float) -> dict[tuple[int, int, str], float]:
    """(length, position, digit) to nats: how far below the best are alternatives that heard it there."""
    heard: dict[tuple[int, int, str], float] = {}
    for hypothesis in hypotheses:
        for position, digit in enumerate(hypothesis.digits):
            key = (len(hypothesis.digits), position, digit)
            heard[key] = min(heard.get(key, SUBSTITUTION_NATS), best - hypothesis.score)
    return heard


def _repairs(digits: str, heard: Mapping[tuple[int, int, str], float]) -> Iterator[tuple[str, float]]:
    """Every whole card number one digit away, with its cost in nats."""
    if not SHORTEST - 1 <= len(digits) <= LONGEST + 1:
        return
    for pan, cost in (*_substituted(digits, heard), *_inserted(digits), *_deleted(digits)):
        if is_complete(pan):
            yield pan, cost


def _substituted(digits: str, heard: Mapping[tuple[int, int, str], float]) -> Iterator[tuple[str, float]]:
    for position, old in enumerate(digits):
        new = _checking_digit(digits, position)
        usual = CONFUSABLE_NATS if frozenset((old, new)) in CONFUSABLE else SUBSTITUTION_NATS
        cost = min(usual, heard.get((len(digits), position, new), usual))
        yield digits[:position] + new + digits[position + 1 :], cost


def _inserted(digits: str) -> Iterator[tuple[str, float]]:
    for position in range(len(digits) + 1):
        longer = digits[:position] + "0" + digits[position:]
        new = _checking_digit(longer, position)
        repeated = new in digits[max(position - 1, 0) : position + 1]
        cost = REPEATED_NATS if repeated else INSERTION_NATS
        yield longer[:position] + new + longer[position + 1 :], cost


def _deleted(digits: str) -> Iterator[tuple[str, float]]:
    for position, old in enumerate(digits):
        rest = digits[:position] + digits[position + 1 :]
        repeated = old in rest[max(position - 1, 0) : position + 1]
        yield rest, REPEATED_NATS if repeated else DELETION_NATS


def _checking_digit(digits: str, position: int) -> str:
    """The one digit that, put at ``position``, makes the checksum right."""
    missing = -luhn_sum(digits[:position] + "0" + digits[position + 1 :]) % 10
    doubled = (len(digits) - position) % 2 == 0
    return str(_UNDOUBLED[missing] if doubled else missing)


#: The digit whose Luhn double (9 taken off above 9) is the index.
_UNDOUBLED = (0, 5, 1, 6, 2, 7, 3, 8, 4, 9)
