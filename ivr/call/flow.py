"""The phone call as a table: (state, event) to (state, what to say). Pure: no carrier, clock, store or chance.

An event says what a turn came to, never why. A wrong card, another's voice and a locked customer all arrive here
as :attr:`Event.AGAIN`, so nothing that the caller can observe afterwards can differ between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ivr.locales import LOCALES

FULL_ATTESTATION = "TN-Validation-Passed-A"
DIALLED = "dialled by us"  # in place of an attestation: better than that a carrier vouches for a number
ATTEMPTS = 3  # of each thing: saying a card, keying one, the challenge, ...
HOLDS = 12  # how often the caller hears "still working on it" before we promise to tell her later
APPROVAL_HOLDS = 30  # the same where somebody must agree first: five minutes, a word every ten seconds
MENU_CHOICES = 12  # how often a guardian may choose from her menu in one call


class State(StrEnum):
    """Where the call is: named by what is being asked, never by what failed before."""

    START = "start"
    CARD = "card"
    KEYPAD_CARD = "keypad_card"
    PIN = "pin"
    BILL = "bill"
    KEYPAD_BILL = "keypad_bill"
    ADDRESS = "address"
    KEYPAD_ADDRESS = "keypad_address"
    CONFIRM = "confirm"
    KEYPAD_CONFIRM = "keypad_confirm"
    EXTRA_PIN = "extra_pin"  # she has spoken, and her policy wants the payment password besides
    DEBIT = "debit"
    APPROVAL = "approval"  # somebody else must agree; she holds
    RUNG_LAST4 = "rung_last4"  # we rang a customer about a bill; which, and whose, she hears once she has proved it
    RUNG_SAY = "rung_say"
    RUNG_PIN = "rung_pin"
    APPROVER_SAY = "approver_say"  # we rang somebody who must agree to another's payment
    APPROVER_PIN = "approver_pin"
    APPROVER_ANSWER = "approver_answer"
    GUARD_PIN = "guard_pin"  # a guardian manages what her ward may pay
    GUARD_CHOOSE = "guard_choose"  # a ward, a merchant, an address
    GUARD_MENU = "guard_menu"
    GUARD_AMOUNT = "guard_amount"
    GUARD_CONFIRM = "guard_confirm"
    CONSENT = "consent"
    ENROL_1 = "enrol_1"
    ENROL_2 = "enrol_2"
    ENROL_3 = "enrol_3"
    NEW_PIN = "new_pin"
    REPEAT_PIN = "repeat_pin"
    AGENT = "agent"
    OVER = "over"


class Event(StrEnum):
    """What a turn came to."""

    RANG = "rang"
    AGAIN = "again"  # whatever was wrong, or nothing was heard
    EXHAUSTED = "exhausted"  # made by advance() of the last AGAIN
    CANCEL = "cancel"
    AGENT = "agent"
    STRAY_KEY = "stray_key"  # a key that means nothing here: the same question goes on
    IDENTIFIED = "identified"  # a customer number or an enrolment code was keyed; true or not is not said
    KEYED = "keyed"  # a whole card number was keyed; right or not is not said
    NO_BILL = "no_bill"  # the caller has proved who she is, and: nothing is due
    ONE_BILL = "one_bill"
    SEVERAL_BILLS = "several_bills"
    CHOSEN = "chosen"
    ADDRESSES = "addresses"  # there are several that the goods may go to
    TOO_LARGE = "too_large"
    CONFIRMED = "confirmed"
    NEEDS_PIN = "needs_pin"
    PENDING = "pending"
    AWAITING = "awaiting"
    NOT_APPROVED = "not_approved"
    NOT_IN_TIME = "not_in_time"
    HELD = "held"
    PAID = "paid"
    DECLINED = "declined"
    NOT_ALLOWED = "not_allowed"  # by her policy, which has changed in this call
    NO_FUNDS = "no_funds"
    CARD_EXPIRED = "card_expired"
    ISSUER_AWAY = "issuer_away"
    LINKED = "linked"
    BILLED = "billed"  # a customer took up the call that we placed about a bill
    ASKED = "asked"  # an approver took up the call that we placed
    PROVED = "proved"
    AGREED = "agreed"
    FROZEN = "frozen"
    TOO_LATE = "too_late"  # what was asked is decided, or not hers to answer any more
    GUARDIAN = "guardian"  # somebody says that she is one; true or not is not said
    WARDS = "wards"  # she has proved it, and looks after several
    LIMITS = "limits"
    AMOUNT = "amount"
    MERCHANTS = "merchants"
    BOOK = "book"
    NONE = "none"  # there is nothing to choose from
    OPERATORS = "operators"  # the policy is an operator's own: she cannot change it
    MAY_ENROL = "may_enrol"
    MAY_SET_PIN = "may_set_pin"  # the same without a voice: a minor whose guardian did not agree to a voiceprint
    YES = "yes"
    NO = "no"
    HEARD = "heard"  # one of the three enrolment strings
    POOR = "poor"  # all three, but they do not make a voiceprint
    TRIVIAL = "trivial"
    NEW = "new"
    DIFFERS = "differs"
    SET = "set"


@dataclass(frozen=True)
class Call:
    """What a call knows between two requests. Holds nothing that may not lie in Redis."""

    sid: str
    locale: str
    caller_id: str | None = None
    attestation: str | None = None
    state: State = State.START
    attempts: Mapping[str, int] = field(default_factory=dict)
    customer_ids: tuple[str, ...] = ()  # whom the caller may be
    customer_id: str | None = None  # who she has proved to be
    card_id: str | None = None
    last4: str = ""
    mismatched: tuple[str, ...] = ()  # customers whose voice this was not: they cannot finish by keypad in this call
    keyed_cards: tuple[tuple[str, str], ...] = ()  # (customer id, card id): whose authorised card was keyed
    code_keyed: bool = False  # an enrolment code was keyed; it lies sealed in the session
    bills: tuple[Mapping[str, str | int], ...] = ()
    bill: Mapping[str, str | int] | None = None
    addresses: tuple[tuple[str, str], ...] = ()  # to choose from: (name, id); the bill's own has neither
    address_id: str = ""  # the one chosen; "": the bill's own, if it has one
    limit_minor: int | None = None  # what this call may pay at most
    evidence: tuple[str, ...] = ()  # factors gathered, for the payment's record
    digits: str = ""  # what the caller was asked to say
    consented: bool = False
    receipt: str = ""
    rung_about: str = ""  # the bill that we rang about
    request_id: str = ""  # what an approver is asked about
    payer: str = ""  # whom it is about, as the approver calls her
    ward: Mapping[str, str | int] | None = None  # whom a guardian manages: "id", and the limits she may hear
    options: tuple[tuple[str, str], ...] = ()  # what she may choose from: (name, what it stands for)
    change: tuple[str, str, str] = ("", "", "")  # what she is about to change: (kind, name, new value)
    heard: tuple[str, ...] = LOCALES  # languages that there is a model of; in the others she keys everything

    @property
    def attested(self) -> bool:
        """Whether the carrier vouches for the caller and her right to the number, or we dialled it ourselves."""
        return self.attestation in (FULL_ATTESTATION, DIALLED)

    @property
    def line(self) -> str:
        """Whose limits this call uses up: who forges a caller id has others than its owner."""
        return f"{self.caller_id}:{'attested' if self.attested else 'unattested'}"


@dataclass(frozen=True)
class Speak:
    """What to do next: say these prompts, then ``then``."""

    prompts: tuple[str, ...]
    then: str  # "listen", "hold", "transfer" or "hang_up"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    to: State
    say: str
    fresh_digits: int = 0  # how many random digits the new question asks for


def _listening(*states: State, cancelled: str = "cancelled") -> dict[tuple[State, Event], Row]:
    return {
        key: row
        for state in states
        for key, row in (
            ((state, Event.CANCEL), Row(State.OVER, cancelled)),
            ((state, Event.AGENT), Row(State.AGENT, "agent")),
        )
    }


def _ends(*states: State) -> dict[tuple[State, Event], Row]:
    """How a payment ends, wherever the caller waits for it."""
    return {
        (state, event): Row(State.OVER, prompt)
        for state in states
        for event, prompt in (
            (Event.HELD, "pay.held"),
            (Event.PAID, "pay.done"),
            (Event.DECLINED, "pay.declined"),
            (Event.NOT_ALLOWED, "pay.not_allowed"),
            (Event.NO_FUNDS, "pay.declined.funds"),
            (Event.CARD_EXPIRED, "pay.declined.expired"),
            (Event.ISSUER_AWAY, "pay.declined.unavailable"),
            (Event.LINKED, "pay.link"),
            (Event.NOT_APPROVED, "approval.refused"),
            (Event.NOT_IN_TIME, "approval.expired"),
        )
    }


S, E = State, Event
_CHALLENGE, _ENROL = 4, 8  # eight are enough to judge a voice by them alone

TABLE: dict[tuple[State, Event], Row] = {
    (S.START, E.RANG): Row(S.CARD, "card.ask"),
    # Saying the card: the voice and the card are judged together, outside.
    (S.CARD, E.IDENTIFIED): Row(S.CARD, "card.next"),
    (S.CARD, E.AGAIN): Row(S.CARD, "card.retry"),
    (S.CARD, E.EXHAUSTED): Row(S.KEYPAD_CARD, "keypad.ask"),
    (S.CARD, E.KEYED): Row(S.PIN, "pin.ask"),
    (S.CARD, E.NO_BILL): Row(S.OVER, "bill.none"),
    (S.CARD, E.ONE_BILL): Row(S.CONFIRM, "challenge.ask", _CHALLENGE),
    (S.CARD, E.SEVERAL_BILLS): Row(S.BILL, "bill.choose"),
    (S.CARD, E.ADDRESSES): Row(S.ADDRESS, "address.choose"),
    (S.CARD, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    (S.CARD, E.GUARDIAN): Row(S.GUARD_PIN, "pin.ask"),
    (S.CARD, E.MAY_ENROL): Row(S.CONSENT, "consent.ask"),
    (S.CARD, E.MAY_SET_PIN): Row(S.NEW_PIN, "pin.new"),
    # Keying the card: right or wrong, the PIN is asked, and both are judged together.
    (S.KEYPAD_CARD, E.IDENTIFIED): Row(S.KEYPAD_CARD, "keypad.next"),
    (S.KEYPAD_CARD, E.AGAIN): Row(S.KEYPAD_CARD, "keypad.retry"),
    (S.KEYPAD_CARD, E.EXHAUSTED): Row(S.OVER, "refused"),
    (S.KEYPAD_CARD, E.KEYED): Row(S.PIN, "pin.ask"),
    (S.KEYPAD_CARD, E.GUARDIAN): Row(S.GUARD_PIN, "pin.ask"),
    (S.KEYPAD_CARD, E.MAY_ENROL): Row(S.CONSENT, "consent.ask"),
    (S.KEYPAD_CARD, E.MAY_SET_PIN): Row(S.NEW_PIN, "pin.new"),
    (S.PIN, E.AGAIN): Row(S.KEYPAD_CARD, "keypad.retry"),
    (S.PIN, E.EXHAUSTED): Row(S.OVER, "refused"),
    (S.PIN, E.NO_BILL): Row(S.OVER, "bill.none"),
    (S.PIN, E.ONE_BILL): Row(S.KEYPAD_CONFIRM, "keypad.confirm"),
    (S.PIN, E.SEVERAL_BILLS): Row(S.KEYPAD_BILL, "bill.choose"),
    (S.PIN, E.ADDRESSES): Row(S.KEYPAD_ADDRESS, "address.choose"),
    (S.PIN, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    # Which bill.
    (S.BILL, E.AGAIN): Row(S.BILL, "bill.choose.retry"),
    (S.BILL, E.EXHAUSTED): Row(S.OVER, "cancelled"),
    (S.BILL, E.CHOSEN): Row(S.CONFIRM, "challenge.ask", _CHALLENGE),
    (S.BILL, E.ADDRESSES): Row(S.ADDRESS, "address.choose"),
    (S.BILL, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    (S.KEYPAD_BILL, E.AGAIN): Row(S.KEYPAD_BILL, "bill.choose.retry"),
    (S.KEYPAD_BILL, E.EXHAUSTED): Row(S.OVER, "cancelled"),
    (S.KEYPAD_BILL, E.CHOSEN): Row(S.KEYPAD_CONFIRM, "keypad.confirm"),
    (S.KEYPAD_BILL, E.ADDRESSES): Row(S.KEYPAD_ADDRESS, "address.choose"),
    (S.KEYPAD_BILL, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    # Where to.
    (S.ADDRESS, E.AGAIN): Row(S.ADDRESS, "address.choose.retry"),
    (S.ADDRESS, E.EXHAUSTED): Row(S.OVER, "cancelled"),
    (S.ADDRESS, E.CHOSEN): Row(S.CONFIRM, "challenge.ask", _CHALLENGE),
    (S.ADDRESS, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    (S.KEYPAD_ADDRESS, E.AGAIN): Row(S.KEYPAD_ADDRESS, "address.choose.retry"),
    (S.KEYPAD_ADDRESS, E.EXHAUSTED): Row(S.OVER, "cancelled"),
    (S.KEYPAD_ADDRESS, E.CHOSEN): Row(S.KEYPAD_CONFIRM, "keypad.confirm"),
    (S.KEYPAD_ADDRESS, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    # Confirming: new digits each time, so that no recording of this or another call answers them.
    (S.CONFIRM, E.AGAIN): Row(S.CONFIRM, "challenge.retry", _CHALLENGE),
    (S.CONFIRM, E.EXHAUSTED): Row(S.OVER, "refused"),
    (S.CONFIRM, E.CONFIRMED): Row(S.DEBIT, "pay.wait"),
    (S.CONFIRM, E.NEEDS_PIN): Row(S.EXTRA_PIN, "pin.ask"),
    (S.KEYPAD_CONFIRM, E.AGAIN): Row(S.KEYPAD_CONFIRM, "keypad.confirm.retry"),
    (S.KEYPAD_CONFIRM, E.EXHAUSTED): Row(S.OVER, "cancelled"),
    (S.KEYPAD_CONFIRM, E.CONFIRMED): Row(S.DEBIT, "pay.wait"),
    # Advanced verification: the payment password after the voice.
    (S.EXTRA_PIN, E.AGAIN): Row(S.EXTRA_PIN, "pin.retry"),
    (S.EXTRA_PIN, E.EXHAUSTED): Row(S.OVER, "refused"),
    (S.EXTRA_PIN, E.CONFIRMED): Row(S.DEBIT, "pay.wait"),
    # The worker debits, perhaps after somebody has agreed; the caller holds.
    (S.DEBIT, E.PENDING): Row(S.DEBIT, "pay.still"),
    (S.DEBIT, E.AWAITING): Row(S.APPROVAL, "approval.wait"),
    (S.DEBIT, E.EXHAUSTED): Row(S.OVER, "pay.later"),
    (S.APPROVAL, E.PENDING): Row(S.DEBIT, "approval.given"),
    (S.APPROVAL, E.AWAITING): Row(S.APPROVAL, "approval.still"),
    (S.APPROVAL, E.EXHAUSTED): Row(S.OVER, "approval.later"),
    **_ends(S.DEBIT, S.APPROVAL),
    # A customer was rung up about a bill. Whatever was wrong, the last four digits are asked for again: they, the
    # voice and the digits said are judged together, outside.
    (S.START, E.BILLED): Row(S.RUNG_LAST4, "rung.ask"),
    (S.RUNG_LAST4, E.AGAIN): Row(S.RUNG_LAST4, "rung.retry"),
    (S.RUNG_LAST4, E.EXHAUSTED): Row(S.OVER, "rung.failed"),
    (S.RUNG_LAST4, E.HEARD): Row(S.RUNG_SAY, "rung.say", _ENROL),
    (S.RUNG_SAY, E.AGAIN): Row(S.RUNG_LAST4, "rung.retry"),
    (S.RUNG_SAY, E.EXHAUSTED): Row(S.OVER, "rung.failed"),
    (S.RUNG_SAY, E.HEARD): Row(S.RUNG_PIN, "pin.ask"),
    (S.RUNG_PIN, E.AGAIN): Row(S.RUNG_PIN, "pin.retry"),
    (S.RUNG_PIN, E.EXHAUSTED): Row(S.OVER, "rung.failed"),
    (S.RUNG_PIN, E.ONE_BILL): Row(S.CONFIRM, "challenge.ask", _CHALLENGE),
    (S.RUNG_PIN, E.ADDRESSES): Row(S.ADDRESS, "address.choose"),
    (S.RUNG_PIN, E.TOO_LARGE): Row(S.OVER, "bill.limit"),
    (S.RUNG_PIN, E.TOO_LATE): Row(S.OVER, "rung.over"),
    # Somebody who must agree to another's payment was rung up: nothing is told before she has proved who she is.
    (S.START, E.ASKED): Row(S.APPROVER_SAY, "approver.ask", _ENROL),
    (S.START, E.TOO_LATE): Row(S.OVER, "approver.over"),
    (S.APPROVER_SAY, E.AGAIN): Row(S.APPROVER_SAY, "approver.retry", _ENROL),
    (S.APPROVER_SAY, E.EXHAUSTED): Row(S.OVER, "approver.failed"),
    (S.APPROVER_SAY, E.HEARD): Row(S.APPROVER_PIN, "pin.ask"),
    (S.APPROVER_PIN, E.AGAIN): Row(S.APPROVER_PIN, "pin.retry"),
    (S.APPROVER_PIN, E.EXHAUSTED): Row(S.OVER, "approver.failed"),
    (S.APPROVER_PIN, E.PROVED): Row(S.APPROVER_ANSWER, "approver.choose"),
    (S.APPROVER_PIN, E.TOO_LATE): Row(S.OVER, "approver.over"),
    (S.APPROVER_ANSWER, E.AGAIN): Row(S.APPROVER_ANSWER, "approver.choose"),
    (S.APPROVER_ANSWER, E.EXHAUSTED): Row(S.OVER, "approver.later"),
    (S.APPROVER_ANSWER, E.AGREED): Row(S.OVER, "approver.agreed"),
    (S.APPROVER_ANSWER, E.DECLINED): Row(S.OVER, "approver.refused"),
    (S.APPROVER_ANSWER, E.FROZEN): Row(S.OVER, "approver.frozen"),
    (S.APPROVER_ANSWER, E.TOO_LATE): Row(S.OVER, "approver.over"),
    # A guardian, by her PIN. Whoever is none hears the same, and is asked as often.
    (S.GUARD_PIN, E.AGAIN): Row(S.GUARD_PIN, "pin.retry"),
    (S.GUARD_PIN, E.EXHAUSTED): Row(S.OVER, "refused"),
    (S.GUARD_PIN, E.WARDS): Row(S.GUARD_CHOOSE, "guard.choose.ward"),
    (S.GUARD_PIN, E.PROVED): Row(S.GUARD_MENU, "guard.menu"),
    (S.GUARD_CHOOSE, E.AGAIN): Row(S.GUARD_CHOOSE, "guard.choose.retry"),
    (S.GUARD_CHOOSE, E.EXHAUSTED): Row(S.OVER, "guard.over"),
    (S.GUARD_CHOOSE, E.PROVED): Row(S.GUARD_MENU, "guard.menu"),
    (S.GUARD_CHOOSE, E.CHOSEN): Row(S.GUARD_CONFIRM, "guard.confirm"),
    (S.GUARD_MENU, E.AGAIN): Row(S.GUARD_MENU, "guard.menu.retry"),
    (S.GUARD_MENU, E.EXHAUSTED): Row(S.OVER, "guard.over"),
    (S.GUARD_MENU, E.TOO_LATE): Row(S.OVER, "guard.over"),
    (S.GUARD_MENU, E.LIMITS): Row(S.GUARD_MENU, "guard.limits"),
    (S.GUARD_MENU, E.AMOUNT): Row(S.GUARD_AMOUNT, "guard.amount.ask"),
    (S.GUARD_MENU, E.MERCHANTS): Row(S.GUARD_CHOOSE, "guard.choose.merchant"),
    (S.GUARD_MENU, E.BOOK): Row(S.GUARD_CHOOSE, "guard.choose.address"),
    (S.GUARD_MENU, E.CHOSEN): Row(S.GUARD_CONFIRM, "guard.confirm"),
    (S.GUARD_MENU, E.NONE): Row(S.GUARD_MENU, "guard.none"),
    (S.GUARD_MENU, E.OPERATORS): Row(S.GUARD_MENU, "guard.operators"),
    (S.GUARD_AMOUNT, E.AGAIN): Row(S.GUARD_AMOUNT, "guard.amount.retry"),
    (S.GUARD_AMOUNT, E.EXHAUSTED): Row(S.OVER, "guard.over"),
    (S.GUARD_AMOUNT, E.CHOSEN): Row(S.GUARD_CONFIRM, "guard.confirm"),
    (S.GUARD_CONFIRM, E.AGAIN): Row(S.GUARD_CONFIRM, "guard.confirm.retry"),
    (S.GUARD_CONFIRM, E.EXHAUSTED): Row(S.OVER, "guard.over"),
    (S.GUARD_CONFIRM, E.TOO_LATE): Row(S.OVER, "guard.over"),
    (S.GUARD_CONFIRM, E.SET): Row(S.GUARD_MENU, "guard.done"),
    (S.GUARD_CONFIRM, E.NO): Row(S.GUARD_MENU, "guard.unchanged"),
    (S.GUARD_CONFIRM, E.OPERATORS): Row(S.GUARD_MENU, "guard.operators"),
    # Enrolment, entered with a single-use code and an authorised card.
    (S.CONSENT, E.AGAIN): Row(S.CONSENT, "consent.retry"),
    (S.CONSENT, E.EXHAUSTED): Row(S.OVER, "enrol.poor"),
    (S.CONSENT, E.YES): Row(S.ENROL_1, "enrol.first", _ENROL),
    (S.CONSENT, E.NO): Row(S.NEW_PIN, "pin.new"),
    (S.ENROL_1, E.AGAIN): Row(S.ENROL_1, "enrol.retry", _ENROL),
    (S.ENROL_1, E.EXHAUSTED): Row(S.OVER, "enrol.poor"),
    (S.ENROL_1, E.HEARD): Row(S.ENROL_2, "enrol.next", _ENROL),
    (S.ENROL_2, E.AGAIN): Row(S.ENROL_2, "enrol.retry", _ENROL),
    (S.ENROL_2, E.EXHAUSTED): Row(S.OVER, "enrol.poor"),
    (S.ENROL_2, E.HEARD): Row(S.ENROL_3, "enrol.next", _ENROL),
    (S.ENROL_3, E.AGAIN): Row(S.ENROL_3, "enrol.retry", _ENROL),
    (S.ENROL_3, E.EXHAUSTED): Row(S.OVER, "enrol.poor"),
    (S.ENROL_3, E.POOR): Row(S.OVER, "enrol.poor"),
    (S.ENROL_3, E.HEARD): Row(S.NEW_PIN, "pin.new"),
    (S.NEW_PIN, E.AGAIN): Row(S.NEW_PIN, "pin.new"),
    (S.NEW_PIN, E.TRIVIAL): Row(S.NEW_PIN, "pin.trivial"),
    (S.NEW_PIN, E.EXHAUSTED): Row(S.OVER, "enrol.poor"),
    (S.NEW_PIN, E.NEW): Row(S.REPEAT_PIN, "pin.repeat"),
    (S.REPEAT_PIN, E.DIFFERS): Row(S.NEW_PIN, "pin.differs"),
    (S.REPEAT_PIN, E.AGAIN): Row(S.REPEAT_PIN, "pin.repeat"),
    (S.REPEAT_PIN, E.EXHAUSTED): Row(S.OVER, "enrol.poor"),
    (S.REPEAT_PIN, E.SET): Row(S.OVER, "enrol.done"),
    **_listening(
        S.CARD, S.KEYPAD_CARD, S.PIN, S.BILL, S.KEYPAD_BILL, S.ADDRESS, S.KEYPAD_ADDRESS,
        S.CONFIRM, S.KEYPAD_CONFIRM, S.EXTRA_PIN, S.RUNG_LAST4, S.RUNG_SAY, S.RUNG_PIN,
        S.APPROVER_SAY, S.APPROVER_PIN, S.APPROVER_ANSWER,
        S.GUARD_PIN, S.CONSENT, S.ENROL_1, S.ENROL_2, S.ENROL_3, S.NEW_PIN, S.REPEAT_PIN,
    ),
    **_listening(S.GUARD_CHOOSE, S.GUARD_MENU, S.GUARD_AMOUNT, S.GUARD_CONFIRM, cancelled="guard.over"),
}  # fmt: skip

#: Where the questions that want speech lead a caller whose language nobody hears: a voiceprint is not offered.
BY_KEYS = {
    S.CARD: Row(S.KEYPAD_CARD, "keypad.ask"),
    S.CONSENT: Row(S.NEW_PIN, "pin.new"),
    S.APPROVER_SAY: Row(S.APPROVER_PIN, "approver.keys"),
    S.RUNG_LAST4: Row(S.OVER, "rung.by_voice"),  # keys alone are less than what her own call would need
}

#: Events that use up one of the attempts at the thing being asked.
COUNTED = {E.AGAIN, E.IDENTIFIED, E.TRIVIAL, E.DIFFERS, E.STRAY_KEY, E.PENDING, E.AWAITING}

#: How many of them, where it is not ATTEMPTS.
MOST = {S.DEBIT: HOLDS, S.APPROVAL: APPROVAL_HOLDS}


class NoSuchMove(Exception):
    """An event came that cannot happen in this state: a fault of ours, never of the caller's."""


