"""Customers who are rung up about a bill: who, when, where, and what such a call does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_support import Program, program
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from test_api_core import bill_of, problem, refer
from test_approval_calls import _answer, _approver, _bill, _holds
from test_call_judging import ALICE, CARD, NOW, PIN, House, Telephone, encoder, house, scorer  # noqa: F401
from test_carrier_webhooks import Post, app, client, post, services  # noqa: F401
from test_notifications import ACCOUNT, OUR_NUMBER, TOKEN, twilio  # noqa: F401

from ivr.approval import addresses, freezes, policies
from ivr.approval.models import Answer
from ivr.approval.policy import Factor, Policy, Rule
from ivr.call import bill_calls
from ivr.call.bill_calls import RING_JOB
from ivr.call.engine import Engine
from ivr.call.models import Turn
from ivr.customers import budget
from ivr.customers.bills import cancel_bill
from ivr.customers.models import Audit, Bill, CallerId, Card, Consent, Customer, Pin, VoiceprintRow
from ivr.customers.register import add_caller_id, add_customer
from ivr.customers.rings import QUIET_UNTIL, RINGS_A_DAY, NotRung
from ivr.jobs import Again, Held, Job, take
from ivr.notifications import calls
from ivr.payments import worker
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.states import State
from ivr.services import Services
from ivr.store.db import Database

LAST4, SECRETS = CARD[-4:], ("Bookshop", "42", "6467", "6 4 6 7")


class Bell:
    """Notes whom it was to ring."""

    def __init__(self, *errors: str) -> None:
        self.rung: list[tuple[str, str, dict[str, str]]] = []
        self.errors = list(errors)

    def __call__(self, number: str, page: str, about: Mapping[str, str]) -> None:
        self.rung.append((number, page, dict(about)))
        if self.errors:
            raise NotRung(self.errors.pop(0))


@pytest.fixture
def payer(house: House) -> str:  # noqa: F811
    """Alice owes one bill, and agreed to be rung up."""
    payer = house.customer()
    with house.database.transaction() as session:
        assert bill_calls.agree(session, payer, who="test", channel="on paper", now=NOW)
    return payer


def bill_id(house: House) -> str:  # noqa: F811
    with house.database.transaction() as session:
        return session.scalars(select(Bill.id).order_by(Bill.created_at)).all()[-1]


def noon() -> datetime:
    """Of today, or of tomorrow when that is past."""
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return today if today > NOW else today + timedelta(days=1)


def ring(house: House, bell: Bell, moment: datetime, zone: str = "UTC") -> Again | None:  # noqa: F811
    """The worker takes up the job at this moment: when it wants to come back, if it does."""
    bill = bill_id(house)
    with house.database.transaction() as session:
        if session.scalar(select(Job).where(Job.kind == RING_JOB)) is None:
            bill_calls.plan(session, bill, moment)
        due = {"run_at": NOW - timedelta(days=1), "lease_until": None}
        session.execute(update(Job).where(Job.kind == RING_JOB).values(**due))
    held = take(house.database, "test", [RING_JOB], timedelta(minutes=1))
    assert held
    try:
        bill_calls.ring(held, bell, zone, lambda: moment)
    except Again as again:
        return again
    return None


# --- whom, when


def test_her_own_number_is_rung_about_the_bill(house: House, payer: str) -> None:  # noqa: F811
    bell = Bell()
    again = ring(house, bell, noon())
    assert bell.rung == [(ALICE, "bill", {"bill": bill_id(house)})]
    assert again
    assert (again.reason, again.after) == ("rung", timedelta(hours=1))
    with house.database.transaction() as session:
        assert session.scalar(select(Audit.subject).where(Audit.what == "bill.rung")) == payer


def test_a_few_times_a_day_an_hour_apart(house: House, payer: str) -> None:  # noqa: F811
    bell = Bell("twilio 21211")
    again = ring(house, bell, noon())
    assert again
    assert again.reason == "twilio 21211"
    again = ring(house, bell, noon() + timedelta(minutes=20))
    assert again
    assert (len(bell.rung), again.after) == (1, timedelta(minutes=40))
    for hour in range(1, RINGS_A_DAY):
        ring(house, bell, noon() + timedelta(hours=hour))
    assert len(bell.rung) == RINGS_A_DAY
    again = ring(house, bell, noon() + timedelta(hours=RINGS_A_DAY))
    assert len(bell.rung) == RINGS_A_DAY
    assert again
    assert again.after == timedelta(hours=12 - RINGS_A_DAY + QUIET_UNTIL.hour)  # tomorrow morning
    assert ring(house, bell, noon() + timedelta(days=1, minutes=1)) is None  # asked for a day ago
    assert len(bell.rung) == RINGS_A_DAY


def test_two_bills_share_the_calls_of_a_day(house: House, payer: str) -> None:  # noqa: F811
    bell = Bell()
    ring(house, bell, noon())
    _bill(house, payer, 1_000)
    with house.database.transaction() as session:
        other = session.scalars(select(Bill.id).where(Bill.amount_minor == 1_000)).one()
        session.execute(update(Job).values(done_at=NOW))
        bill_calls.plan(session, other, NOW)
    again = ring(house, bell, noon() + timedelta(minutes=1))
    assert again
    assert (again.reason, len(bell.rung)) == ("quiet", 1)


def test_two_workers_at_the_same_moment_ring_her_once(house: House, payer: str) -> None:  # noqa: F811
    bell, moment = Bell(), noon()
    _bill(house, payer, 1_000)
    with house.database.transaction() as session:
        for bill in session.scalars(select(Bill.id)).all():
            bill_calls.plan(session, bill, NOW)
    jobs = [take(house.database, worker, [RING_JOB], timedelta(minutes=1)) for worker in ("one", "two")]
    barrier = threading.Barrier(2)

    def work(held: Held | None) -> str:
        assert held
        barrier.wait()
        with pytest.raises(Again) as again:
            bill_calls.ring(held, bell, "UTC", lambda: moment)
        return again.value.reason

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(work, jobs)) == ["quiet", "rung"]
    assert len(bell.rung) == 1


@pytest.mark.parametrize(("hour", "zone", "quiet"), [
    (7, "UTC", True), (8, "UTC", False), (21, "UTC", True), (14, "Asia/Shanghai", True), (12, "Asia/Shanghai", False),
])  # fmt: skip
def test_nobody_is_rung_in_quiet_hours(house: House, payer: str, hour: int, zone: str, quiet: bool) -> None:  # noqa: F811
    bell = Bell()
    again = ring(house, bell, noon().replace(hour=hour) + timedelta(days=1), zone)
    assert again
    assert (again.reason == "quiet", bell.rung == []) == (quiet, quiet)


def _paid(session: Session, payer: str) -> None:
    session.execute(update(Bill).values(status="paid"))


def _cancelled(session: Session, payer: str) -> None:
    cancel_bill(session, session.scalars(select(Bill.id)).one())


def _withdrawn(session: Session, payer: str) -> None:
    assert bill_calls.withdraw(session, payer, who="test", now=NOW)


def _frozen(session: Session, payer: str) -> None:
    freezes.freeze(session, payer, who="test", now=NOW)


def _locked(session: Session, payer: str) -> None:
    for step in range(budget.FREE_IN_A_ROW):
        budget.record_failure(session, [payer], "CA", str(step), noon())


def _new_number(session: Session, payer: str) -> None:
    session.execute(update(CallerId).values(added_at=noon() - timedelta(days=1)))


def _shared_number(session: Session, payer: str) -> None:
    other = add_customer(session, phones=["+14155550199"], now=NOW)
    add_caller_id(session, other.id, ALICE, NOW)


def _no_voiceprint(session: Session, payer: str) -> None:
    session.execute(VoiceprintRow.__table__.delete())  # type: ignore[attr-defined]


def _no_pin(session: Session, payer: str) -> None:
    session.execute(Pin.__table__.delete())  # type: ignore[attr-defined]


def _no_card(session: Session, payer: str) -> None:
    session.execute(update(Card).values(revoked_at=NOW))


SILENT = [
    _paid, _cancelled, _withdrawn, _frozen, _locked, _new_number, _shared_number, _no_voiceprint, _no_pin, _no_card,
]  # fmt: skip


@pytest.mark.parametrize("so", SILENT, ids=lambda f: f.__name__)
def test_nobody_is_rung_who_does_not_want_to_or_could_not_pay(
    house: House,  # noqa: F811
    payer: str,
    so: Callable[[Session, str], None],
) -> None:
    bell, bill = Bell(), bill_id(house)
    with house.database.transaction() as session:
        bill_calls.plan(session, bill, noon())
        so(session, payer)
    assert ring(house, bell, noon()) is None
    assert bell.rung == []


def test_nobody_is_rung_who_never_agreed(house: House) -> None:  # noqa: F811
    house.customer()
    bell = Bell()
    assert ring(house, bell, noon()) is None
    assert bell.rung == []


def test_nobody_is_rung_while_a_payment_is_under_way_or_when_a_call_was_taken_up(house: House, payer: str) -> None:  # noqa: F811
    bell, bill = Bell(), bill_id(house)
    ring(house, bell, noon())
    with house.database.transaction() as session:
        assert bill_calls.taken_up(session, bill, "CA1", noon() + timedelta(minutes=1))
    assert ring(house, bell, noon() + timedelta(hours=2)) is None
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("alice")
    with house.database.transaction() as session:
        assert bill_calls.whom(session, bill, noon()) is None
    assert len(bell.rung) == 1


def test_without_a_number_to_call_from_the_job_is_given_up(house: House, payer: str) -> None:  # noqa: F811
    bill = bill_id(house)
    with house.database.transaction() as session:
        bill_calls.plan(session, bill, NOW)
    held = take(house.database, "test", [RING_JOB], timedelta(minutes=1))
    assert held
    worker.run_job(held, worker.Services(house.settings, SandboxBank("http://127.0.0.1:1", "k")))
    with house.database.transaction() as session:
        job = session.scalars(select(Job).where(Job.kind == RING_JOB)).one()
        assert (job.done_at is not None, job.last_error_type) == (True, "CallsNotConfigured")


def test_consent_is_kept_and_withdrawn(house: House, payer: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        assert not bill_calls.agree(session, payer, who="test", channel="again", now=NOW)
        assert bill_calls.withdraw(session, payer, who="test", now=NOW)
        assert not bill_calls.withdraw(session, payer, who="test", now=NOW)
        assert not bill_calls.may_be_rung(session, payer)
        (consent,) = session.scalars(select(Consent).where(Consent.kind == bill_calls.CONSENT_KIND))
        assert (consent.channel, consent.withdrawn_at) == ("on paper", NOW)


# --- over the API


@pytest.fixture
def shop(client: FlaskClient, database: Database) -> Program:  # noqa: F811
    return program(client, database)


def test_the_answer_is_the_same_whether_the_number_is_known_or_not(
    shop: Program, database: Database, now: datetime
) -> None:
    with database.transaction() as session:
        add_customer(session, phones=[ALICE], now=now)
    answers = []
    for phone in (ALICE, "+14155559999"):
        bill = bill_of(shop, refer(shop, phone, phone))
        for _ in range(2):
            given = shop.post(f"/bills/{bill['id']}/ring")
            assert given.status_code == 200
            assert given.get_json() == bill
            answers.append({**given.get_json(), "id": "", "customer": "", "created_at": ""})
    assert all(answer == answers[0] for answer in answers)
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job).where(Job.kind == RING_JOB)) == 2


def test_a_bill_that_is_withdrawn_does_not_ring(shop: Program, database: Database) -> None:
    bill = bill_of(shop, refer(shop))
    shop.made(f"/bills/{bill['id']}/cancel")
    problem(shop.post(f"/bills/{bill['id']}/ring"), 409, "conflict")
    with database.transaction() as session:
        assert session.scalar(select(Job).where(Job.kind == RING_JOB)) is None


def test_the_carrier_is_asked_to_ring_and_to_know_machines(twilio: Any) -> None:  # noqa: F811
    caller = calls.TwilioCaller(ACCOUNT, TOKEN, OUR_NUMBER, "https://pay.example.com/")
    caller.dial(ALICE, "bill", {"bill": "b" * 16})
    (form,) = twilio.messages
    assert (form["To"], form["MachineDetection"]) == (ALICE, "Enable")
    assert form["Url"] == f"https://pay.example.com/voice/bill?bill={'b' * 16}"


# --- the webhook


@pytest.mark.parametrize("answered_by", ["machine_start", "fax"])
def test_machines_are_hung_up_on(post: Post, services: Services, answered_by: str) -> None:  # noqa: F811
    given = post("/voice/bill?bill=x", AnsweredBy=answered_by).get_data(as_text=True)
    assert "<Response><Hangup /></Response>" in given
    assert services.calls.load("CA" + "1" * 32) is None


def test_a_bill_that_is_none_is_told_like_one_that_is_settled(post: Post) -> None:  # noqa: F811
    given = post("/voice/bill?bill=x", AnsweredBy="human").get_data(as_text=True)
    assert "There is nothing to answer any more" in given


def test_only_the_carrier_takes_up_calls(client: FlaskClient) -> None:  # noqa: F811
    assert client.post("/voice/bill?bill=x", data={"CallSid": "CA" + "1" * 32}).status_code == 403


# --- what is said in the call


def taken_up(house: House) -> Telephone:  # noqa: F811
    house.calls += 1
    sid = f"CA{house.calls:032d}"
    return Telephone(house.engine, house.judge, house.settings, sid, house.engine.ring_payer(sid, bill_id(house)))


def proves(call: Telephone, voice: str = "alice", last4: str = LAST4, pin: str = PIN) -> None:
    call.keys(last4)
    call.answers_challenge(voice)
    call.keys(pin)


@pytest.mark.parametrize("spoken", [False, True])
def test_she_proves_who_she_is_hears_of_the_bill_and_pays(house: House, payer: str, spoken: bool) -> None:  # noqa: F811
    call = taken_up(house)
    assert (call.heard, call.answer.then) == ("rung.ask", "listen")
    if spoken:
        call.says(LAST4, "alice")
    else:
        call.keys(LAST4)
    assert call.heard == "rung.say"
    assert not any(word in call.carrier_sees for word in SECRETS)
    call.answers_challenge("alice")
    assert call.heard == "pin.ask"
    call.keys(PIN)
    assert call.heard == "challenge.ask"
    assert "Corner Bookshop. To pay 42 US dollars 10 with the card ending 6 4 6 7" in call.carrier_sees
    call.answers_challenge("alice")
    assert call.answer.then == "hold"
    (payment,) = house.payments()
    assert (payment.customer_id, payment.state) == (payer, State.CREATED)
    assert payment.evidence["factors"] == ["voice", "pin", "challenge"]
    assert payment.evidence["attestation"] == "dialled by us"
    with house.database.transaction() as session:
        assert session.scalar(select(Audit.subject).where(Audit.what == bill_calls.TAKEN_UP)) == payment.bill_id
        assert LAST4 not in str([turn.decisions for turn in session.scalars(select(Turn))])


def _wrong_last4(call: Telephone) -> None:
    call.keys("1111")
    assert call.heard == "rung.say"
    call.answers_challenge("alice")


def _wrong_voice(call: Telephone) -> None:
    call.keys(LAST4)
    call.answers_challenge("bob")


def _wrong_last4_and_voice(call: Telephone) -> None:
    call.keys("1111")
    call.answers_challenge("bob")


@pytest.mark.parametrize("wrong", [_wrong_last4, _wrong_voice, _wrong_last4_and_voice], ids=lambda f: f.__name__)
def test_what_was_wrong_is_not_told_and_counts_once(
    house: House,  # noqa: F811
    payer: str,
    wrong: Callable[[Telephone], None],
) -> None:
    call = taken_up(house)
    for attempt in range(3):
        wrong(call)
        assert call.heard == ("rung.retry" if attempt < 2 else "rung.failed")
        assert not any(word in call.carrier_sees for word in SECRETS)
    assert call.answer.then == "hang_up"
    assert house.payments() == []
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, payer) == 3


def test_wrong_pins_tell_nothing_and_are_counted(house: House, payer: str) -> None:  # noqa: F811
    call = taken_up(house)
    proves(call, pin="000001")
    for heard in ("pin.retry", "rung.failed"):
        assert call.heard == "pin.retry"
        assert not any(word in call.carrier_sees for word in SECRETS)
        call.keys("000001")
        assert call.heard == heard
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, payer) == 3


def test_calls_to_her_and_from_her_have_one_budget(house: House, payer: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        for step in range(budget.FREE_IN_A_ROW - 1):
            budget.record_failure(session, [payer], "CA", str(step), NOW)
    call = taken_up(house)
    _wrong_voice(call)
    call.keys(LAST4)
    call.answers_challenge("alice")
    assert call.heard == "rung.retry"  # locked by now
    assert taken_up(house).heard == "approver.over"


def test_what_was_not_heard_well_is_no_failure(house: House, payer: str) -> None:  # noqa: F811
    call = taken_up(house)
    call.is_silent()
    assert call.heard == "rung.retry"
    call.keys(LAST4)
    call.answers_challenge("alice", "47190528")
    assert call.heard == "rung.retry"
    call.keys(LAST4)
    call.is_silent()
    assert call.heard == "rung.retry"
    proves(call)
    assert call.heard == "challenge.ask"
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, payer) == 0


def test_another_voice_at_the_end_does_not_pay(house: House, payer: str) -> None:  # noqa: F811
    call = taken_up(house)
    proves(call)
    for _ in range(3):
        call.answers_challenge("bob")
    assert (call.heard, house.payments()) == ("refused", [])


def test_paid_meanwhile(house: House, payer: str) -> None:  # noqa: F811
    call = taken_up(house)
    call.keys(LAST4)
    call.answers_challenge("alice")
    with house.database.transaction() as session:
        session.execute(update(Bill).values(status="paid"))
    call.keys(PIN)
    assert (call.heard, call.answer.then) == ("rung.over", "hang_up")
    assert taken_up(house).heard == "approver.over"


def test_only_the_bill_that_it_is_about_is_paid(house: House, payer: str) -> None:  # noqa: F811
    _bill(house, payer, 999)
    with house.database.transaction() as session:
        session.execute(update(Bill).where(Bill.amount_minor == 999).values(created_at=NOW + timedelta(minutes=1)))
    call = taken_up(house)
    proves(call)
    assert "9 US dollars 99" in call.carrier_sees
    assert "42" not in call.carrier_sees


def test_a_payer_who_is_frozen_in_the_call_hears_what_others_above_their_limits_hear(house: House, payer: str) -> None:  # noqa: F811
    call = taken_up(house)
    with house.database.transaction() as session:
        freezes.freeze(session, payer, who="test", now=NOW)
    proves(call)
    assert (call.heard, call.answer.then, house.payments()) == ("bill.limit", "hang_up", [])


def test_a_policy_that_wants_a_spoken_card_is_not_met(house: House, payer: str) -> None:  # noqa: F811
    rule = Rule(name="card", factors=frozenset({Factor.SPOKEN_CARD}))
    with house.database.transaction() as session:
        policies.put(session, payer, Policy(name="p", rules=(rule,)), who="test", now=NOW)
    call = taken_up(house)
    proves(call)
    assert call.heard == "bill.limit"


def test_a_policy_that_changes_in_the_call_has_words_of_its_own(house: House, payer: str) -> None:  # noqa: F811
    call = taken_up(house)
    proves(call)
    rule = Rule(name="nothing", refuse=True)
    with house.database.transaction() as session:
        policies.put(session, payer, Policy(name="p", rules=(rule,)), who="test", now=NOW)
    call.answers_challenge("alice")
    assert _holds(call) == "pay.not_allowed"
    assert house.payments() == []


def test_a_guardian_agrees_as_in_any_call_and_the_address_is_chosen(house: House) -> None:  # noqa: F811
    ward = house.customer(bills=[])
    guardian = _approver(house, ward)
    _bill(house, ward, 10_000, "9 New Road")
    with house.database.transaction() as session:
        bill_calls.agree(session, ward, who="test", channel="on paper", now=NOW)
        addresses.add(session, ward, "home", "1 Main Street", who="test", now=NOW)
    call = taken_up(house)
    proves(call)
    assert call.heard == "address.choose"
    call.answers(1)
    call.answers_challenge("alice")
    assert _holds(call) == "approval.wait"
    _answer(house, guardian, Answer.APPROVE)
    assert _holds(call) == "approval.given"
    (payment,) = house.payments()
    assert (payment.state, payment.ship_to) == (State.APPROVED, "1 Main Street")


def test_whom_nobody_hears_in_her_language_is_asked_to_call(house: House, payer: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        session.get_one(Customer, payer).locale = "zh"
    house.engine = Engine(house.engine.store, house.database, house.judge, lambda: NOW, heard=("en",))
    call = taken_up(house)
    assert (call.heard, call.answer.then, call.answer.locale) == ("rung.by_voice", "hang_up", "zh")
