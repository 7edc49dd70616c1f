"""Whether confidence means what it says: of what was heard with 0.9, nine in ten should be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.hearing.ears import Answer
from ivr.speech.confidence import Calibration
from ivr.speech.numbers import aligned
from ivr.speech.pan import is_complete
from recipes.digits.evaluate import Spoken

BINS = 10


@dataclass(frozen=True)
class Judged:
    """Something heard: how sure we were, and whether it was right."""

    speaker: str
    confidence: float
    right: bool


def of_numbers(spoken: Sequence[Spoken], answers: Sequence[Answer]) -> Iterator[Judged]:
    """The best whole card number of each turn."""
    for s, a in zip(spoken, answers, strict=True):
        known = [h for h in a.numbers if is_complete(h.digits)]
        if known:
            best = max(known, key=lambda h: h.score)
            yield Judged(s.speaker, float(best.confidence or 0.0), best.digits == s.digits)


def of_digits(calibration: Calibration, spoken: Sequence[Spoken], answers: Sequence[Answer]) -> Iterator[Judged]:
    """Each digit of the best string of the free loop."""
    for s, a in zip(spoken, answers, strict=True):
        if a.free:
            truths = [heard == said for heard, said in aligned(a.free[0].digits, s.digits) if heard]
            for confidence, right in zip(calibration.of_digits(a.free), truths, strict=True):
                yield Judged(s.speaker, confidence, right)


def figures(judged: Sequence[Judged]) -> dict[str, object]:
    """Expected calibration error, Brier score, and a row for each of ten equal steps of confidence."""
    confidence = np.array([j.confidence for j in judged])
    right = np.array([j.right for j in judged], float)
    step = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = [
        {
            "confidence": float(confidence[step == b].mean()),
            "right": float(right[step == b].mean()),
            "n": int((step == b).sum()),
        }
        for b in range(BINS)
        if (step == b).any()
    ]
    error = sum(r["n"] * abs(r["confidence"] - r["right"]) for r in rows) / len(judged)
    return {
        "n": len(judged),
        "speakers": len({j.speaker for j in judged}),
        "right": float(right.mean()),
        "expected_calibration_error": float(error),
        "brier": float(((confidence - right) ** 2).mean()),
        "bins": rows,
    }


def plot(kinds: Mapping[str, Mapping[str, object]], path: Path) -> None:
    """The reliability plot: how much was right, over how sure we were; points as large as they are many."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(kinds), figsize=(5 * len(kinds), 4.6), squeeze=False)
    for axis, (name, found) in zip(axes[0], kinds.items(), strict=True):
        rows: list[dict[str, float]] = found["bins"]  # type: ignore[assignment]
        total = sum(r["n"] for r in rows)
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axis.plot([r["confidence"] for r in rows], [r["right"] for r in rows], color="tab:blue", linewidth=1)
        sizes = [20 + 300 * r["n"] / total for r in rows]
        axis.scatter([r["confidence"] for r in rows], [r["right"] for r in rows], s=sizes, color="tab:blue")
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that was right", title=name)
        text = f"n {found['n']}, {found['speakers']} speakers\nECE {found['expected_calibration_error']:.3f}"
        axis.text(0.04, 0.94, f"{text}\nBrier {found['brier']:.3f}", va="top", transform=axis.transAxes)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
