"""Keys pressed in a turn: when they are an answer."""

from __future__ import annotations

import re

import pytest

from ivr.speech.expect import EndReason, Expect
from ivr.speech.turn import Listening

SILENCE = b"\xff" * 160
VISA = "4242424242424242"


def pressed(expect: Expect, keys: str, silence_ms: int = 0, every_ms: int = 200) -> tuple[EndReason, str, int]:
    """Press keys, then be quiet: (why the turn ended, the keys, milliseconds after the last key)."""
    turn = Listening(None, expect)
    for key in keys:
        if turn.key(key):
            break
        for _ in range(every_ms // 20):
            turn.frame(SILENCE)
    waited_ms = every_ms
    while waited_ms < silence_ms and not turn.frame(SILENCE):
        waited_ms += 20
    heard = turn.close()
    return heard.end, heard.keys, waited_ms


PIN, NUMBER_OR_CODE = Expect.keys(6), Expect.keys(7, 8)


@pytest.mark.parametrize(
    ("expect", "keys", "end", "taken"),
    [
        (PIN, "135790", EndReason.KEYS, "135790"),
        (PIN, "1357901", EndReason.KEYS, "135790"),  # over with the sixth
        (PIN, "135#", EndReason.KEYS, "135"),
        (PIN, "13*", EndReason.CANCEL, "13"),
        (PIN, "*", EndReason.CANCEL, ""),
        (PIN, "0#", EndReason.AGENT, "0"),
        (PIN, "012345", EndReason.KEYS, "012345"),
        (PIN, "#135790", EndReason.KEYS, "135790"),  # a # before any digit ends nothing
        (NUMBER_OR_CODE, "12345678", EndReason.KEYS, "12345678"),
        (NUMBER_OR_CODE, "1234567#", EndReason.KEYS, "1234567"),
        (Expect.keys(1), "1", EndReason.KEYS, "1"),
        (PIN, "135", EndReason.HANGUP, "135"),
    ],
)
def test_keys_end_a_turn_at_once(expect: Expect, keys: str, end: EndReason, taken: str) -> None:
    assert pressed(expect, keys)[:2] == (end, taken)


@pytest.mark.parametrize(
    ("expect", "keys", "end", "after_ms"),
    [
        (PIN, "135", EndReason.QUIET, 2500),
        (NUMBER_OR_CODE, "1234567", EndReason.QUIET, 2500),
        (PIN, "0", EndReason.AGENT, 1000),
        (Expect.keys(1), "0", EndReason.AGENT, 1000),
        (PIN, "", EndReason.NOTHING, 6000),
    ],
)
def test_a_pause_ends_a_turn(expect: Expect, keys: str, end: EndReason, after_ms: int) -> None:
    why, taken, waited_ms = pressed(expect, keys, silence_ms=20_000)
    assert (why, taken) == (end, keys)
    assert abs(waited_ms - after_ms) <= 200


def test_what_is_no_key_is_ignored() -> None:
    turn = Listening(None, PIN)
    assert not any(turn.key(key) for key in ("", "A", "12", "٣", " ", "\x00"))
    assert turn.close().keys == ""


@pytest.mark.parametrize(
    ("keys", "whole"),
    [
        (VISA, True),
        (VISA[:-1] + "1", False),  # a wrong check digit: she may be about to correct it, or to press #
        (VISA[:-1], False),
        ("6200000000000005", False),  # sixteen digits of UnionPay may be the beginning of nineteen
        ("6205500000000000004", True),
        ("378282246310005", True),
        ("0", False),
    ],
)
def test_a_keyed_card_number_is_whole_by_length_and_checksum(keys: str, whole: bool) -> None:
    assert Expect.card().whole_keys(keys) is whole
    assert Expect.keys(*range(7, 20)).whole_keys(keys) is (whole or len(keys) == 19)


@pytest.mark.parametrize(
    ("expect", "keys", "answer"),
    [
        (Expect.yes_no(), "1", "yes"),
        (Expect.yes_no(), "2", "no"),
        (Expect.yes_no(), "3", None),
        (Expect.choice(3), "3", 3),
        (Expect.choice(2), "3", None),
        (Expect.choice(3), "0", None),
        (Expect.digits(4), "1", None),
    ],
)
def test_a_key_says_what_a_word_would(expect: Expect, keys: str, answer: str | int | None) -> None:
    assert expect.keyed_answer(keys) == answer


@pytest.mark.parametrize(
    ("expect", "words", "answer"),
    [
        (Expect.yes_no(), ["yes"], "yes"),
        (Expect.yes_no(), ["no", "no", "no"], "no"),
        (Expect.yes_no(), ["yes", "no"], None),
        (Expect.yes_no(), [], None),
        (Expect.choice(3), ["two"], 2),
        (Expect.choice(1), ["two"], None),
        (Expect.choice(3), ["one", "two"], None),
    ],
)
def test_a_spoken_answer_is_one_answer(expect: Expect, words: list[str], answer: str | int | None) -> None:
    assert expect.spoken_answer(words) == answer


@pytest.mark.parametrize(
    ("words", "besides", "answer"),
    [
        (["pay"], False, "yes"),
        (["confirm"], False, "yes"),
        (["yes", "pay"], False, "yes"),
        (["yes"], True, "yes"),
        (["yes", "pay"], True, "yes"),
        (["pay"], True, None),  # "do not pay"
        (["pay", "confirm"], True, None),
        (["cancel"], False, "no"),
        (["cancel"], True, "no"),
        (["no", "pay"], False, None),
        ([], True, None),
    ],
)
def test_what_is_to_be_done_is_agreed_to_by_its_name_alone(words: list[str], besides: bool, answer: str | None) -> None:
    assert Expect.confirm().spoken_answer(words, besides) == answer


def test_a_flood_of_keys_is_bounded() -> None:
    turn = Listening(None, Expect.keys(1000))
    assert [turn.key("1") for _ in range(100)].index(True) == 31
    assert len(turn.close().keys) == 32


def test_what_was_keyed_is_not_shown() -> None:
    turn = Listening(None, PIN)
    for key in "135790":
        turn.key(key)
    shown = re.sub("0x[0-9a-f]+", "", repr(turn.close()) + repr(turn))  # addresses in memory may hold any figures
    assert "135" not in shown
