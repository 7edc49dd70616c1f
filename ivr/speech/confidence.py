"""How sure it is that what was heard was said: probabilities, from how far the alternatives lie apart. Pure.

Scores of a recogniser are no probabilities: they are overconfident, and their origin changes with every turn. Three
logistic regressions over differences of scores, fitted on people set aside from the training
(``python -m recipes.digits.confidence``), make them such. They are for us: nothing that a caller hears depends on them
but whether a number was heard well enough to be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from pathlib import Path
from typing import Any

from ivr.speech.numbers import Hypothesis, aligned
from ivr.speech.pan import is_complete

FILE = "confidence.json"
#: Nats. Lattices end at five below the best path, and often before: a lead above four means nothing more. Measured on
#: speakers left out of the fit: with 4 for a cap the log loss for card numbers is 0.196, with 5 0.200, with 8 0.213.
LEAD_CAP = 4.0
BEHIND_CAP = 8.0

#: Of what stands in a turn: how far a number leads the others like it, and lies behind the best of all.
Features = tuple[float, ...]


class CalibrationError(ValueError):
    """A calibration file that cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class Logistic:
    """A probability: the logistic of ``bias`` plus weights times features."""

    bias: float
    weights: tuple[float, ...]

    def __call__(self, features: Features) -> float:
        return 1 / (1 + exp(-self.bias - sum(w * f for w, f in zip(self.weights, features, strict=True))))


#: The names of the features, by what is asked: whether a whole card number, a string, a digit was heard right.
FEATURES: Mapping[str, tuple[str, ...]] = {
    "card": ("lead", "behind"),
    "string": ("lead", "log_length"),
    "digit": ("lead",),
}


@dataclass(frozen=True)
class Calibration:
    """The three regressions of a model."""

    card: Logistic
    string: Logistic
    digit: Logistic

    @classmethod
    def read(cls, folder: Path) -> Calibration | None:
        """That of the model in ``folder``; None where it has none, as models of others. Raises CalibrationError."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{n: Logistic(found[n]["bias"], tuple(found[n][f] for f in FEATURES[n])) for n in FEATURES})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{path} is no calibration of confidence") from error

    def with_confidence(self, hypotheses: Sequence[Hypothesis], whole_cards: bool) -> list[Hypothesis]:
        """The hypotheses, each whole card number, or the best string, with the probability that it was said."""
        if whole_cards:
            known = {h.digits: self.card(f) for h, f in card_features(hypotheses)}
        else:
            known = {hypotheses[0].digits: self.string(string_features(hypotheses))} if hypotheses else {}
        return [Hypothesis(h.digits, h.score, known.get(h.digits, h.confidence)) for h in hypotheses]

    def of_digits(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        """For each digit of the best string the probability that it was said there."""
        return [self.digit(features) for features in digit_features(hypotheses)]


def card_features(hypotheses: Sequence[Hypothesis]) -> list[tuple[Hypothesis, Features]]:
    """Every whole card number, with its lead over the other whole ones and how far it is behind the best of all."""
    best = max((h.score for h in hypotheses), default=0.0)
    whole = [h for h in hypotheses if is_complete(h.digits)]
    return [(h, (_lead(whole, [other is h for other in whole]), min(best - h.score, BEHIND_CAP))) for h in whole]


def string_features(hypotheses: Sequence[Hypothesis]) -> Features:
    """Of the best string: its lead over all others, and its length."""
    return _lead(hypotheses, [i == 0 for i in range(len(hypotheses))]), log(max(1, len(hypotheses[0].digits)))


def digit_features(hypotheses: Sequence[Hypothesis]) -> list[Features]:
    """Of each digit of the best string: the lead of the strings that have it there."""
    if not hypotheses:
        return []
    best = hypotheses[0].digits
    agreeing = [[said == heard for said, heard in aligned(best, h.digits) if said] for h in hypotheses]
    return [(_lead(hypotheses, there),) for there in zip(*agreeing, strict=True)]


def _lead(hypotheses: Sequence[Hypothesis], ours: Sequence[bool]) -> float:
    """Nats by which the likelihood of ours exceeds that of the others, within the cap."""
    top = max(h.score for h in hypotheses)
    for_us = sum(exp(h.score - top) for h, our in zip(hypotheses, ours, strict=True) if our)
    against = sum(exp(h.score - top) for h, our in zip(hypotheses, ours, strict=True) if not our)
    lead = log(for_us / against) if for_us and against else inf if for_us else -inf
    return max(-LEAD_CAP, min(LEAD_CAP, lead))
