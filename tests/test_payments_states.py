from __future__ import annotations

from itertools import product

import pytest

from ivr.payments.states import FAILED, FINAL, MOVES, Event, IllegalMove, State, move


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_a_move_is_in_the_table_or_a_typed_error(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert move(state, event) is MOVES[state, event]
    else:
        with pytest.raises(IllegalMove):
            move(state, event)


def test_only_paid_refused_and_voided_are_final() -> None:
    assert {State.PAID, State.REFUSED, State.VOIDED} == FINAL
    assert FAILED < FINAL


def test_money_moves_only_after_an_authorisation_may_have_been_given() -> None:
    assert {state for (state, _), after in MOVES.items() if after is State.PAID} == {
        State.AUTHORISED,
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
