"""Joined strings and what is found wrong in them: no clip twice in a row, errors where they are."""

from __future__ import annotations

import numpy as np
import pytest

from ivr.speech.numbers import aligned
from ivr.speech.pan import is_complete
from recipes.digits import diagnose, strings
from recipes.digits.clips import Clip
from recipes.digits.evaluate import Spoken


def clip(level: float) -> Clip:
    return Clip(np.full(2000, level, np.float32), 200, 1800)


def words(**takes: int) -> list[tuple[str, Clip]]:
    return [(word, clip(0.5)) for word, count in takes.items() for _ in range(count)]


def test_a_digit_of_one_clip_is_not_said_twice_in_a_row() -> None:
    said = strings.digits(words(four=1, five=1, one=2), 3000, np.random.default_rng(0))
    assert "44" not in said
    assert "55" not in said
    assert "11" in said


def test_card_numbers_are_whole_and_of_the_digits_there_are() -> None:
    number = strings.card_number(words(four=2, zero=2, one=2), np.random.default_rng(0))
    assert number
    assert is_complete(number)
    assert set(number) <= set("401")
    assert strings.card_number(words(zero=2, one=2), np.random.default_rng(0)) is None  # no issuer begins so


def test_joined_strings_say_how_many_clips_came_before() -> None:
    (string,) = strings.joined({"a": words(one=2)}, 1, 0, lambda words, rng: "11111")
    assert string.digits == "11111"
    assert string.repeated_clips == 3


@pytest.mark.parametrize("snr_db", [15.0, 5.0])
def test_noise_is_as_loud_as_it_is_said_to_be(snr_db: float) -> None:
    tone = (np.sin(np.arange(80_000) / 2) * 4000).astype(np.int16)
    arrived = strings.through(Spoken(tone, "1", "a"), snr_db, np.random.default_rng(0))
    noise = (arrived.samples.astype(float) - tone).std()
    assert 20 * np.log10(tone.std() / noise) == pytest.approx(snr_db, abs=1)


@pytest.mark.parametrize(
    ("said", "heard", "wrong"),
    [
        ("4213", "4213", []),
        ("4213", "4293", [("1", "9")]),
        ("4213", "423", [("1", "")]),
        ("4213", "42133", [("", "3")]),
        ("", "7", [("", "7")]),
    ],
)
def test_errors_are_found_where_they_are(said: str, heard: str, wrong: list[tuple[str, str]]) -> None:
    assert [pair for pair in aligned(said, heard) if pair[0] != pair[1]] == wrong


def test_a_diagnosis_tells_positions_repeats_and_speakers_apart() -> None:
    found = diagnose.Diagnosis()
    found.add(Spoken(np.zeros(0, np.int16), "4411", "a"), "441")
    found.add(Spoken(np.zeros(0, np.int16), "4123", "b"), "4923")
    assert found.at[1] == 1
    assert found.at.total() == 2
    assert found.beside[True, True] == 1
    assert found.beside[False, True] == 1
    assert found.speakers == {"a": [1, 4, 0, 1], "b": [1, 4, 0, 1]}
    report = "\n".join(found.lines())
    assert "1>9 1" in report
    assert "25.00% digit errors of 8: 1 substituted, 1 deleted, 0 inserted; 0 of 2 strings exact" in report
