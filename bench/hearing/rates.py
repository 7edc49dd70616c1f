"""Rates with intervals by speaker, and the lines that say whether a bar is reached."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol, TypeVar

import numpy as np

SEED = 11
_DRAWS = 1000


class OfSpeaker(Protocol):
    @property
    def speaker(self) -> str: ...


T = TypeVar("T", bound=OfSpeaker)


@dataclass(frozen=True)
class Rate:
    """A share, its interval of 95 % with speakers drawn with replacement, and out of what."""

    value: float
    low: float
    high: float
    count: int
    speakers: int

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} ... {self.high:.2%})"


def rate(of: Sequence[T], part: Callable[[T], float], whole: Callable[[T], float] = lambda _: 1.0) -> Rate:
    """The sum of ``part`` over the sum of ``whole``."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in of:
        sums[one.speaker][0] += part(one)
        sums[one.speaker][1] += whole(one)
    each = np.array(list(sums.values()))
    drawn = each[np.random.default_rng(SEED).integers(len(each), size=(_DRAWS, len(each)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    total = each.sum(0)
    return Rate(float(total[0] / total[1]), float(low), float(high), len(of), len(each))


def upper_bound(found: Rate) -> tuple[float, float]:
    """What a rate is at most, with 95 %: counted by strings as if all were independent, and by speakers.

    For none found, the rule of three exactly: over speakers it bounds the share of people to whom it happens.
    """
    if found.value == 0:
        return 1 - 0.05 ** (1 / found.count), 1 - 0.05 ** (1 / found.speakers)
    return found.high, found.high


@dataclass
class Verdicts:
    """Every bar's line, printed as it is reached or missed."""

    lines: list[dict[str, object]] = field(default_factory=list)

    def add(self, name: str, value: float, target: float, count: int, at_least: bool = False) -> None:
        """``PASS|MISS name value target n``; the value is to be ``target`` at most, or at least."""
        reached = value >= target if at_least else value <= target
        self.lines.append({"reached": reached, "name": name, "value": value, "target": target, "n": count})
        print(f"{'PASS' if reached else 'MISS'} {name} {value:.4f} {target:g} {count}", flush=True)

    @property
    def all_reached(self) -> bool:
        return all(line["reached"] for line in self.lines)


@dataclass(frozen=True)
class Heard:
    """One string of a test: its digits, how many were heard wrongly, and the processor time it took."""

    speaker: str
    digits: int
    errors: int
    used_s: float
    audio_s: float


def figures(heard: Sequence[Heard]) -> dict[str, object]:
    """Digit error rate, strings exact and real-time factor; speakers one by one where they are few."""
    by_speaker: dict[str, list[Heard]] = defaultdict(list)
    for h in heard:
        by_speaker[h.speaker].append(h)
    each = {s: sum(h.errors for h in hs) / sum(h.digits for h in hs) for s, hs in sorted(by_speaker.items())}
    return {
        "digit_errors": asdict(rate(heard, lambda h: h.errors, lambda h: h.digits)),
        "exact": asdict(rate(heard, lambda h: h.errors == 0)),
        "real_time_factor": sum(h.used_s for h in heard) / sum(h.audio_s for h in heard),
        "by_speaker": {s: round(e, 4) for s, e in each.items()} if len(each) <= 12 else {},
    }
