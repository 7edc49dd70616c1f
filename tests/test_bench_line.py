"""What the bench of lines measures: the pauses, whatever is said and however loud."""

from __future__ import annotations

import numpy as np
import pytest

from bench.line import ANOTHER_DB, difference_db, pauses_db
from ivr.resources import shipped
from ivr.speech.audio import read_audio


def heard(name: str, hum_hz: float, level: float = 1.0) -> np.ndarray:
    """Alice over a line that hums."""
    said = np.pad(read_audio(shipped(f"fixtures/audio/alice/{name}.wav")) / 32768, (0, 8_000))
    hum = 0.01 * np.sin(2 * np.pi * hum_hz * np.arange(len(said)) / 8_000)
    return np.asarray(level * (said + hum), np.float32)


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_other_words_over_the_same_line_differ_less_than_over_another(level: float) -> None:
    card = pauses_db(heard("card", 1_000))
    assert difference_db(card, pauses_db(heard("enrol_1", 1_000, level))) < ANOTHER_DB / 4
    assert difference_db(card, pauses_db(heard("enrol_1", 2_500, level))) > ANOTHER_DB


def test_silence_is_no_line_of_its_own() -> None:
    assert np.isfinite(pauses_db(np.zeros(8_000, np.float32))).all()
