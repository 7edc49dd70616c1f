"""The states of a payment and the moves between them, as a table. Pure.

created ─send─> debiting ─authorise─> authorised ─capture─> paid
   │               │ decline              │ void
   └─decline───────┴─> refused            └─> voided
                lose (from debiting, authorised) ─> unknown ─decline, void, capture─> refused, voided, paid
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a payment stands; stored as its value."""

    CREATED = "created"  # confirmed by the caller; nothing was sent to the bank
    DEBITING = "debiting"  # an authorisation may be under way at the bank
    AUTHORISED = "authorised"  # the bank holds the amount; a capture may be under way
    UNKNOWN = "unknown"  # the bank did not answer in time: it must be asked until the outcome is certain
    PAID = "paid"
    REFUSED = "refused"
    VOIDED = "voided"  # authorised, and given back


class Event(StrEnum):
    """What can happen to a payment."""

    SEND = "send"
    AUTHORISE = "authorise"
    CAPTURE = "capture"
    DECLINE = "decline"
    VOID = "void"
    LOSE = "lose"


MOVES: dict[tuple[State, Event], State] = {
    (State.CREATED, Event.SEND): State.DEBITING,
    (State.CREATED, Event.DECLINE): State.REFUSED,
    (State.DEBITING, Event.AUTHORISE): State.AUTHORISED,
    (State.DEBITING, Event.DECLINE): State.REFUSED,
    (State.DEBITING, Event.LOSE): State.UNKNOWN,
    (State.AUTHORISED, Event.CAPTURE): State.PAID,
    (State.AUTHORISED, Event.VOID): State.VOIDED,
    (State.AUTHORISED, Event.LOSE): State.UNKNOWN,
    (State.UNKNOWN, Event.DECLINE): State.REFUSED,
    (State.UNKNOWN, Event.VOID): State.VOIDED,
    (State.UNKNOWN, Event.CAPTURE): State.PAID,
}

FINAL = frozenset(State) - {state for state, _ in MOVES}
FAILED = frozenset({State.REFUSED, State.VOIDED})
"""Final without money having moved: the bill is free for another payment."""


class IllegalMove(Exception):
    """The event cannot happen in this state."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"a payment that is {state} cannot {event}")
        self.state, self.event = state, event


def move(state: State, event: Event) -> State:
    """The state after ``event``. Raises IllegalMove."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalMove(state, event) from None
