from __future__ import annotations

from itertools import product

import pytest

from ivr.payments.states import FINAL, MOVES, UNSENT, Event, IllegalMove, State, move


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_a_move_is_in_the_table_or_a_typed_error(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert move(state, event) is MOVES[state, event]
    else:
        with pytest.raises(IllegalMove):
            move(state, event)


def test_only_a_refund_follows_a_decided_debit_and_nothing_follows_a_failure() -> None:
    following = {(state, event) for state, event in MOVES if state in FINAL}
    assert {event for _, event in following} == {Event.REFUND, Event.REFUND_PART}
    assert {state for state, _ in following} == {State.PAID, State.PART_REFUNDED}


def test_only_what_was_not_sent_to_the_bank_is_cancelled_or_expires() -> None:
    for state, event in MOVES:
        if event in (Event.CANCEL, Event.EXPIRE):
            assert state in UNSENT


def test_money_moves_only_after_an_authorisation_may_have_been_given() -> None:
    assert {state for (state, _), after in MOVES.items() if after is State.PAID} == {
        State.LINKED,
        State.AUTHORISED,
        State.VOIDING,
        State.UNKNOWN,
    }


def test_every_state_can_be_reached_and_can_end() -> None:
    reached = {State.CREATED}
    for _ in State:
        reached |= {after for (state, _), after in MOVES.items() if state in reached}
    assert reached == set(State)
    ending = set(FINAL)
    for _ in State:
        ending |= {state for (state, _), after in MOVES.items() if after in ending}
    assert ending == set(State)
