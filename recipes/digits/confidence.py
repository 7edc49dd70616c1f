"""Fits the confidence of a digit model: ``python -m recipes.digits.confidence --model models/digits --speech DIR``.

On development speakers only, whom training sets aside: card numbers and challenges joined from their clips, in each
condition, heard as a call hears them. Writes ``confidence.json`` and the manifest into the model's folder, and prints
what each least confidence would do on speakers that were left out of the fit: the numbers found, and the neighbours of
a number said (two digits changed, issuer and last four kept) that would have been taken for it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from ivr.speech.audio import SAMPLE_RATE
from ivr.speech.confidence import FEATURES, FILE, Features, card_features, digit_features, string_features
from ivr.speech.ear import Ear
from ivr.speech.expect import Expect
from ivr.speech.numbers import Hypothesis, aligned
from ivr.speech.recogniser import DigitModel

from . import clips, kaldi, strings
from .evaluate import Spoken

PIECE = SAMPLE_RATE // 10
CHALLENGE_DIGITS = 4
_SEED, _FOLDS = 13, 7
_RIDGE = 0.01  # keeps weights finite where everything was heard right
_THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Example:
    """Something heard, and whether it was said. ``neighbour``: a number that is near to the one said, and is not."""

    speaker: str
    features: Features
    right: bool
    condition: str = ""
    neighbour: bool = False


@dataclass
class Material:
    """What was heard of the development speakers: for each regression its examples, and how many strings there were."""

    examples: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))
    strings: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, condition: str, spoken: Spoken, free: Sequence[Hypothesis], cards: Sequence[Hypothesis]) -> None:
        """One string: what the free loop heard, and what lies beside it, for card numbers."""
        said, who = spoken.digits, spoken.speaker
        for h, features in card_features(cards)[:4]:
            near = near_neighbour(said, h.digits)
            self.examples["card"].append(Example(who, features, h.digits == said, condition, near))
        if free:
            self.examples["string"].append(Example(who, string_features(free), free[0].digits == said))
            heard = [x for x in aligned(free[0].digits, said) if x[0]]
            for features, (digit, truth) in zip(digit_features(free), heard, strict=True):
                self.examples["digit"].append(Example(who, features, digit == truth))
        self.strings[condition] += bool(cards)


def near_neighbour(said: str, other: str, issuer: int = 6, last: int = 4) -> bool:
    """Another number of the same issuer's digits, last four and length, one or two digits changed."""
    if other == said or len(other) != len(said) or (other[:issuer], other[-last:]) != (said[:issuer], said[-last:]):
        return False
    return sum(a != b for a, b in zip(said, other, strict=True)) <= 2


def hear(model: DigitModel, spoken: Spoken, expect: Expect) -> tuple[tuple[Hypothesis, ...], tuple[Hypothesis, ...]]:
    """What the free loop alone heard, and all that a turn of a call has at its end."""
    ear = Ear(model, expect)
    for at in range(0, len(spoken.samples), PIECE):
        ear.hear(spoken.samples[at : at + PIECE], is_speech=True)
    return ear.hypotheses(), ear.whole_numbers()


def collect(model: DigitModel, speech: Path, per_speaker: int) -> Material:
    """Hear the development speakers: some minutes, for it takes about a thirtieth of the strings' length."""
    people = strings.several_digits(clips.load(speech, development=True).digits)
    material, started = Material(), time.monotonic()
    for seed, (condition, snr_db) in enumerate(strings.CONDITIONS.items(), start=_SEED):
        rng = np.random.default_rng(seed)
        for spoken in strings.joined(people, per_speaker, seed):
            free, cards = hear(model, strings.through(spoken, snr_db, rng), Expect.card())
            material.add(condition, spoken, free, cards)
        for spoken in strings.joined(people, per_speaker, seed, _challenge):
            free, _ = hear(model, strings.through(spoken, snr_db, rng), Expect.digits(CHALLENGE_DIGITS))
            material.add(condition, spoken, free, ())
        print(f"{condition}: {len(people)} speakers, {time.monotonic() - started:.0f} s", flush=True)
    return material


def _challenge(words: strings.Words, rng: np.random.Generator) -> str:
    return strings.digits(words, CHALLENGE_DIGITS, rng)


def fit(examples: Sequence[Example]) -> np.ndarray:
    """Bias and weights of the logistic regression (maximum likelihood, a slight ridge on the weights)."""
    inputs = np.array([(1.0, *e.features) for e in examples])
    signs = np.array([1.0 if e.right else -1.0 for e in examples])

    def loss(weights: np.ndarray) -> float:
        return float(np.logaddexp(0, -signs * (inputs @ weights)).sum() + _RIDGE * (weights[1:] ** 2).sum())

    return minimize(loss, np.zeros(inputs.shape[1])).x


def left_out(examples: Sequence[Example]) -> np.ndarray:
    """The probability of each example by a fit on other speakers."""
    fold = {s: i % _FOLDS for i, s in enumerate(sorted({e.speaker for e in examples}))}
    found = np.zeros(len(examples))
    for k in range(_FOLDS):
        weights = fit([e for e in examples if fold[e.speaker] != k])
        for i, e in enumerate(examples):
            if fold[e.speaker] == k:
                found[i] = 1 / (1 + np.exp(-np.dot(weights, (1.0, *e.features))))
    return found


def trade_off(material: Material) -> Iterator[str]:
    """A line for each least confidence: found, neighbours and other numbers among the candidates, by condition."""
    examples = material.examples["card"]
    probabilities = left_out(examples)
    counted: tuple[tuple[str, Callable[[Example], bool]], ...] = (
        ("found", lambda e: e.right),
        ("neighbours", lambda e: e.neighbour),
        ("others", lambda e: not e.right and not e.neighbour),
    )
    for least in _THRESHOLDS:
        line = f"least confidence {least}:"
        for condition, total in material.strings.items():
            sure = [e for e, p in zip(examples, probabilities, strict=True) if p >= least and e.condition == condition]
            line += f"  {condition}, {total}: " + ", ".join(f"{name} {sum(map(of, sure))}" for name, of in counted)
        yield line


def write(material: Material, model: Path) -> None:
    """Fit all three on what was heard, say how well, and put them into the model's folder."""
    calibration: dict[str, dict[str, float]] = {}
    for name, features in FEATURES.items():
        examples = material.examples[name]
        right = np.array([e.right for e in examples])
        brier = float(((left_out(examples) - right) ** 2).mean())
        weights = [round(float(w), 4) for w in fit(examples)]
        counts = {"examples": len(examples), "speakers": len({e.speaker for e in examples})}
        calibration[name] = dict(zip(("bias", *features), weights, strict=True)) | counts
        print(f"{name}: {calibration[name]}; {right.mean():.3f} right; Brier score of speakers left out {brier:.4f}")
    print("\n".join(trade_off(material)))
    (model / FILE).write_text(json.dumps(calibration, indent=1) + "\n", encoding="utf-8")
    manifest = json.loads((model / "manifest.json").read_text())
    kaldi.write_manifest(model, manifest["id"], manifest["training"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.digits.confidence", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--numbers", type=int, default=5, help="of each kind, of each speaker, in each condition")
    args = parser.parse_args()
    write(collect(DigitModel(args.model), args.speech, args.numbers), args.model)


if __name__ == "__main__":
    main()
