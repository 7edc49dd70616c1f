"""Spoken numbers: what people say for digits, read back."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivr.speech.numbers import WORDS, edit_distance, hypotheses, plainest, readings, varied

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("four two zero oh", "4200"),
        ("double four", "44"),
        ("triple oh seven", "0007"),
        ("double two triple five", "22555"),
        ("forty two forty two", "4242"),
        ("nineteen oh five", "1905"),
        ("ten eleven twelve", "101112"),
        ("four hundred", "400"),
        ("forty two hundred", "4200"),
        ("one hundred five", "105"),
        ("two hundred sixteen", "216"),
        ("sixty twelve", "6012"),
        ("double forty", "4040"),
        ("four two [unk] six", "426"),
        ("one two three four no five", "1235"),
        ("one two one four no one two one five", "1215"),
        ("one two start again three four", "34"),
        ("one two no start again three four", "34"),
        ("start again one start again two", "2"),
        ("again five start six", "56"),
        ("double", ""),
        ("four double", "4"),
        ("hundred", ""),
        ("四 幺 零 两 一", "41021"),
        ("四 五 不对 六", "46"),
        ("四 五 六 七 不是 四 五 六 八", "4568"),
        ("幺 二 重来 三 四", "34"),
        ("四 重来", ""),
        ("是 [unk] 九", "9"),
        ("", ""),
    ],
)
def test_the_plainest_reading(said: str, digits: str) -> None:
    assert plainest(said.split()) == digits


@pytest.mark.parametrize(
    ("said", "also"),
    [
        ("forty two", "402"),
        ("one hundred five", "1005"),
        ("four five no six", "456"),  # the "no" was misheard
        ("one two three four no five six", "1256"),  # "no" takes back two digits
        ("nine nine no four two", "42"),  # ... or all
    ],
)
def test_other_readings_are_kept(said: str, also: str) -> None:
    assert also in [reading.digits for reading in readings(said.split())]


def _digit_by_digit(digits: str, draw: st.DrawFn) -> list[str]:
    return [draw(st.sampled_from(["zero", "oh"])) if d == "0" else NAMES[int(d)] for d in digits]


def _with_doubles(digits: str, draw: st.DrawFn) -> list[str]:
    words: list[str] = []
    at = 0
    while at < len(digits):
        run = len(digits[at:]) - len(digits[at:].lstrip(digits[at]))
        times = draw(st.integers(1, min(run, 3)))
        words += [["double"], ["triple"]][times - 2] if times > 1 else []
        words += _digit_by_digit(digits[at], draw)
        at += times
    return words


def _in_pairs(digits: str, draw: st.DrawFn) -> list[str]:
    words: list[str] = []
    for at in range(0, len(digits), 2):
        pair = digits[at : at + 2]
        if len(pair) == 1 or pair[0] == "0":
            words += _digit_by_digit(pair, draw)
        elif pair[0] == "1":
            words.append(TEENS[int(pair[1])])
        else:
            words += [TENS[int(pair[0])]] + ([NAMES[int(pair[1])]] if pair[1] != "0" else [])
    return words


def _with_hundreds(digits: str, draw: st.DrawFn) -> list[str]:
    words: list[str] = []
    for at in range(0, len(digits), 4):
        group = digits[at : at + 4]
        if len(group) == 4 and group.endswith("00") and group[0] != "0":
            words += [*_in_pairs(group[:2], draw), "hundred"]
        else:
            words += _digit_by_digit(group, draw)
    return words


STYLES = (_digit_by_digit, _with_doubles, _in_pairs, _with_hundreds)


@st.composite
def spoken_numbers(draw: st.DrawFn) -> tuple[list[str], str]:
    """A number of 12 to 19 digits as somebody says it, perhaps with a false start or a correction."""
    groups = draw(st.lists(st.text("0123456789", min_size=4, max_size=4), min_size=3, max_size=4))
    digits = "".join(groups) + draw(st.text("0123456789", max_size=3))
    style = draw(st.sampled_from(STYLES))
    slip = draw(st.sampled_from(["none", "start again", "last digit", "group"]))
    if slip == "start again":
        begun = style(draw(st.text("0123456789", max_size=8)), draw)
        return [*begun, "no", "start", "again", *style(digits, draw)], digits
    if slip == "last digit":
        at = draw(st.integers(1, len(digits) - 1))
        words = _digit_by_digit(digits[:at], draw)
        return [*words, draw(st.sampled_from(NAMES)), "no", *_digit_by_digit(digits[at:], draw)], digits
    if slip == "group":
        wrong = draw(st.text("0123456789", min_size=4, max_size=4))
        return [*_digit_by_digit(wrong, draw), "no", *_digit_by_digit(digits, draw)], digits
    return style(digits, draw), digits


@settings(max_examples=300)
@given(spoken_numbers())
def test_whatever_way_a_number_is_said_it_is_among_its_readings(spoken: tuple[list[str], str]) -> None:
    words, digits = spoken
    assert digits in [reading.digits for reading in readings(words)]


@given(st.lists(st.sampled_from([*WORDS, "[unk]", "hello"]), max_size=25))
def test_any_words_at_all_have_few_readings_of_digits_only(words: list[str]) -> None:
    found = readings(words)
    assert 1 <= len(found) <= 32
    assert all(r.digits == "" or r.digits.isdecimal() for r in found)
    assert [r.cost for r in found] == sorted(r.cost for r in found)
    assert len({r.digits for r in found}) == len(found)


def test_hypotheses_are_distinct_and_best_first() -> None:
    heard = hypotheses([(["four", "two", "[unk]"], 9.0), (["four", "two"], 10.0), (["forty", "two"], 8.0)])
    assert [(h.digits, h.score) for h in heard] == [("42", 10.0), ("402", 5.0)]


def test_neither_readings_nor_hypotheses_show_their_digits() -> None:
    assert "42" not in repr(readings(["forty", "two"])) + repr(hypotheses([(["four", "two"], 0.5)]))


@pytest.mark.parametrize(("a", "b", "edits"), [("", "", 0), ("12", "", 2), ("1234", "1334", 1), ("1223", "123", 1)])
def test_edit_distance(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == edits


def test_digits_to_be_said_are_varied() -> None:
    assert varied("4424230317", 8) == "44223031"
    assert varied("111", 8) == "11"
    draw = random.Random(3)
    many = [varied(iter(lambda: draw.choice("0123456789"), ""), 8) for _ in range(2_000)]
    assert {len(one) for one in many} == {8}
    assert max(one.count(digit) for one in many for digit in one) == 2
    for place in range(8):  # each digit as often as any other, wherever it stands
        counts = Counter(one[place] for one in many)
        assert len(counts) == 10
        assert max(counts.values()) < 2 * min(counts.values())
