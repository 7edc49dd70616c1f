"""Card numbers: checksum, issuers, lengths, masking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivr.speech.pan import (
    brand,
    is_complete,
    luhn_check_digit,
    luhn_valid,
    masked,
    may_go_on,
    pan_hash,
    possible_length,
)

# Numbers that card schemes and payment processors publish for tests.
PUBLISHED = [
    ("4242424242424242", "visa"),
    ("4111111111111111", "visa"),
    ("5555555555554444", "mastercard"),
    ("2223003122003222", "mastercard"),
    ("378282246310005", "amex"),
    ("6011111111111117", "discover"),
    ("36227206271667", "diners"),
    ("3566002020360505", "jcb"),
    ("6200000000000005", "unionpay"),
    ("6205500000000000004", "unionpay"),
    ("6759649826438453", "maestro"),
]


@pytest.mark.parametrize(("pan", "name"), PUBLISHED)
def test_published_test_numbers_are_complete_and_of_their_brand(pan: str, name: str) -> None:
    assert is_complete(pan)
    assert brand(pan) == name


@pytest.mark.parametrize(
    ("digits", "why"),
    [
        ("4242424242424241", "wrong check digit"),
        ("42424242424242", "no Visa has fourteen digits"),
        ("4222222222222", "thirteen-digit Visas are issued no more"),
        ("1234567890123452", "no brand begins with 1"),
        ("", "nothing"),
        ("4242 4242 4242 4242", "blanks are no digits"),
        ("٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "other alphabets' digits are not spoken to us"),
    ],
)
def test_what_is_no_whole_card_number_is_not_complete(digits: str, why: str) -> None:
    assert not is_complete(digits), why


@given(st.text("0123456789", min_size=1, max_size=20))
def test_the_check_digit_makes_a_number_valid_and_every_other_digit_does_not(digits: str) -> None:
    right = luhn_check_digit(digits)
    assert [d for d in "0123456789" if luhn_valid(digits + d)] == [right]


@given(st.sampled_from([pan for pan, _ in PUBLISHED]), st.data())
def test_no_single_wrong_digit_passes_the_checksum(pan: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(pan) - 1))
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != pan[place]]))
    assert not luhn_valid(pan[:place] + wrong + pan[place + 1 :])


def test_a_longer_prefix_decides_the_brand() -> None:
    assert brand("6011") == "discover"
    assert brand("6012") == "rupay"
    assert brand("62") == "unionpay"
    assert brand("67") == "maestro"
    assert brand("5") is None  # not enough is known yet


def test_only_numbers_of_issuers_with_several_usual_lengths_may_go_on() -> None:
    assert may_go_on("6200000000000005")
    assert not may_go_on("6205500000000000004")
    assert not may_go_on("4242424242424242")
    assert not may_go_on("378282246310005")


def test_only_the_last_four_of_a_card_number_are_shown() -> None:
    assert masked("4242424242421234") == "•••• 1234"


@pytest.mark.parametrize("secret", ["", "1234", "123456", "12345678"])
def test_masking_shows_nothing_of_what_is_too_short_for_a_card_number(secret: str) -> None:
    assert masked(secret) == "••••"


def test_every_possible_length_is_within_what_iso_7812_allows() -> None:
    for pan, _ in PUBLISHED:
        assert [n for n in range(30) if possible_length(pan[:4].ljust(n, "0")[:n]) and n > 4]
        assert not possible_length(pan[:4].ljust(20, "0"))


def test_hashes_differ_by_customer_and_key() -> None:
    hashes = {pan_hash(key, customer, "4242424242424242") for key in (b"k" * 32, b"l" * 32) for customer in ("a", "b")}
    assert len(hashes) == 4
