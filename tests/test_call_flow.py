"""The flow, walked pair by pair: it is a table, so a test can know all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivr.call import prompts
from ivr.call.flow import ATTEMPTS, HOLDS, TABLE, Call, Event, NoSuchMove, Speak, State, advance
from ivr.call.judging.judge import RULES
from ivr.call.listening import expectation
from ivr.locales import LOCALES

CALL = Call("CA1", "en")
LISTENING = [state for state in State if (state, Event.CANCEL) in TABLE]


def _at(state: State) -> Call:
    return Call("CA1", "en", state=state, digits="1234", bills=({"id": "b"},))


def test_a_call_begins_by_asking_for_the_card() -> None:
    call, speak = advance(CALL, Event.RANG, "00000000")
    assert (call.state, speak) == (State.CARD, Speak(("card.ask",), "listen"))


def test_whoever_speaks_a_language_that_nobody_hears_goes_by_keys_alone() -> None:
    unheard = Call("CA1", "zh", heard=("en",))
    call, speak = advance(unheard, Event.RANG, "00000000")
    assert (call.state, speak) == (State.KEYPAD_CARD, Speak(("keypad.ask",), "listen"))
    call, speak = advance(call, Event.MAY_ENROL, "00000000")
    assert (call.state, speak) == (State.NEW_PIN, Speak(("pin.new",), "listen"))


def test_nothing_in_such_a_call_asks_to_say_something() -> None:
    """Whatever happens, from the ring to the end: every question can be answered by keys."""
    waiting, seen = [Call("CA1", "zh", heard=("en",), bills=({"id": "b"},))], set()
    while waiting:
        call = waiting.pop()
        for event in (event for state, event in TABLE if state is call.state):
            then, _ = advance(replace(call, attempts={}), event, "47190528")
            if then.state not in seen:
                seen.add(then.state)
                waiting.append(then)
    assert State.DEBIT in seen
    assert all(expectation(_at(state)).key_lengths for state in seen if state in LISTENING)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_every_pair_moves_or_is_refused_as_impossible(state: State, event: Event) -> None:
    possible = (state, event) in TABLE or state in (State.OVER, State.AGENT)
    counted = event in (Event.AGAIN, Event.STRAY_KEY) and (state, Event.AGAIN) in TABLE
    try:
        call, speak = advance(_at(state), event, "47190528")
    except NoSuchMove:
        assert not possible
        assert not counted
    else:
        assert possible or counted
        assert speak.then in ("listen", "hold", "transfer", "hang_up")
        assert (speak.then == "listen") == (call.state in LISTENING)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_prompt_of_the_table_is_in_every_language(locale: str) -> None:
    assert {row.say for row in TABLE.values()} <= set(prompts.ids(locale))


@pytest.mark.parametrize("state", LISTENING)
def test_star_cancels_and_zero_asks_for_an_agent_wherever_something_is_asked(state: State) -> None:
    assert advance(_at(state), Event.CANCEL, "0" * 8)[0].state is State.OVER
    assert advance(_at(state), Event.AGENT, "0" * 8)[1].then == "transfer"


@pytest.mark.parametrize("state", LISTENING)
def test_every_listening_state_has_something_to_listen_for(state: State) -> None:
    assert expectation(_at(state))


@pytest.mark.parametrize("state", LISTENING)
def test_nothing_is_asked_more_than_three_times(state: State) -> None:
    call = _at(state)
    for _ in range(ATTEMPTS):
        if call.state is not state:
            break
        call, _ = advance(call, Event.AGAIN, "47190528")
    assert call.state is not state


def test_a_challenge_that_failed_asks_for_new_digits() -> None:
    call, _ = advance(_at(State.CARD), Event.ONE_BILL, "47190528")
    assert call.digits == "4719"
    call, _ = advance(call, Event.AGAIN, "80310000")
    assert call.digits == "8031"


def test_a_slow_bank_is_waited_for_a_bounded_time() -> None:
    call = _at(State.DEBIT)
    for _ in range(HOLDS):
        call, speak = advance(call, Event.PENDING, "0" * 8)
    assert (call.state, speak) == (State.OVER, Speak(("pay.later",), "hang_up"))


def test_without_consent_the_end_of_enrolment_promises_no_voiceprint() -> None:
    assert advance(_at(State.REPEAT_PIN), Event.SET, "0" * 8)[1].prompts == ("enrol.pin.done",)


@given(st.lists(st.sampled_from(list(Event)), max_size=200))
def test_no_caller_can_keep_a_call_going_for_ever(events: list[Event]) -> None:
    call, _ = advance(CALL, Event.RANG, "0" * 8)
    questions = 0
    for event in events:
        try:
            call, speak = advance(call, event, "47190528")
        except NoSuchMove:
            continue
        questions += speak.then == "listen"
    assert questions <= ATTEMPTS * len(LISTENING) * 2


@pytest.mark.parametrize(
    ("amount_minor", "currency", "locale", "spoken"),
    [
        (4210, "USD", "en", "42 US dollars 10"),
        (4200, "USD", "en", "42 US dollars"),
        (100, "EUR", "en", "1 euro"),
        (5000, "JPY", "en", "5,000 Japanese yen"),
        (4210, "USD", "zh", "42.10美元"),
    ],
)
def test_amounts_are_spoken_by_currency_and_language(
    amount_minor: int, currency: str, locale: str, spoken: str
) -> None:
    assert prompts.spoken_amount(amount_minor, currency, locale) == spoken


@pytest.mark.parametrize("locale", LOCALES)
def test_what_is_rendered_is_recognised_again(locale: str) -> None:
    values = {
        "merchant": "Acme",
        "amount": "1 euro",
        "last4": "1 2 3 4",
        "digits": "4 7 1 9",
        "choices": "Number 1: x.",
    }
    values |= {"receipt": "9 9", "number": "1", "name": "home", "payer": "Lea"}
    values |= {"menu": "Press 1.", "limits": "Small payments end at 1 euro.", "change": "home can be paid again."}
    for prompt in prompts.ids(locale):
        line = prompts.Line.of(prompt, **values)
        assert prompts.recognise(prompts.render(line, locale)) == (prompt, dict(line.values))


@pytest.mark.parametrize("state", LISTENING)
def test_whatever_a_turn_may_come_to_the_table_has_a_move_for_it(state: State) -> None:
    assert {(state, event) for event in RULES[state].events} <= set(TABLE)
    assert {event for (at, event) in TABLE if at is state} <= RULES[state].events | {
        Event.CANCEL,
        Event.AGENT,
        Event.EXHAUSTED,
    }


def test_a_key_pressed_by_mistake_buys_no_new_challenge() -> None:
    call, _ = advance(_at(State.CARD), Event.ONE_BILL, "47190528")
    call, speak = advance(call, Event.STRAY_KEY, "99999999")
    assert (call.digits, speak.prompts) == ("4719", ("challenge.retry",))
