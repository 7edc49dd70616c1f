"""Approvers who are rung up: when, where, and what a call to them does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from approval_support import SPOKEN, Family
from sqlalchemy import select, update
from test_approval_calls import GUARDIAN
from test_call_judging import CARD, NOW, House, Telephone, encoder, house, scorer  # noqa: F401
from test_carrier_webhooks import client, services  # noqa: F401
from test_notifications import ACCOUNT, OUR_NUMBER, TOKEN, twilio  # noqa: F401

from ivr.approval import appointments, freezes, ringing
from ivr.approval.models import Answer, Appointment, ApprovalAnswer, ApprovalRequest
from ivr.approval.policy import Role
from ivr.approval.ringing import RING_JOB
from ivr.call.session import Answer as Told
from ivr.customers.models import CallerId, Contact, UtterancePrint
from ivr.customers.pins import set_pin
from ivr.customers.register import add_customer
from ivr.customers.rings import QUIET_UNTIL, RINGS_A_DAY, NotRung
from ivr.customers.voiceprints import delete_voiceprint
from ivr.jobs import Again, Held, Job, take
from ivr.keys import Keyring
from ivr.notifications import calls
from ivr.payments.states import State
from ivr.settings import Settings
from ivr.store.db import Database

HER_PIN = "739154"


def _noon(zone_hours: int = 0) -> datetime:
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(hours=zone_hours)


class Bell:
    """Notes whom it was to ring."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def __call__(self, number: str, page: str, about: Mapping[str, str]) -> None:
        self.rung.append(number)


@pytest.fixture
def waiting(database: Database, keyring: Keyring) -> Family:
    """A payment that waits for an approver who wants to be rung up."""
    family = Family(database, keyring, datetime.now(UTC))
    family.approver(ring=True)
    family.pay(family.bill(10_000), factors=SPOKEN)
    return family


def _ring(family: Family, bell: Bell, moment: datetime, zone: str = "UTC") -> Again | None:
    """The worker takes up the job at this moment: when it wants to come back, if it does."""
    with family.database.transaction() as session:
        due = {"run_at": NOW - timedelta(days=1), "lease_until": None}
        session.execute(update(Job).where(Job.kind == RING_JOB).values(**due))
        session.execute(update(ApprovalRequest).values(expires_at=moment + timedelta(hours=1)))
    held: Held | None = take(family.database, "test", [RING_JOB], timedelta(minutes=1))
    assert held
    try:
        ringing.ring(held, bell, zone, lambda: moment)
    except Again as again:
        return again
    return None


def test_rung_a_few_times_a_day_and_not_again_when_answered(waiting: Family) -> None:
    bell, noon = Bell(), _noon()
    for i in range(RINGS_A_DAY):
        again = _ring(waiting, bell, noon + timedelta(minutes=10 * i))
        assert again
        assert again.after == ringing.APPROVER_CALLS.apart
    again = _ring(waiting, bell, noon + timedelta(hours=1))
    assert bell.rung == ["+14155552000"] * RINGS_A_DAY
    assert again
    assert again.after == timedelta(hours=24 - 13 + QUIET_UNTIL.hour)  # tomorrow morning
    with waiting.database.transaction() as session:
        session.execute(update(ApprovalRequest).values(state="approved"))
    assert _ring(waiting, bell, noon + timedelta(days=1)) is None
    assert len(bell.rung) == RINGS_A_DAY


@pytest.mark.parametrize(("hour", "zone", "quiet"), [
    (7, "UTC", True), (8, "UTC", False), (20, "UTC", False), (21, "UTC", True), (12, "Asia/Shanghai", False),
    (14, "Asia/Shanghai", True), (23, "Asia/Shanghai", True), (0, "Asia/Shanghai", False),
])  # fmt: skip
def test_nobody_is_rung_up_in_quiet_hours(
    waiting: Family, hour: int, zone: str, quiet: bool
) -> None:
    bell = Bell()
    again = _ring(waiting, bell, _noon().replace(hour=hour), zone)
    assert again
    assert bell.rung == ([] if quiet else ["+14155552000"])
    assert (again.reason == "quiet") == quiet


def test_nobody_is_rung_up_at_a_number_that_is_new_or_the_payers(waiting: Family) -> None:
    from ivr.customers.register import add_caller_id

    bell = Bell()
    with waiting.database.transaction() as session:
        for table in (CallerId, Contact):
            session.execute(update(table).where(table.customer_id == waiting.approvers[0]).values(added_at=NOW))
    assert _ring(waiting, bell, _noon()) is None
    with waiting.database.transaction() as session:
        for table in (CallerId, Contact):
            session.execute(update(table).values(added_at=None))
        add_caller_id(session, waiting.ward_id, "+14155552000", NOW)
    assert _ring(waiting, bell, _noon()) is None
    assert bell.rung == []


def test_the_carrier_is_asked_to_ring_and_to_know_machines(settings: Settings, twilio) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    caller = calls.TwilioCaller(ACCOUNT, TOKEN, OUR_NUMBER, "https://pay.example.com/")
    caller.dial("+14155552000", "approver", {"request": "req", "approver": "app"})
    (form,) = twilio.messages
    assert form["To"] == "+14155552000"
    assert form["Url"] == "https://pay.example.com/voice/approver?request=req&approver=app"
    assert form["MachineDetection"] == "Enable"
    twilio.errors.append((400, 21211))
    with pytest.raises(NotRung, match="^twilio 21211$"):
        caller.dial("+14155552000", "approver", {"request": "req", "approver": "app"})
    assert calls.connect(settings) is None
    with pytest.raises(ValueError, match="IVR_CALLS_FROM"):
        calls.connect(settings.model_copy(update={"calls_from": OUR_NUMBER, "account_sid": ""}))


