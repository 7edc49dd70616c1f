"""What a hostile reading found: ways round, ways to hang, two at the same moment on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from approval_support import SPOKEN, Family
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from ivr.approval import addresses, appointments, freezes, gate, policies, requests, telling
from ivr.approval.models import Answer, ApprovalRequest, Tell
from ivr.approval.policy import Policy, Role, Rule, When
from ivr.approval.requests import Result
from ivr.customers.models import CallerId, ContactKind
from ivr.customers.register import add_contact
from ivr.jobs import Job
from ivr.keys import Keyring
from ivr.payments import service
from ivr.payments.models import Payment
from ivr.payments.states import Event, State
from ivr.payments.verify import stuck
from ivr.store.db import Database

NOW = datetime.now(UTC).replace(microsecond=0)
ADVANCED = (*SPOKEN, "pin")
ALL_GUARDIANS = Policy(name="p", rules=(Rule(name="r", approvals={Role.GUARDIAN: "all"}),))


@pytest.fixture
def family(database: Database, keyring: Keyring) -> Family:
    return Family(database, keyring, NOW)


def _also_supervisor(family: Family, approver_id: str, **more: object) -> None:
    with family.database.transaction() as session:
        named = appointments.propose(
            session, Role.SUPERVISOR, ward_id=family.ward_id, approver_id=approver_id, label="Lea",
            who="test", now=NOW, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        appointments.accept(session, named.id, approver_id, channel="test", now=NOW)


@pytest.mark.parametrize("lapsed", ["ended on its day", "never accepted"])
def test_what_has_lapsed_leaves_room_to_be_named_again(family: Family, lapsed: str) -> None:
    accepted = lapsed == "ended on its day"
    more = {"ends_at": NOW + timedelta(days=1)} if accepted else {}
    supervisor = family.approver(Role.SUPERVISOR, accepted=accepted, **more)
    later = NOW + timedelta(days=30)
    with family.database.transaction() as session:
        again = appointments.propose(
            session, Role.SUPERVISOR, ward_id=family.ward_id, approver_id=supervisor, label="Lea", who="test", now=later
        )
        appointments.accept(session, again.id, supervisor, channel="test", now=later)
        assert [a.id for a in appointments.active(session, family.ward_id, later)] == [again.id]
    assert family.notices(supervisor).count("appointment.ask") == 2


def test_a_backup_of_one_role_counts_in_the_other(family: Family) -> None:
    one, other = family.approver(), family.approver()
    _also_supervisor(family, other, backup=True, currency="USD", above_minor=1_000_000)
    family.policy(ALL_GUARDIANS)
    assert family.answers(one, family.pay(family.bill(), factors=ADVANCED)) is Result.MORE_NEEDED


def test_who_is_guardian_and_backup_supervisor_is_asked_at_once(family: Family) -> None:
    both = [family.approver() for _ in range(4)]
    for approver in both:
        _also_supervisor(family, approver, backup=True)
    family.pay(family.bill(10_000), factors=ADVANCED)
    assert all("approval.ask" in family.notices(approver) for approver in both)


def test_a_fraud_is_a_fraud_also_when_another_agreed_before(family: Family) -> None:
    hasty, careful = family.approver(), family.approver()
    payment = family.pay(family.bill(10_000))
    assert family.answers(hasty, payment) is Result.APPROVED
    assert family.answers(careful, payment, Answer.FRAUD) is Result.FROZEN
    assert family.state(payment) is State.CANCELLED  # it was not at the bank yet
    with family.database.transaction() as session:
        assert freezes.is_frozen(session, family.ward_id)


def test_when_one_of_two_resigns_the_other_has_been_enough(family: Family) -> None:
    agreed, resigning = family.approver(), family.approver()
    family.policy(ALL_GUARDIANS)
    payment = family.pay(family.bill())
    assert family.answers(agreed, payment) is Result.MORE_NEEDED
    with family.database.transaction() as session:
        appointments.end(session, family.appointment_of(resigning).id, by_approver=True, who="test", now=NOW)
        request_id = family.request_of_in(session, payment)
        requests.step_of_request(session, request_id, "remind", NOW + requests.REMIND_AFTER)
    assert family.state(payment) is State.APPROVED


@pytest.mark.parametrize("rule", ["guardian of a grown-up", "supervisor"])
def test_nobody_has_agreed_when_the_only_one_leaves(family: Family, rule: str) -> None:
    leaving = family.approver(Role.SUPERVISOR if rule == "supervisor" else Role.GUARDIAN)
    payment = family.pay(family.bill(10_000), factors=("spoken card", "voice", "challenge", "pin"))
    assert family.state(payment) is State.AWAITING
    with family.database.transaction() as session:
        appointments.end(session, family.appointment_of(leaving).id, by_approver=True, who="test", now=NOW)
        request_id = family.request_of_in(session, payment)
        requests.step_of_request(session, request_id, "remind", NOW + requests.REMIND_AFTER)
    assert family.state(payment) is State.AWAITING
    with family.database.transaction() as session:
        request = session.get_one(ApprovalRequest, request_id)
        requests.step_of_request(session, request_id, "expire", request.expires_at)
    assert family.state(payment) is State.EXPIRED


def test_a_payment_whose_end_was_lost_is_listed_for_a_person(family: Family) -> None:
    family.approver()
    payment = family.pay(family.bill(10_000))
    with family.database.transaction() as session:
        for job in session.scalars(select(Job).where(Job.kind == requests.TEND_JOB)):
            job.done_at, job.last_error_type = NOW, "KeyError"
    with family.database.transaction() as session:
        assert stuck(session, NOW + timedelta(hours=11)) == []
        assert [found.payment_id for found in stuck(session, NOW + timedelta(days=3))] == [payment.id]


def test_whoever_is_complete_is_not_reminded(family: Family) -> None:
    guardian, other = family.approver(), family.approver()
    family.approver(Role.SUPERVISOR)
    payment = family.pay(family.bill(10_000), factors=ADVANCED)
    assert family.answers(guardian, payment) is Result.MORE_NEEDED
    with family.database.transaction() as session:
        request_id = family.request_of_in(session, payment)
        requests.step_of_request(session, request_id, "remind", NOW + requests.REMIND_AFTER)
    assert "approval.remind" not in family.notices(other)


def test_a_payment_that_an_operator_cancelled_is_asked_about_no_more(family: Family) -> None:
    guardian = family.approver()
    payment = family.pay(family.bill(10_000))
    with family.database.transaction() as session:
        service.record_move(session, service.Move(payment.id, Event.CANCEL, "by hand"), who="operator", now=NOW)
        assert requests.waiting(session, guardian, NOW) == []
        request_id = family.request_of_in(session, payment)
        requests.step_of_request(session, request_id, "remind", NOW + requests.REMIND_AFTER)
    assert "approval.remind" not in family.notices(guardian)
    assert family.request_state(payment) == "cancelled"


@pytest.mark.parametrize("when", [{"kinds": ["Gambling"]}, {"merchants": ["corner  bookshop "]}])
def test_names_fit_however_they_are_written(family: Family, when: dict[str, object]) -> None:
    family.policy(policies.parse({"name": "p", "rules": [{"name": "no", "when": when, "refuse": True}]}))
    with pytest.raises(gate.NotAllowed):
        family.pay(family.bill(kind="gambling"))


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({"currency": "usd"}, "ISO 4217"),
        ({"hours": {"begins": "22:00Z", "ends": "06:00Z"}}, "time zone"),
        ({"hours": {"begins": "06:00", "ends": "06:00"}}, "end when they begin"),
    ],
)
def test_conditions_that_could_never_fit_are_refused(when: dict[str, object], says: str) -> None:
    with pytest.raises(policies.InvalidPolicy, match=says):
        policies.parse({"name": "p", "rules": [{"name": "no", "when": when, "refuse": True}]})


def test_halves_are_no_other_houses(family: Family) -> None:
    with family.database.transaction() as session:
        addresses.add(session, family.ward_id, "home", "12½ Main St", who="test", now=NOW)
        assert addresses.destination(session, family.ward_id, "121/2 Main St") == "unknown"


def test_a_payment_that_waits_over_midnight_counts_to_its_own_day(family: Family) -> None:
    guardian = family.approver()
    wait = Rule(name="w", when=When(currency="USD", above_minor=5_000), approvals={Role.GUARDIAN: "any"})
    day = Rule(name="day", when=When(currency="USD", today_above_minor=12_000), refuse=True)
    family.policy(Policy(name="p", rules=(wait, day)))
    late = NOW.replace(hour=23, minute=50)
    payment = family.pay(family.bill(10_000), now=late)
    family.pay(family.bill(4_000), now=late + timedelta(minutes=20))
    assert family.answers(guardian, payment, now=late + timedelta(minutes=30)) is Result.APPROVED


def test_approvers_hear_once_a_day_of_what_is_tried_again_and_again(family: Family) -> None:
    guardian, bill_id = family.approver(), family.bill(30_000)
    with family.database.transaction() as session:
        for hours in (0, 1, 25):
            now = NOW + timedelta(hours=hours)
            assert not gate.may_be_paid(session, bill_id, "", factors=("pin",), attested=True, now=now)
    assert family.notices(guardian).count("ward.attempted") == 2


# Two at the same moment: on PostgreSQL, where transactions run side by side.


@pytest.fixture
def side_by_side(family: Family) -> Family:
    if family.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with family.database.transaction() as session:
        add_contact(session, family.ward_id, ContactKind.SMS, "+14155554001", NOW - timedelta(days=30))
    return family


@contextmanager
def _while_another_waits(database: Database, other: Callable[[], object]) -> Iterator[tuple[Session, list[object]]]:
    """A transaction in which ``other`` is started, in a thread; the block ends when that waits for a lock, or is done.

    Its result, or what it raised, is in the list after the block.
    """
    results: list[object] = []

    def run() -> None:
        try:
            results.append(other())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    with database.transaction() as session:
        yield session, results
        thread.start()
        with database.engine.connect() as watching:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            for _ in range(3_000):
                if results or watching.execute(query).scalar():
                    break
                watching.rollback()
                thread.join(0.01)
    thread.join()


@pytest.mark.parametrize("rule", ["a day's limit refuses", "a day's limit asks", "always asks"])
def test_the_same_start_twice_at_once_is_one_payment_and_at_most_one_request(side_by_side: Family, rule: str) -> None:
    family = side_by_side
    family.approver()
    limit = When() if rule == "always asks" else When(currency="USD", today_above_minor=6_000)
    asks: dict[Role, str] = {} if rule.endswith("refuses") else {Role.GUARDIAN: "any"}
    one = Rule(name="r", when=limit, approvals=asks, refuse=not asks)  # type: ignore[arg-type]
    family.policy(Policy(name="p", rules=(one,)))
    bill_id = family.bill(4_000)
    with _while_another_waits(family.database, lambda: family.pay(bill_id)) as (session, results):
        first = gate.start(
            session, bill_id=bill_id, customer_id=family.ward_id, card_id=family.card_id,
            idempotency_key=f"call:{bill_id}", call_sid="CA1", factors=SPOKEN, attestation=None, attested=True, now=NOW,
        )  # fmt: skip
    (second,) = results
    assert isinstance(second, Payment), second
    assert second.id == first.id
    with family.database.transaction() as session:
        assert len(session.scalars(select(ApprovalRequest)).all()) == (rule == "always asks")


def test_two_who_supervise_each_other_pay_at_once(side_by_side: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    one = side_by_side
    two = Family(one.database, one.keyring, NOW)
    with one.database.transaction() as session:
        add_contact(session, two.ward_id, ContactKind.SMS, "+14155554002", NOW - timedelta(days=30))
        session.execute(text("DELETE FROM contacts WHERE address = '+14155550123'"))
        session.add(CallerId(e164="+14155554002", customer_id=two.ward_id))
        session.flush()
        for ward, approver in ((one, two), (two, one)):
            named = appointments.propose(
                session, Role.SUPERVISOR, ward_id=ward.ward_id, approver_id=approver.ward_id, label="L",
                who="test", now=NOW,
            )  # fmt: skip
            appointments.accept(session, named.id, approver.ward_id, channel="test", now=NOW)
    together, ask = threading.Barrier(2), requests.open_request
    monkeypatch.setattr(gate.requests, "open_request", lambda *given: (together.wait(30), ask(*given))[1])
    states: list[object] = []

    def pay(family: Family, bill_id: str) -> None:
        try:
            states.append(family.pay(bill_id, factors=ADVANCED).state)
        except Exception as error:
            states.append(error)

    bills = [(family, family.bill(10_000)) for family in (one, two)]
    threads = [threading.Thread(target=pay, args=given) for given in bills]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [State.AWAITING, State.AWAITING]


@pytest.mark.parametrize("other", ["an answer", "a freeze"])
def test_an_operator_or_a_worker_ends_a_payment_while_somebody_answers(side_by_side: Family, other: str) -> None:
    family = side_by_side
    guardian = family.approver()
    payment = family.pay(family.bill(10_000))

    def freeze() -> None:
        with family.database.transaction() as session:
            requests.stop(session, family.ward_id, who="test", now=NOW)

    act: Callable[[], object] = freeze if other == "a freeze" else lambda: family.answers(guardian, payment)
    with _while_another_waits(family.database, act) as (session, results):
        session.get_one(Payment, payment.id, with_for_update=True)
        service.record_move(session, service.Move(payment.id, Event.CANCEL, "by hand"), who="operator", now=NOW)
    assert results == [None if other == "a freeze" else Result.ALREADY_DECIDED]
    assert family.state(payment) is State.CANCELLED
    with family.database.transaction() as session:
        assert freezes.is_frozen(session, family.ward_id) == (other == "a freeze")


def test_two_payments_at_once_for_one_digest(side_by_side: Family) -> None:
    family = side_by_side
    family.approver(tell=Tell.DIGEST)
    values = {"merchant": "Bookshop", "amount_minor": 1, "currency": "USD"}

    def tell() -> None:
        with family.database.transaction() as session:
            telling.tell_approvers(session, family.ward_id, "ward.made", values, NOW)

    with _while_another_waits(family.database, tell) as (session, results):
        telling.tell_approvers(session, family.ward_id, "ward.made", values, NOW)
        session.flush()
    assert results == [None]
