"""The two pictures of a report: detection error trade-off, and where the scores lie. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from voiceprint.errors import MissingExtra
from voiceprint.metrics import Ranked, TrialScores, equal_error_rate, error_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DET, HISTOGRAM = "det.png", "histogram.png"
_SHARES = np.array([0.0001, 0.001, 0.01, 0.05, 0.2, 0.5])
_BLUE, _ORANGE = "#0b5fa5", "#c8500a"


def draw(trials: TrialScores, folder: Path) -> list[Path]:
    """Writes ``det.png`` and ``histogram.png`` into ``folder``. Raises MissingExtra without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("plots need matplotlib: pip install 'pay-by-voice[plots]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawn in ((DET, _det), (HISTOGRAM, _histogram)):
        figure = Figure(figsize=(6, 5), layout="constrained")
        drawn(trials, figure)
        figure.savefig(folder / name, dpi=120)
        written.append(folder / name)
    return written


def _det(trials: TrialScores, figure: Figure) -> None:
    """Both error rates on normal deviates; beyond the dotted lines fewer than thirty errors were seen."""
    ranked = Ranked(trials)
    fnmr, fmr = error_curve(*ranked.steps(np.ones(len(ranked.same))))
    lowest = 1 / max(trials.impostor, 10)
    shares = norm.cdf(np.linspace(norm.ppf(lowest), norm.ppf(0.5), 400))
    missed = fnmr[np.searchsorted(-fmr, -shares)]
    axes = figure.subplots()
    axes.plot(norm.ppf(shares), norm.ppf(np.clip(missed, 1e-5, 1 - 1e-5)), color=_BLUE)
    eer = equal_error_rate(fnmr, fmr)
    if 0 < eer < 1:
        axes.plot(norm.ppf(eer), norm.ppf(eer), "o", color=_BLUE, label=f"EER {100 * eer:.2f} %")
        axes.legend(frameon=False)
    for errors, line in ((30 / trials.impostor, axes.axvline), (30 / trials.genuine, axes.axhline)):
        if errors < 0.5:
            line(norm.ppf(errors), color="grey", linestyle=":")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(norm.ppf(_SHARES), [f"{100 * s:g}" for s in _SHARES])
    axes.set(
        xlabel="false match rate, %", ylabel="false non-match rate, %", title="Detection error trade-off",
        xlim=norm.ppf((_SHARES[0], 0.6)), ylim=norm.ppf((_SHARES[0], 0.6)),
    )  # fmt: skip
    axes.grid(alpha=0.3)


def _histogram(trials: TrialScores, figure: Figure) -> None:
    axes = figure.subplots()
    bins = np.linspace(trials.score.min(), trials.score.max(), 60).tolist()
    for which, name, colour in ((~trials.same, "impostor", _ORANGE), (trials.same, "genuine", _BLUE)):
        label = f"{name}, {int(which.sum()):,}"
        axes.hist(trials.score[which], bins=bins, density=True, alpha=0.6, color=colour, label=label)
    axes.set(xlabel="log-likelihood ratio, nats", ylabel="density", title="Scores")
    axes.legend(frameon=False)
