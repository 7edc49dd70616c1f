"""The states of a payment and the moves between them, as a table. Pure.

created ─send─> debiting ─authorise─> authorised ─capture─> paid ─refund─> refunded
   │               │ decline              │ void              └─refund_part─> part_refunded ─refund─> refunded
   └─decline───────┴─> refused            └─> voided
                lose (from debiting, linked, authorised) ─> unknown ─decline, void, capture─> refused, voided, paid

Where the customer herself must agree at her bank: debiting ─link─> linked ─authorise─> authorised, or
─decline, void─> refused, voided.

Only held at first: debiting ─hold─> held ─post─> authorised, or held ─release─> voiding ─void─> voided.

Before the debit: created ─verify─> verifying ─ask─> awaiting ─approve─> approved ─send─> debiting. Until it is sent
a payment can also be declined, cancelled and expire.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a payment stands; stored as its value, of at most 16 letters."""

    CREATED = "created"  # confirmed by the caller; nothing was sent to the bank
    VERIFYING = "verifying"  # more evidence is being gathered
    AWAITING = "awaiting"  # somebody else must agree: a guardian, a supervisor
    APPROVED = "approved"
    DEBITING = "debiting"  # an authorisation may be under way at the bank
    LINKED = "linked"  # the customer was sent a link of her bank's: it holds the amount once she has agreed there
    AUTHORISED = "authorised"  # the bank holds the amount; a capture may be under way
    HELD = "held"  # the bank holds the amount until somebody has it posted, whole or in part, or released
    VOIDING = "voiding"  # to be given back; a void may be under way
    UNKNOWN = "unknown"  # the bank did not answer in time: it must be asked until the outcome is certain
    PAID = "paid"
    PART_REFUNDED = "part_refunded"
    REFUNDED = "refunded"
    REFUSED = "refused"
    VOIDED = "voided"  # authorised, and given back
    CANCELLED = "cancelled"  # withdrawn before anything was sent to the bank
    EXPIRED = "expired"  # not sent to the bank in time


class Event(StrEnum):
    """What can happen to a payment."""

    VERIFY = "verify"
    ASK = "ask"
    APPROVE = "approve"
    SEND = "send"
    LINK = "link"
    AUTHORISE = "authorise"
    HOLD = "hold"
    POST = "post"
    RELEASE = "release"
    CAPTURE = "capture"
    DECLINE = "decline"
    VOID = "void"
    LOSE = "lose"
    CANCEL = "cancel"
    EXPIRE = "expire"
    REFUND_PART = "refund_part"
    REFUND = "refund"


UNSENT = (State.CREATED, State.VERIFYING, State.AWAITING, State.APPROVED)
"""Nothing was sent to the bank yet."""

MOVES: dict[tuple[State, Event], State] = {
    (State.CREATED, Event.VERIFY): State.VERIFYING,
    (State.CREATED, Event.SEND): State.DEBITING,
    (State.VERIFYING, Event.ASK): State.AWAITING,
    (State.VERIFYING, Event.APPROVE): State.APPROVED,
    (State.AWAITING, Event.APPROVE): State.APPROVED,
    (State.APPROVED, Event.SEND): State.DEBITING,
    **{(state, Event.DECLINE): State.REFUSED for state in UNSENT},
    **{(state, Event.CANCEL): State.CANCELLED for state in UNSENT},
    **{(state, Event.EXPIRE): State.EXPIRED for state in UNSENT},
    (State.DEBITING, Event.AUTHORISE): State.AUTHORISED,
    (State.DEBITING, Event.HOLD): State.HELD,
    (State.HELD, Event.POST): State.AUTHORISED,
    (State.HELD, Event.RELEASE): State.VOIDING,
    (State.HELD, Event.LOSE): State.UNKNOWN,
    (State.VOIDING, Event.VOID): State.VOIDED,
    (State.VOIDING, Event.CAPTURE): State.PAID,
    (State.VOIDING, Event.LOSE): State.UNKNOWN,
    (State.DEBITING, Event.DECLINE): State.REFUSED,
    (State.DEBITING, Event.LINK): State.LINKED,
    (State.DEBITING, Event.LOSE): State.UNKNOWN,
    (State.LINKED, Event.AUTHORISE): State.AUTHORISED,
    (State.LINKED, Event.HOLD): State.HELD,
    (State.LINKED, Event.CAPTURE): State.PAID,  # by hand, at the bank
    (State.LINKED, Event.DECLINE): State.REFUSED,
    (State.LINKED, Event.VOID): State.VOIDED,
    (State.LINKED, Event.LOSE): State.UNKNOWN,
    (State.AUTHORISED, Event.CAPTURE): State.PAID,
    (State.AUTHORISED, Event.VOID): State.VOIDED,
    (State.AUTHORISED, Event.LOSE): State.UNKNOWN,
    (State.UNKNOWN, Event.DECLINE): State.REFUSED,
    (State.UNKNOWN, Event.VOID): State.VOIDED,
    (State.UNKNOWN, Event.CAPTURE): State.PAID,
    (State.PAID, Event.REFUND_PART): State.PART_REFUNDED,
    (State.PAID, Event.REFUND): State.REFUNDED,
    (State.PART_REFUNDED, Event.REFUND_PART): State.PART_REFUNDED,
    (State.PART_REFUNDED, Event.REFUND): State.REFUNDED,
}

DEBITED = frozenset({State.PAID, State.PART_REFUNDED, State.REFUNDED})
FAILED = frozenset({State.REFUSED, State.VOIDED, State.CANCELLED, State.EXPIRED})
"""Final without money having moved: the bill is free for another payment."""
FINAL = DEBITED | FAILED
"""The debit is decided; only a refund can follow."""


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
