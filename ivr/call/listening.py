"""What is listened for in each state that asks something."""

from __future__ import annotations

from ivr.call.flow import Call, State
from ivr.customers.pins import PIN_DIGITS
from ivr.speech.expect import Expect

MENU = 6  # entries of a guardian's menu
LAST_DIGITS = 4  # of a card, as its owner names it
AMOUNT_DIGITS = range(1, 8)  # of an amount in whole units

_NO_KEYS: frozenset[int] = frozenset()  # a challenge is said, not keyed


def expectation(call: Call) -> Expect:
    """What the ear is to wait for now, in a state that listens."""
    if call.state in (State.BILL, State.KEYPAD_BILL):
        return Expect.choice(len(call.bills))
    if call.state in (State.ADDRESS, State.KEYPAD_ADDRESS):
        return Expect.choice(len(call.addresses))
    if call.state is State.GUARD_CHOOSE:
        return Expect.choice(len(call.options))
    return _EXPECTED[call.state] if call.state in _EXPECTED else Expect.digits(len(call.digits), _NO_KEYS)


_EXPECTED = {
    State.CARD: Expect.card(),
    State.KEYPAD_CARD: Expect.keys(*range(7, 20)),
    State.PIN: Expect.keys(PIN_DIGITS),
    State.RUNG_LAST4: Expect.digits(LAST_DIGITS),
    State.RUNG_PIN: Expect.keys(PIN_DIGITS),
    State.APPROVER_PIN: Expect.keys(PIN_DIGITS),
    State.APPROVER_ANSWER: Expect.keys(1),
    State.EXTRA_PIN: Expect.keys(PIN_DIGITS),
    State.GUARD_PIN: Expect.keys(PIN_DIGITS),
    State.GUARD_MENU: Expect.choice(MENU),
    State.GUARD_AMOUNT: Expect.keys(*AMOUNT_DIGITS),
    State.GUARD_CONFIRM: Expect.yes_no(),
    State.KEYPAD_CONFIRM: Expect.keys(1),
    State.CONSENT: Expect.yes_no(),
    State.NEW_PIN: Expect.keys(PIN_DIGITS),
    State.REPEAT_PIN: Expect.keys(PIN_DIGITS),
}