def advance(call: Call, event: Event, fresh_digits: str) -> tuple[Call, Speak]:
    """The next state of the call and what to say.

    ``fresh_digits`` are random decimal digits, used where the next question asks for some.
    Raises NoSuchMove. A call that is over stays over.
    """
    if call.state in (S.OVER, S.AGENT):
        return call, Speak((), "hang_up")
    kept_digits = call.digits if event is E.STRAY_KEY else ""  # a key pressed by mistake buys no new challenge
    if counted := _counted(call.state, event):
        counter, most = counted
        count = call.attempts.get(counter, 0) + 1
        call = replace(call, attempts={**call.attempts, counter: count})
        if count >= most:
            event = E.EXHAUSTED
    if event is E.STRAY_KEY:
        event = E.AGAIN
    row = TABLE.get((call.state, event))
    if row is None:
        raise NoSuchMove(f"{event} in {call.state}")
    if call.locale not in call.heard:
        row = BY_KEYS.get(row.to, row)
    prompt = "enrol.pin.done" if row.say == "enrol.done" and not call.consented else row.say
    digits = (kept_digits or fresh_digits[: row.fresh_digits]) if row.fresh_digits else call.digits
    return replace(call, state=row.to, digits=digits), Speak((prompt,), _then(row.to))


def _counted(state: State, event: Event) -> tuple[str, int] | None:
    """What this event uses up, and how often it may come."""
    if event is E.IDENTIFIED:  # apart, so that it does not shorten what a caller may try with a card
        return f"{state}:identified", ATTEMPTS
    if event in COUNTED:
        return str(state), MOST.get(state, ATTEMPTS)
    if state is S.GUARD_MENU and event not in (E.CANCEL, E.AGENT):  # no call goes on for ever
        return f"{state}:chosen", MENU_CHOICES
    return None


def is_last(call: Call, event: Event) -> bool:
    """Whether this event, one that is counted, uses up the last attempt at what is being asked."""
    counted = _counted(call.state, event)
    return counted is not None and call.attempts.get(counted[0], 0) + 1 >= counted[1]


def _then(state: State) -> str:
    match state:
        case S.OVER:
            return "hang_up"
        case S.AGENT:
            return "transfer"
        case S.DEBIT | S.APPROVAL:
            return "hold"
        case _:
            return "listen"
