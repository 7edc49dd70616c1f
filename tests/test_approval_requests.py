"""Payments that wait for somebody: every way they can be decided, once, on both databases."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from approval_support import ADDRESS, PIN, SPOKEN, WRONG, Family
from payments_fixtures import bank, bank_settings, bank_url  # noqa: F401
from payments_support import history, make_due
from sqlalchemy import select

from ivr.approval import addresses, appointments, freezes, gate, policies, requests
from ivr.approval.models import Answer, ApprovalAnswer, ApprovalRequest, Link
from ivr.approval.policy import Policy, Role, Rule
from ivr.approval.requests import Result
from ivr.customers import budget
from ivr.customers.models import Customer
from ivr.jobs import Job
from ivr.keys import Keyring
from ivr.payments import service, worker
from ivr.payments.models import Payment
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.states import State
from ivr.settings import Settings
from ivr.store.db import Database

NOW = datetime.now(UTC).replace(microsecond=0)
SMALL, NORMAL, LARGE = 1_000, 10_000, 30_000
ADVANCED = (*SPOKEN, "pin")


@pytest.fixture
def family(database: Database, keyring: Keyring) -> Family:
    return Family(database, keyring, NOW)


def _lives_at(family: Family, address: str) -> None:
    with family.database.transaction() as session:
        addresses.add(session, family.ward_id, "home", address, who="test", now=NOW)


@pytest.mark.parametrize(
    ("amount_minor", "address", "given", "pin", "in_time"),
    list(product((SMALL, NORMAL, LARGE), (None, ADDRESS, "9 New Road"), Answer, (PIN, WRONG), (True, False))),
)
def test_every_tier_address_answer_pin_and_time(
    family: Family, amount_minor: int, address: str | None, given: Answer, pin: str, in_time: bool
) -> None:
    guardian = family.approver()
    _lives_at(family, ADDRESS)
    payment = family.pay(family.bill(amount_minor, ship_to=address), factors=ADVANCED)
    if amount_minor == SMALL and address != "9 New Road":
        assert family.state(payment) is State.CREATED  # nobody is asked: it goes to the bank
        return
    assert family.state(payment) is State.AWAITING
    moment = NOW + (timedelta(minutes=1) if in_time else requests.LIFE)
    result = family.answers(guardian, payment, given, pin=pin, now=moment)
    if pin == WRONG:
        assert (result, family.state(payment)) == (None, State.AWAITING)
    elif not in_time:  # a fraud stops what comes next all the same
        assert (result, family.state(payment), family.reason(payment)) == (
            Result.FROZEN if given is Answer.FRAUD else Result.EXPIRED, State.EXPIRED, requests.NOT_IN_TIME,
        )  # fmt: skip
    elif given is Answer.APPROVE:
        assert (result, family.state(payment)) == (Result.APPROVED, State.APPROVED)
    else:
        expected = Result.FROZEN if given is Answer.FRAUD else Result.REFUSED
        assert (result, family.state(payment), family.reason(payment)) == (
            expected, State.REFUSED, requests.NOT_APPROVED,
        )  # fmt: skip
    with family.database.transaction() as session:
        assert freezes.is_frozen(session, family.ward_id) == (result is Result.FROZEN)


def test_an_approved_payment_is_debited_by_the_worker(
    family: Family,
    bank: SandboxBank,  # noqa: F811
    bank_settings: Settings,  # noqa: F811
) -> None:
    family.token(bank.tokenise("4111111111111111", NOW.year + 2, 12).token)
    guardian = family.approver()
    payment = family.pay(family.bill(NORMAL))
    worker.run(bank_settings, threading.Event(), once=True, channels={})
    assert family.state(payment) is State.AWAITING  # nothing before somebody agreed
    assert family.answers(guardian, payment) is Result.APPROVED
    worker.run(bank_settings, threading.Event(), once=True, channels={})
    assert history(family.database, payment.id) == [
        "created", "verifying", "awaiting", "approved", "debiting", "authorised", "paid",
    ]  # fmt: skip
    assert "ward.made" in family.notices(guardian)
    assert "payment.made" in family.notices(family.ward_id)


def test_large_payments_need_advanced_verification(family: Family) -> None:
    family.approver()
    with pytest.raises(gate.NotAllowed, match="pin"):
        family.pay(family.bill(LARGE))
    with pytest.raises(gate.NotAllowed, match="challenge, voice"):
        family.pay(family.bill(LARGE), factors=("keyed card", "pin", "key"))
    assert family.state(family.pay(family.bill(LARGE), factors=ADVANCED)) is State.AWAITING


def test_a_supervised_payer_needs_her_pin_and_her_supervisor(family: Family) -> None:
    supervisor = family.approver(Role.SUPERVISOR)
    with pytest.raises(gate.NotAllowed, match="pin"):
        family.pay(family.bill(1))
    payment = family.pay(family.bill(1), factors=ADVANCED)
    assert family.state(payment) is State.AWAITING
    assert family.answers(supervisor, payment) is Result.APPROVED


def test_a_supervisor_of_larger_payments_only(family: Family) -> None:
    family.approver(Role.SUPERVISOR, currency="USD", above_minor=5_000)
    assert family.state(family.pay(family.bill(5_000))) is State.CREATED
    assert family.state(family.pay(family.bill(5_001), factors=ADVANCED)) is State.AWAITING
    assert family.state(family.pay(family.bill(1, currency="EUR"), factors=ADVANCED)) is State.AWAITING


def test_under_pressure_the_supervisor_calls_it_a_fraud_and_everything_stops(family: Family) -> None:
    supervisor = family.approver(Role.SUPERVISOR)
    first, second = (family.pay(family.bill(NORMAL), factors=ADVANCED) for _ in range(2))
    assert family.answers(supervisor, first, Answer.FRAUD) is Result.FROZEN
    assert (family.state(first), family.state(second)) == (State.REFUSED, State.CANCELLED)
    assert family.request_state(second) == "cancelled"
    assert family.answers(supervisor, second) is Result.ALREADY_DECIDED
    with pytest.raises(gate.NotAllowed, match="frozen"):
        family.pay(family.bill(1), factors=ADVANCED)
    assert "account.frozen" in family.notices(family.ward_id)
    with family.database.transaction() as session:
        assert freezes.clear(session, family.ward_id, who="operator", now=NOW)
        assert not freezes.clear(session, family.ward_id, who="operator", now=NOW)
    assert family.state(family.pay(family.bill(1), factors=ADVANCED)) is State.AWAITING


def test_a_freeze_also_stops_what_was_approved_and_not_sent_yet(family: Family) -> None:
    guardian = family.approver()
    approved, waiting = (family.pay(family.bill(NORMAL)) for _ in range(2))
    assert family.answers(guardian, approved) is Result.APPROVED
    assert family.answers(guardian, waiting, Answer.FRAUD) is Result.FROZEN
    assert family.state(approved) is State.CANCELLED


def _two_guardians(family: Family, how_many: str | int) -> tuple[str, str]:
    both = family.approver(), family.approver()
    family.policy(Policy(name="p", rules=(Rule(name="r", approvals={Role.GUARDIAN: how_many}),)))  # type: ignore[dict-item]
    return both


@pytest.mark.parametrize("how_many", ["all", 2])
def test_two_must_agree_and_one_refusal_is_enough(family: Family, how_many: str | int) -> None:
    one, other = _two_guardians(family, how_many)
    payment = family.pay(family.bill())
    assert family.answers(one, payment) is Result.MORE_NEEDED
    assert family.answers(one, payment) is Result.ALREADY_ANSWERED
    assert family.state(payment) is State.AWAITING
    assert family.answers(other, payment) is Result.APPROVED
    refused = family.pay(family.bill())
    assert family.answers(one, refused) is Result.MORE_NEEDED
    assert family.answers(other, refused, Answer.REFUSE) is Result.REFUSED
    assert family.state(refused) is State.REFUSED


def _at_once(*what: Callable[[], object]) -> list[object]:
    """Everything in a thread of its own, let go at the same moment."""
    barrier, results = threading.Barrier(len(what)), [None] * len(what)

    def run(i: int) -> None:
        barrier.wait()
        results[i] = what[i]()  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(what))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("other_answer", Answer)
def test_two_guardians_answer_at_once(family: Family, other_answer: Answer) -> None:
    one, other = _two_guardians(family, "any")
    for _ in range(5):
        payment = family.pay(family.bill())
        results = _at_once(
            lambda p=payment: family.answers(one, p),  # type: ignore[misc]
            lambda p=payment: family.answers(other, p, other_answer),  # type: ignore[misc]
        )
        # Who came second learns how it ended; only a fraud still stops what another has agreed to.
        ends = {
            (Result.APPROVED, Result.ALREADY_DECIDED): State.APPROVED,
            (Result.ALREADY_DECIDED, Result.APPROVED): State.APPROVED,
            (Result.ALREADY_DECIDED, Result.REFUSED): State.REFUSED,
            (Result.ALREADY_DECIDED, Result.FROZEN): State.REFUSED,
            (Result.APPROVED, Result.FROZEN): State.CANCELLED,
        }
        assert family.state(payment) is ends[tuple(results)]  # type: ignore[index]
        with family.database.transaction() as session:
            answered = session.scalars(
                select(ApprovalAnswer).where(ApprovalAnswer.request_id == family.request_of_in(session, payment))
            )
            assert len(answered.all()) == 1
            freezes.clear(session, family.ward_id, who="test", now=NOW)


def test_an_answer_and_the_end_of_its_time_at_once(family: Family) -> None:
    guardian = family.approver()
    for _ in range(5):
        payment = family.pay(family.bill(NORMAL))
        request_id = family.request_of(payment)

        def expire(request_id: str = request_id) -> None:
            with family.database.transaction() as session:
                requests.step_of_request(session, request_id, "expire", NOW + requests.LIFE)

        result, _ = _at_once(lambda p=payment: family.answers(guardian, p), expire)  # type: ignore[misc]
        expected = {Result.APPROVED: State.APPROVED, Result.EXPIRED: State.EXPIRED}
        assert family.state(payment) is expected[result]  # type: ignore[index]


def test_the_policy_changes_while_a_payment_waits(family: Family) -> None:
    guardian, second = family.approver(), family.approver()
    stricter = Policy(name="p", rules=(Rule(name="two", approvals={Role.GUARDIAN: 2}),))
    more, fewer, refused, more_factors = (family.pay(family.bill(NORMAL)) for _ in range(4))
    family.policy(stricter)
    assert family.answers(guardian, more) is Result.MORE_NEEDED
    assert family.answers(second, more) is Result.APPROVED
    family.policy(Policy(name="p"))
    assert family.answers(guardian, fewer) is Result.APPROVED
    family.policy(Policy(name="p", rules=(Rule(name="never", refuse=True),)))
    assert family.answers(guardian, refused) is Result.NOT_ALLOWED
    assert family.state(refused) is State.REFUSED
    family.policy(Policy(name="p", rules=(Rule(name="pin", factors=frozenset({"pin"})),)))  # type: ignore[arg-type]
    assert family.answers(guardian, more_factors) is Result.NOT_ALLOWED


def test_who_is_no_longer_appointed_does_not_count(family: Family) -> None:
    one, other = _two_guardians(family, "all")
    payment = family.pay(family.bill())
    assert family.answers(one, payment) is Result.MORE_NEEDED
    with family.database.transaction() as session:
        appointments.end(session, family.appointment_of(one).id, by_approver=True, who="test", now=NOW)
    assert family.answers(other, payment) is Result.APPROVED  # "all" are one now
    again = family.pay(family.bill())
    assert family.answers(one, again) is Result.NOT_YOURS


def test_nobody_answers_for_strangers_nor_for_herself(family: Family) -> None:
    family.approver()
    stranger = Family(family.database, family.keyring, NOW).approver(phone="+14155559999")
    payment = family.pay(family.bill(NORMAL))
    assert family.answers(stranger, payment) is Result.NOT_YOURS
    assert family.answers(family.ward_id, payment) is Result.NOT_YOURS
    assert family.state(payment) is State.AWAITING


def test_an_approver_who_came_to_share_the_payers_telephone_may_not_answer(family: Family) -> None:
    from ivr.customers.register import add_caller_id

    guardian = family.approver(phone="+14155552671")
    payment = family.pay(family.bill(NORMAL))
    with family.database.transaction() as session:
        add_caller_id(session, family.ward_id, "+14155552671", NOW)
    assert family.answers(guardian, payment) is Result.NOT_YOURS


def test_wrong_pins_are_counted_and_lock_the_approver(family: Family) -> None:
    guardian = family.approver()
    payment = family.pay(family.bill(NORMAL))
    for _ in range(budget.FREE_IN_A_ROW):
        assert family.answers(guardian, payment, pin=WRONG) is None
    assert family.answers(guardian, payment, pin=PIN) is None
    assert "locked" in family.notices(guardian)
    later = NOW + timedelta(minutes=1) + budget.FIRST_WAIT
    assert family.answers(guardian, payment, pin=PIN, now=later) is Result.APPROVED


def test_asked_reminded_then_the_second_person_then_over(family: Family) -> None:
    first, backup = family.approver(), family.approver(backup=True)
    payment = family.pay(family.bill(NORMAL))
    request_id = family.request_of(payment)

    def step(name: str, after: timedelta) -> None:
        with family.database.transaction() as session:
            requests.step_of_request(session, request_id, name, NOW + after)

    assert "approval.ask" in family.notices(first)
    assert not any(t.startswith("approval") for t in family.notices(backup))
    step("remind", requests.REMIND_AFTER)
    assert "approval.remind" in family.notices(first)
    assert not any(t.startswith("approval") for t in family.notices(backup))
    step("escalate", requests.ESCALATE_AFTER)
    assert "approval.remind" in family.notices(backup)
    assert family.answers(backup, payment, now=NOW + requests.ESCALATE_AFTER) is Result.APPROVED
    step("expire", requests.LIFE)
    assert family.state(payment) is State.APPROVED


def test_the_worker_ends_what_nobody_answered_and_says_so(family: Family, bank_settings: Settings) -> None:  # noqa: F811
    guardian = family.approver()
    payment = family.pay(family.bill(NORMAL), now=NOW - requests.LIFE)
    with family.database.transaction() as session:
        session.scalars(select(ApprovalRequest)).one().expires_at = NOW
    make_due(family.database)
    worker.run(bank_settings, threading.Event(), once=True, channels={})
    assert (family.state(payment), family.request_state(payment)) == (State.EXPIRED, "expired")
    assert "ward.refused" in family.notices(guardian)
    assert "payment.refused" in family.notices(family.ward_id)
    with family.database.transaction() as session:
        kinds = Counter(session.scalars(select(Job.kind).where(Job.done_at.is_(None))))
    assert requests.TEND_JOB not in kinds


def test_nobody_is_asked_at_a_number_that_is_new(family: Family) -> None:
    from ivr.customers.models import ContactKind
    from ivr.customers.register import add_contact

    guardian = family.approver()
    with family.database.transaction() as session:
        add_contact(session, guardian, ContactKind.SMS, "+14155550777", NOW - timedelta(days=6))
    family.pay(family.bill(NORMAL))
    with family.database.transaction() as session:
        links = session.scalars(select(Link).where(Link.request_id.is_not(None))).all()
    assert len(links) == 1


def test_the_same_start_gives_the_same_payment_and_asks_once(family: Family) -> None:
    guardian = family.approver()
    bill_id = family.bill(NORMAL)
    assert family.pay(bill_id).id == family.pay(bill_id).id
    assert family.notices(guardian).count("approval.ask") == 1


def test_payments_of_a_day_are_counted_together_also_when_started_at_once(family: Family) -> None:
    rule = {"name": "r", "when": {"currency": "USD", "today_above_minor": 6_000}, "refuse": True}
    family.policy(policies.parse({"name": "p", "rules": [rule]}))
    bills = [family.bill(4_000) for _ in range(4)]

    def pay(bill_id: str) -> object:
        try:
            return family.pay(bill_id)
        except gate.NotAllowed as refused:
            return refused

    results = _at_once(*(lambda b=bill_id: pay(b) for bill_id in bills))  # type: ignore[misc]
    assert Counter(type(result) for result in results) == {Payment: 1, gate.NotAllowed: 3}


def test_a_minor_without_a_guardian_pays_nothing(family: Family) -> None:
    with family.database.transaction() as session:
        session.get_one(Customer, family.ward_id).minor = True
    with pytest.raises(gate.NotAllowed, match="guardian"):
        family.pay(family.bill(1))
    family.approver()
    assert family.state(family.pay(family.bill(1))) is State.CREATED


def test_what_waits_needs_no_person_and_a_bill_that_waits_cannot_be_paid_twice(family: Family) -> None:
    from ivr.payments.verify import stuck

    family.approver()
    bill_id = family.bill(NORMAL)
    payment = family.pay(bill_id)
    with family.database.transaction() as session:
        assert stuck(session, NOW + timedelta(hours=3)) == []
    with pytest.raises(service.BillNotOpen):
        family.pay(bill_id, key="another call")
    assert family.state(payment) is State.AWAITING
