"""What is speech and what background, and the kernels that the recogniser computes with."""

from __future__ import annotations

import numpy as np
import pytest

from ivr.speech.activity import ABOVE_BACKGROUND_DB, Activity, level_dbfs
from ivr.speech.audio import read_audio
from ivr.speech.library import kernels


def test_speech_is_found_as_with_numpys_percentile_of_the_last_three_seconds() -> None:
    pcm = np.tile(read_audio("fixtures/audio/alice/card.wav"), 2)
    pcm = pcm + np.random.default_rng(0).normal(0, 1, len(pcm)) * np.linspace(1, 300, len(pcm))  # ever more noise
    frames = [frame.astype(np.int16) for frame in np.split(pcm[: len(pcm) // 160 * 160], len(pcm) // 160)]
    activity, levels, loud_run = Activity(), [-60.0] * 5, 0
    loudest, quiet_ms, speech_ms = -60.0, 0, 0
    for frame in frames:
        levels.append(10 * np.log10(max(frame.astype(float).var() / 32768**2, 1e-9)))
        assert level_dbfs(frame) == pytest.approx(levels[-1])
        background = np.percentile(levels[-150:], 10)
        loud = levels[-1] > max(background + ABOVE_BACKGROUND_DB, loudest - 30, -52)
        loud_run = loud_run + 1 if loud else 0
        if loud_run >= 2:
            quiet_ms, loudest = 0, max(levels[-1], loudest)
            speech_ms += 40 if loud_run == 2 else 20
        else:
            quiet_ms += 20
        loudest -= 0.04
        activity.add(frame)
        assert (activity.quiet_ms, activity.speech_ms) == (quiet_ms, speech_ms)
    assert speech_ms > 5000


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("fma avx2 avx512f avx512dq avx512bw avx512vl amx_tile", "SkylakeX"),
        ("fma avx2 avx512f", "Haswell"),
        ("sse2 ssse3", None),
    ],
)
def test_kernels_fit_the_processor(flags: str, named: str | None) -> None:
    assert kernels(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu {flags}\nbugs\t\t:\n") == named


def test_where_nothing_is_known_of_the_processor_openblas_chooses() -> None:
    assert kernels("") is None
