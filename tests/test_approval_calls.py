"""Calls of people who are looked after: addresses, the extra PIN, holding for somebody's answer, hanging up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from test_call_judging import ALICE, CARD, NOW, PIN, House, Telephone, encoder, house, scorer  # noqa: F401

from ivr.approval import addresses, appointments, freezes, policies, requests, verify
from ivr.approval.models import Answer, ApprovalRequest
from ivr.approval.policy import Factor, Policy, Role, Rule
from ivr.call import flow
from ivr.customers.bills import create_bill
from ivr.customers.models import Customer, EnrolmentCode, Notice
from ivr.customers.pins import set_pin
from ivr.customers.register import add_customer
from ivr.payments.states import State

GUARDIAN = "+14155550177"
HOME, SCHOOL, NEW = "1 Main Street", "2 School Lane", "9 New Road"


def _approver(house: House, ward_id: str, role: Role = Role.GUARDIAN) -> str:  # noqa: F811
    with house.database.transaction() as session:
        long_ago = NOW - timedelta(days=30)
        approver = add_customer(session, phones=[GUARDIAN], sms=[GUARDIAN], now=long_ago)
        set_pin(session, approver.id, "739154", house.keyring, long_ago)
        appointment = appointments.propose(
            session, role, ward_id=ward_id, approver_id=approver.id, label="Lea", who="test", now=NOW
        )
        appointments.accept(session, appointment.id, approver.id, channel="test", now=NOW)
        return approver.id


def _bill(house: House, ward_id: str, amount_minor: int, ship_to: str | None = None) -> None:  # noqa: F811
    with house.database.transaction() as session:
        create_bill(
            session, ward_id, merchant="Corner Bookshop", amount_minor=amount_minor, currency="USD",
            ship_to=ship_to, now=NOW,
        )  # fmt: skip


def _answer(house: House, approver_id: str, given: Answer) -> None:  # noqa: F811
    with house.database.transaction() as session:
        assert verify.by_pin(session, approver_id, "739154", house.keyring, "page", NOW)
        request_id = session.scalars(select(ApprovalRequest.id)).one()
        requests.answer(session, request_id, approver_id, given, verified_by="pin, page", now=NOW)


def _holds(call: Telephone) -> str:
    """The carrier comes back after the pause: what the caller hears then."""
    answer = call.engine.turn_over(call.sid, call.answer.step)
    assert answer
    call.answer = answer
    return call.heard


def test_a_wards_small_payment_goes_through(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[1_000])
    _approver(house, ward)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    (payment,) = house.payments()
    assert payment.state is State.CREATED


@pytest.mark.parametrize(
    ("chosen", "text", "state"),
    [(1, HOME, State.CREATED), (2, SCHOOL, State.CREATED), (3, NEW, State.AWAITING)],
)
@pytest.mark.parametrize("by_keys", [False, True])
def test_she_chooses_where_it_goes(house: House, by_keys: bool, chosen: int, text: str, state: State) -> None:  # noqa: F811
    ward = house.customer(bills=[])
    _approver(house, ward)
    _bill(house, ward, 1_000, NEW)
    with house.database.transaction() as session:
        for label, where in (("home", HOME), ("school", SCHOOL)):
            addresses.add(session, ward, label, where, who="test", now=NOW)
    call = house.call()
    if by_keys:
        call.keys(CARD)
        call.keys(PIN)
    else:
        call.says(CARD, "alice")
    assert call.heard == "address.choose"
    assert "Number 1: home. Number 2: school. Number 3: the address on the bill" in call.carrier_sees
    assert HOME not in call.carrier_sees
    call.is_silent()
    assert call.heard == "address.choose.retry"
    call.answers(chosen)
    if by_keys:
        call.keys("1")
    else:
        call.answers_challenge("alice")
    (payment,) = house.payments()
    assert (payment.ship_to, payment.state) == (text, state)


def test_a_known_address_alone_is_not_asked_for(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[])
    _bill(house, ward, 1_000, "1, main street")
    with house.database.transaction() as session:
        addresses.add(session, ward, "home", HOME, who="test", now=NOW)
    call = house.call()
    call.says(CARD, "alice")
    assert call.heard == "challenge.ask"
    call.answers_challenge("alice")
    assert house.payments()[0].ship_to == HOME


@pytest.mark.parametrize(
    ("given", "heard"), [(Answer.APPROVE, "approval.given"), (Answer.REFUSE, "approval.refused")]
)
def test_she_holds_until_the_guardian_answers(house: House, given: Answer, heard: str) -> None:  # noqa: F811
    ward = house.customer(bills=[10_000])
    guardian = _approver(house, ward)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    assert _holds(call) == "approval.wait"
    assert _holds(call) == "approval.still"
    assert 'Pause length="8"' in call.carrier_sees
    _answer(house, guardian, given)
    assert _holds(call) == heard
    assert call.answer.then == ("hold" if given is Answer.APPROVE else "hang_up")


def test_holding_is_bounded_and_the_approval_outlives_the_call(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[10_000])
    guardian = _approver(house, ward)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    for _ in range(flow.APPROVAL_HOLDS):
        assert _holds(call).startswith("approval.")
    assert _holds(call) == "approval.later"
    assert call.answer.then == "hang_up"
    house.engine.end(call.sid)
    _answer(house, guardian, Answer.APPROVE)
    assert house.payments()[0].state is State.APPROVED


def test_whoever_hangs_up_pays_when_they_agree(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[10_000])
    guardian = _approver(house, ward)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    house.engine.end(call.sid)
    _answer(house, guardian, Answer.APPROVE)
    assert house.payments()[0].state is State.APPROVED


def test_a_large_payment_needs_voice_and_pin(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[30_000])
    _approver(house, ward)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    assert call.heard == "pin.ask"
    assert house.payments() == []
    call.keys("739154")
    assert call.heard == "pin.retry"
    call.keys(PIN)
    assert call.answer.then == "hold"
    (payment,) = house.payments()
    assert payment.evidence["factors"] == ["spoken card", "voice", "challenge", "pin"]
    assert payment.state is State.AWAITING


def test_three_wrong_pins_end_it_and_count_though_the_voice_was_right(house: House) -> None:  # noqa: F811
    from ivr.customers import budget

    ward = house.customer(bills=[30_000])
    _approver(house, ward)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    for _ in range(3):
        call.keys("739154")
    assert (call.heard, house.payments()) == ("refused", [])
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, ward) == 3


def test_a_large_payment_by_keypad_is_not_offered_and_the_guardian_hears_of_it(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[30_000])
    guardian = _approver(house, ward)
    call = house.call()
    call.keys(CARD)
    call.keys(PIN)
    assert (call.heard, call.answer.then) == ("bill.limit", "hang_up")
    with house.database.transaction() as session:
        told = session.scalars(select(Notice.template).where(Notice.customer_id == guardian)).all()
    assert "ward.attempted" in told


def test_a_supervised_payer_gives_voice_and_password_and_waits(house: House) -> None:  # noqa: F811
    ward = house.customer()
    supervisor = _approver(house, ward, Role.SUPERVISOR)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    assert call.heard == "pin.ask"
    call.keys(PIN)
    assert _holds(call) == "approval.wait"
    _answer(house, supervisor, Answer.FRAUD)
    assert _holds(call) == "approval.refused"
    again = house.call()
    again.says(CARD, "alice")
    assert again.heard == "bill.limit"  # nothing is paid until it is cleared


def test_a_frozen_customer_hears_what_others_above_their_limits_hear(house: House) -> None:  # noqa: F811
    ward = house.customer()
    with house.database.transaction() as session:
        freezes.freeze(session, ward, who="test", now=NOW)
    call = house.call()
    call.says(CARD, "alice")
    assert (call.heard, call.answer.then) == ("bill.limit", "hang_up")


def test_a_minor_whose_guardian_did_not_agree_sets_a_pin_only(house: House) -> None:  # noqa: F811
    from ivr.approval import minors
    from ivr.customers.enrolment import issue_code

    ward = house.customer(voice=None, pin=None)
    guardian = _approver(house, ward)
    with house.database.transaction() as session:
        session.get_one(Customer, ward).minor = True
        code = issue_code(session, ward, house.keyring, NOW)
    call = house.call()
    call.keys(code)
    call.keys(CARD)
    assert call.heard == "pin.new"
    with house.database.transaction() as session:
        assert session.scalars(select(EnrolmentCode)).one().used_at is None
        minors.consent(session, ward, guardian, channel="test", now=NOW)
    call = house.call()
    call.keys(code)
    call.keys(CARD)
    assert call.heard == "consent.ask"


def test_what_this_kind_of_call_cannot_give_is_not_offered(house: House) -> None:  # noqa: F811
    """A spoken call presses no key to confirm: to offer the bill would end at the bank's words for a refusal."""
    ward = house.customer()
    rule = Rule(name="by keys only", factors=frozenset({Factor.KEY}))
    with house.database.transaction() as session:
        policies.put(session, ward, Policy(name="p", rules=(rule,)), who="test", now=NOW)
    spoken = house.call()
    spoken.says(CARD, "alice")
    assert spoken.heard == "bill.limit"
    keyed = house.call()
    keyed.keys(CARD)
    keyed.keys(PIN)
    assert keyed.heard == "keypad.confirm"
