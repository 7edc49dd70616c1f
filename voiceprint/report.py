"""Figures of a verification system in words, with what their number of trials can and cannot prove."""

from __future__ import annotations

from collections.abc import Iterator

from voiceprint.metrics import LEAST_PAIRS, TARGET_PRIOR, Figures, Rate, TrialScores


def report(trials: TrialScores, figures: Figures) -> str:
    """Several lines of text: the trials, the figures with 95 % intervals, what they prove."""
    return "\n".join([*_counts(trials), "", *_table(trials, figures), "", *_proof(trials)])


def _counts(trials: TrialScores) -> Iterator[str]:
    yield (
        f"{trials.genuine:,} genuine and {trials.impostor:,} impostor trials of {trials.speakers:,} speakers,"
        f" {trials.impostor_pairs:,} different pairs of them"
    )


def _table(trials: TrialScores, figures: Figures) -> Iterator[str]:
    yield f"{'':24}{'value':>10}   95 % interval, speakers resampled"
    yield _share("EER", figures.eer)
    yield _share("FNMR at FMR 1 %", figures.fnmr_at_fmr_1pct)
    if figures.fnmr_at_fmr_01pct:
        yield _share("FNMR at FMR 0.1 %", figures.fnmr_at_fmr_01pct)
    else:
        yield (
            f"{'FNMR at FMR 0.1 %':24}{'-':>10}   not measurable: {trials.impostor_pairs:,} pairs of speakers,"
            f" more than {LEAST_PAIRS:,} are needed"
        )
    yield _cost(f"minDCF (prior {TARGET_PRIOR})", figures.min_dcf)
    yield _cost("Cllr, bits", figures.cllr)
    yield _cost("minCllr, bits", figures.min_cllr)


def _proof(trials: TrialScores) -> Iterator[str]:
    pairs, genuine = trials.impostor_pairs, trials.genuine
    yield "What these trials can prove, and what they cannot"
    yield (
        f"- Rule of three: had no impostor passed, the false match rate would be at most {_percent(3 / pairs)} with"
        f" 95 % confidence, and the false non-match rate {_percent(3 / genuine)} had no owner been refused."
        " Nothing lower can be claimed, at any threshold."
    )
    yield (
        f"- Rule of thirty: a rate is known to within 30 % (at 90 % confidence) once thirty errors were seen: here"
        f" false match rates {_from(30 / pairs)}, false non-match rates {_from(30 / genuine)}. Others are hints."
    )
    yield (
        "- Both rules ask for independent trials, and these are not: everybody is compared with everybody, so one"
        " voice that is easily taken for others spoils many trials at once. For impostors the pairs of speakers were"
        " counted instead of the trials, which is still too kind; the intervals resample speakers for that reason."
    )
    yield (
        "- Trials from one day and one telephone a speaker say nothing of another day, another telephone, a cold,"
        " a recording or a synthetic voice."
    )


def _share(name: str, rate: Rate) -> str:
    return f"{name:24}{100 * rate.value:8.2f} %   {100 * rate.low:.2f} to {100 * rate.high:.2f} %"


def _cost(name: str, rate: Rate) -> str:
    return f"{name:24}{rate.value:10.3f}   {rate.low:.3f} to {rate.high:.3f}"


def _from(share: float) -> str:
    return "none" if share >= 1 else f"of {_percent(share)} and more"


def _percent(share: float) -> str:
    return "100 %" if share >= 1 else f"{100 * share:.2g} %"
