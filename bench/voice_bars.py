"""The bars of ``bench.voice``, each printed as ``PASS|MISS name value [95 % interval] target n``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from voiceprint.metrics import Ranked, Rate, TrialScores, equal_error_rate, error_curve

#: EER of digit strings of held-out speakers over the telephone, and with noise.
EER_LIMITS = {"digits": 0.02, "digits-noise": 0.04}
FNMR_LIMIT = 0.08
#: Conditions in which resemblyzer is to be beaten by a third; FSDD, six men, is reported and is no bar.
DIGITS = ("digits", "digits-3-against-3", "digits-noise", "digits-3-against-3-noise")
#: Half the leak detector's EER is to be reached where noise hides the recording's room.
LEAKY = ("digits-noise", "digits-3-against-3-noise")
RESAMPLES = 200


class Bars:
    """Prints the bars as they are judged and remembers whether any was missed."""

    def __init__(self) -> None:
        self.missed = 0
        self.rows: list[dict[str, Any]] = []

    def below(self, name: str, value: float, target: float, n: int, between: tuple[float, float] | None = None) -> None:
        passed = value <= target
        self.missed += not passed
        row = {"name": name, "value": value, "target": target, "n": n, "passed": passed, "interval": between}
        self.rows.append(row)
        interval = f" [{between[0]:.4g}-{between[1]:.4g}]" if between else ""
        print(f"{'PASS' if passed else 'MISS'} {name} {value:.4g}{interval} <={target:g} n={n}", flush=True)


def shown(rate: Rate) -> str:
    return f"{100 * rate.value:5.2f} % [{100 * rate.low:.2f}-{100 * rate.high:.2f}]"


def eer_ratio(ours: TrialScores, other: TrialScores) -> Rate:
    """Our EER as a share of another's on the same trials; the interval draws the same speakers for both."""
    ratios = [a / max(b, 1e-6) for a, b in zip(_eers(ours), _eers(other), strict=True)]
    low, high = np.nanpercentile(ratios[1:], [2.5, 97.5])
    return Rate(ratios[0], float(low), float(high))


def _eers(trials: TrialScores) -> Iterator[float]:
    """Of all trials, then of each draw of speakers."""
    ranked = Ranked(trials)
    yield equal_error_rate(*error_curve(*ranked.steps(np.ones(len(ranked.same)))))
    for weight in ranked.draws(RESAMPLES):
        yield equal_error_rate(*error_curve(*ranked.steps(weight)))


def judge(report: dict[str, Any], bars: Bars) -> None:
    """All bars, of what was measured: without the peers those that compare with them are left out."""
    conditions = report["conditions"]
    for name, limit in EER_LIMITS.items():
        found, rates = conditions[name], conditions[name]["ours"]
        _rate(bars, f"voice-eer-{name}", rates["eer"], limit, found["genuine"] + found["impostor"])
        _rate(bars, f"voice-fnmr-at-fmr-1pct-{name}", rates["fnmr_at_fmr_1pct"], FNMR_LIMIT, found["genuine"])
    for peer, names, limit in (("resemblyzer", DIGITS, 2 / 3), ("mfcc", LEAKY, 1 / 2)):
        for name in names:
            found = conditions[name]
            if peer in found:
                ratio, n = found[peer]["our_eer_as_a_share"], found["genuine"] + found["impostor"]
                _rate(bars, f"voice-eer-against-{peer}-{name}", ratio, limit, n)
    calls = report["fsdd_decisions"]["telephone"]
    owner, another = calls["owner"], calls["another"]
    n = sum(owner.values())
    bars.below("voice-fsdd-owner-not-matched", 1 - owner["match"] / max(1, n), 0.1, n)
    bars.below("voice-fsdd-another-matched", another["match"], 0, sum(another.values()))
    bars.below("voice-embedding-8s-ms", report["embedding_8s_ms"], 100, 9)
    bars.below("voice-encoder-bytes", report["encoder_bytes"], 15_000_000, 1)


def _rate(bars: Bars, name: str, rate: dict[str, float], target: float, n: int) -> None:
    bars.below(name, rate["value"], target, n, (rate["low"], rate["high"]))
