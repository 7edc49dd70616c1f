"""Candidates: few, whole, best first; and which of a customer's cards they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivr.customers import budget
from ivr.speech.cards import FREE_MARGIN_NATS, LIMIT, MARGIN_NATS, CardHash, MissingKey, candidates, guesses, which_card
from ivr.speech.numbers import Hypothesis
from ivr.speech.pan import is_complete, luhn_check_digit, pan_hash

VISA = "4539578763621486"
OTHER = "5555555555554444"

digit_strings = st.text("0123456789", max_size=22)
scores = st.floats(-100, 100, allow_subnormal=False)  # trainings in this process may flush them to zero
whole = st.text("0123456789", min_size=14, max_size=14).map(lambda d: "4" + d).map(lambda d: d + luhn_check_digit(d))


def heard(*digits: str, apart: float = 1.0) -> list[Hypothesis]:
    return [Hypothesis(d, -apart * rank) for rank, d in enumerate(digits)]


@given(st.lists(st.builds(Hypothesis, digit_strings, scores), max_size=40))
def test_candidates_are_few_distinct_and_whole(hypotheses: list[Hypothesis]) -> None:
    found = candidates(hypotheses)
    assert len(found) <= LIMIT
    assert len(set(found)) == len(found)
    assert all(is_complete(pan) for pan in found)


@given(whole, st.lists(st.builds(Hypothesis, digit_strings, st.floats(-100, -0.1, allow_subnormal=False)), max_size=10))
def test_a_whole_best_hypothesis_is_the_first_candidate(pan: str, others: list[Hypothesis]) -> None:
    assert candidates([Hypothesis(pan, 0.0), *others])[0] == pan


@given(st.lists(st.builds(Hypothesis, digit_strings, scores), max_size=20), scores)
def test_only_differences_of_scores_matter(hypotheses: list[Hypothesis], offset: float) -> None:
    whole_scores = [Hypothesis(h.digits, round(h.score)) for h in hypotheses]
    moved = [Hypothesis(h.digits, h.score + round(offset)) for h in whole_scores]
    assert candidates(moved) == candidates(whole_scores)


def test_a_candidate_beyond_the_margin_of_the_best_one_is_left_out() -> None:
    near, far = MARGIN_NATS - 0.1, MARGIN_NATS + 0.1
    assert candidates([Hypothesis(VISA, 0.0), Hypothesis(OTHER, -near)]) == [VISA, OTHER]
    assert candidates([Hypothesis(VISA, 0.0), Hypothesis(OTHER, -far)]) == [VISA]
    # What counts is the distance to the best whole number, ...
    assert candidates([Hypothesis("42", 0.0), Hypothesis(VISA, -8), Hypothesis(OTHER, -8 - near)]) == [VISA, OTHER]
    # ... unless something that is no card number fits far better.
    assert candidates([Hypothesis("42", 0.0), Hypothesis(VISA, -FREE_MARGIN_NATS - 0.1)]) == []


@given(whole, st.integers(0, 15), st.sampled_from("123456789"))
def test_every_repair_of_one_wrong_digit_is_found(pan: str, place: int, shift: str) -> None:
    wrong = pan[:place] + str((int(pan[place]) + int(shift)) % 10) + pan[place + 1 :]
    assert pan in candidates([Hypothesis(wrong, 0.0)], limit=1000, margin_nats=100)


@given(whole, st.integers(0, 15))
def test_every_repair_of_one_digit_missing_is_found(pan: str, place: int) -> None:
    assert pan in candidates([Hypothesis(pan[:place] + pan[place + 1 :], 0.0)], limit=1000, margin_nats=100)


@given(whole, st.integers(0, 16), st.sampled_from("0123456789"))
def test_every_repair_of_one_digit_too_many_is_found(pan: str, place: int, extra: str) -> None:
    assert pan in candidates([Hypothesis(pan[:place] + extra + pan[place:], 0.0)], limit=1000, margin_nats=100)


def test_a_number_heard_clearly_gives_one_candidate_away() -> None:
    assert candidates(heard(VISA)) == [VISA]


@pytest.mark.parametrize(
    ("misheard", "how"),
    [
        ("49" + VISA[2:], "five heard as nine"),
        (VISA.replace("62", "82", 1), "six heard as eight"),
        ("0" + VISA[1:], "the first digit: four heard as zero"),
    ],
)
def test_a_digit_confused_with_one_that_sounds_alike_is_repaired(misheard: str, how: str) -> None:
    assert VISA in candidates(heard(misheard)), how


def test_a_repeated_digit_that_was_swallowed_is_put_back() -> None:
    said = "4000222200001110"
    said = said[:-1] + luhn_check_digit(said[:-1])
    assert said in candidates(heard(said.replace("2222", "222")))


def test_a_repeated_digit_too_many_is_left_out() -> None:
    assert VISA in candidates(heard(VISA.replace("6", "66", 1)))


def test_a_repair_that_an_alternative_speaks_for_comes_first() -> None:
    best = VISA[:5] + "1" + VISA[6:]  # the sixth digit misheard
    other = VISA[:10] + "0" + VISA[11:]  # an alternative with that digit right, and another wrong
    assert candidates(heard(best, other, apart=0.5))[0] == VISA


def test_what_is_known_to_be_no_card_number_is_not_repaired() -> None:
    missing = VISA[:7] + VISA[8:]
    assert candidates([Hypothesis(missing, 0.0)])
    assert candidates([Hypothesis(missing, 0.0, confidence=0.0)]) == []
    assert candidates([Hypothesis(missing, 0.0, 0.0), Hypothesis(OTHER, -1.0, 0.9)]) == [OTHER]


def test_nothing_heard_gives_no_candidate() -> None:
    assert candidates([]) == candidates(heard("")) == candidates(heard("42")) == []


KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


def card(card_id: str, pan: str, customer: str = "alice", key_id: str = "k1") -> CardHash:
    return CardHash(card_id, key_id, pan_hash(KEYS[key_id], customer, pan))


def test_the_card_of_the_best_matching_candidate_is_found() -> None:
    cards = [card("a", OTHER), card("b", VISA, key_id="k2")]
    assert which_card([VISA], "alice", cards, KEYS) == "b"
    assert which_card([VISA, OTHER], "alice", cards, KEYS) == "b"
    assert which_card([OTHER, VISA], "alice", cards, KEYS) == "a"


def test_no_card_matches_what_is_not_the_customers() -> None:
    assert which_card([VISA], "bob", [card("a", VISA)], KEYS) is None
    assert which_card([OTHER], "alice", [card("a", VISA)], KEYS) is None
    assert which_card([], "alice", [card("a", ""), card("b", VISA)], KEYS) is None
    assert which_card([VISA], "alice", [], KEYS) is None


def test_candidates_beyond_the_limit_are_not_tried() -> None:
    wrong = ["4" + str(n).zfill(15) for n in range(LIMIT)]
    assert which_card([*wrong, VISA], "alice", [card("a", VISA)], KEYS) is None


@pytest.mark.parametrize("said", [[], [OTHER], [VISA], [OTHER] * 7 + [VISA]])
def test_the_same_number_of_hashes_is_made_whatever_was_said(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(
        "ivr.speech.cards.pan_hash",
        lambda key, customer, pan: made.append(pan) or pan_hash(key, customer, pan),
    )
    which_card(said, "alice", [card("a", VISA)], KEYS)
    assert len(made) == LIMIT * len(KEYS)


def test_a_card_whose_key_is_gone_is_an_error_that_names_the_key_only() -> None:
    with pytest.raises(MissingKey, match="k2") as raised:
        which_card([VISA], "alice", [card("a", VISA, key_id="k2")], {"k1": KEYS["k1"]})
    assert VISA not in str(raised.value)


def test_neither_cards_nor_hypotheses_show_what_they_hold() -> None:
    assert VISA not in repr(heard(VISA))
    assert str(card("a", VISA).digest) not in repr(card("a", VISA))


def test_guesses_within_the_free_failures_are_fewer_than_one_in_a_hundred_of_what_remains() -> None:
    remaining = 10 ** (16 - 8 - 4) // 10  # issuer and last four known, and the checksum
    assert sum(guesses(failures) for failures in range(budget.FREE_IN_A_ROW)) < remaining / 100
    assert guesses(0) <= LIMIT
    assert guesses(49) == 1