# What is said in such a call.


@pytest.fixture
def asked(house: House) -> tuple[str, str, str]:  # noqa: F811
    """Alice's payment waits for a guardian whose voice is Bob's: the ward, the guardian, the request."""
    ward = house.customer(bills=[10_000])
    with house.database.transaction() as session:
        long_ago = NOW - timedelta(days=30)
        approver = add_customer(session, phones=[GUARDIAN], sms=[GUARDIAN], test=True, now=long_ago)
        set_pin(session, approver.id, HER_PIN, house.keyring, long_ago)
        house._voiceprint(session, approver.id, "bob")
        appointment = appointments.propose(
            session, Role.GUARDIAN, ward_id=ward, approver_id=approver.id, label="Lea", ring=True, who="test", now=NOW
        )
        appointments.accept(session, appointment.id, approver.id, channel="test", now=NOW)
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    with house.database.transaction() as session:
        return ward, approver.id, session.scalars(select(ApprovalRequest.id)).one()


def _taken_up(house: House, asked: tuple[str, str, str]) -> Telephone:  # noqa: F811
    house.calls += 1
    sid = f"CA{house.calls:032d}"
    told: Told = house.engine.ring_approver(sid, asked[2], asked[1])
    return Telephone(house.engine, house.judge, house.settings, sid, told)


@pytest.mark.parametrize(
    ("key", "heard", "state", "given"),
    [
        ("1", "approver.agreed", State.APPROVED, Answer.APPROVE),
        ("2", "approver.refused", State.REFUSED, Answer.REFUSE),
        ("3", "approver.frozen", State.REFUSED, Answer.FRAUD),
    ],
)
def test_she_proves_who_she_is_hears_and_answers(
    house: House,  # noqa: F811
    asked: tuple[str, str, str],
    key: str,
    heard: str,
    state: State,
    given: Answer,
) -> None:
    call = _taken_up(house, asked)
    assert call.heard == "approver.ask"
    assert not any(word in call.carrier_sees for word in ("Bookshop", "100", "Lea"))
    call.answers_challenge("bob")
    assert call.heard == "pin.ask"
    call.keys(HER_PIN)
    assert call.heard == "approver.choose"
    assert "Lea wants to pay 100 US dollars to Corner Bookshop" in call.carrier_sees
    call.is_silent()
    assert call.heard == "approver.choose"
    call.keys(key)
    assert (call.heard, call.answer.then) == (heard, "hang_up")
    (payment,) = house.payments()
    assert payment.state is state
    with house.database.transaction() as session:
        answer = session.scalars(select(ApprovalAnswer)).one()
        assert (answer.answer, answer.verified_by) == (given, f"pin, call {call.sid}")
        assert freezes.is_frozen(session, asked[0]) == (given is Answer.FRAUD)
    assert _taken_up(house, asked).heard == "approver.over"


def test_the_payers_own_voice_is_refused_as_approver(house: House, asked: tuple[str, str, str]) -> None:  # noqa: F811
    with house.database.transaction() as session:  # an approver without a voiceprint of her own
        delete_voiceprint(session, asked[1], NOW)
    call = _taken_up(house, asked)
    for _ in range(3):
        call.answers_challenge("alice")
    assert (call.heard, call.answer.then) == ("approver.failed", "hang_up")
    other = _taken_up(house, asked)
    other.answers_challenge("bob")
    assert other.heard == "pin.ask"


@pytest.mark.parametrize("of_the_payer", [True, False])
def test_a_watched_voice_agrees_to_nothing_and_hides_no_payer(
    house: House, asked: tuple[str, str, str], of_the_payer: bool  # noqa: F811
) -> None:
    """Whether there is a voiceprint of the payer, whose voice it is and fits less well, or none of anybody."""
    with house.database.transaction() as session:
        for customer_id in asked[of_the_payer:2]:
            delete_voiceprint(session, customer_id, NOW)
    house.watch("alice", ("card", "card_2", "second_card"))
    call = _taken_up(house, asked)
    for _ in range(3):
        call.answers_challenge("alice")
    assert call.heard == "approver.failed"


def test_an_approvers_answer_is_remembered(house: House, asked: tuple[str, str, str]) -> None:  # noqa: F811
    call = _taken_up(house, asked)
    call.answers_challenge("bob")
    assert call.heard == "pin.ask"
    with house.database.transaction() as session:
        assert session.scalars(select(UtterancePrint).where(UtterancePrint.customer_id == asked[1])).one()


def test_another_voice_than_the_approvers_is_refused(house: House, asked: tuple[str, str, str]) -> None:  # noqa: F811
    call = _taken_up(house, asked)
    for _ in range(3):
        call.answers_challenge("gus")
    assert call.heard == "approver.failed"


def test_wrong_pins_tell_nothing_and_are_counted(house: House, asked: tuple[str, str, str]) -> None:  # noqa: F811
    from ivr.customers import budget

    call = _taken_up(house, asked)
    call.answers_challenge("bob")
    for _ in range(3):
        call.keys("000001")
        assert "Lea" not in call.carrier_sees
    assert call.heard == "approver.failed"
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, asked[1]) == 3


def test_whoever_is_no_approver_any_more_hears_nothing(house: House, asked: tuple[str, str, str]) -> None:  # noqa: F811
    with house.database.transaction() as session:
        appointment = session.scalars(select(Appointment)).one()
        appointments.end(session, appointment.id, by_approver=True, who="test", now=NOW)
    assert _taken_up(house, asked).heard == "approver.over"
    unknown = house.engine.ring_approver("CA" + "9" * 32, "nothing", "nobody")
    assert unknown.lines[-1].prompt == "approver.over"
