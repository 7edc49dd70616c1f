"""Answering a request on the page: every result in both languages, and all that must not count as an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from people_support import MERCHANT, OTHER_PIN, PIN, WRONG_PIN, Browser, add_person, appoint, now, pay, request_of
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval import addresses, appointments, freezes, policies, requests
from ivr.approval.models import Answer, Appointment, ApprovalAnswer, ApprovalRequest, RequestState
from ivr.approval.policy import Role
from ivr.approval.requests import Result
from ivr.approval.wards import WardSettings, policy_of
from ivr.console.people.words import texts
from ivr.customers.models import Audit, CallerId, Contact, ContactKind, Customer, Failure, FailureBudget
from ivr.jobs import Job
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]

EN = texts("en")


@dataclass
class Waiting:
    """A payment of a ward, and her guardian."""

    ward: Customer
    guardian: Customer
    appointment_id: str
    request_id: str
    payment_id: str
    others: list[Customer] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/my/requests/{self.request_id}"


def arrange(
    database: Database,
    keyring: Keyring,
    *,
    locale: str = "en",
    settings: WardSettings | None = None,
    others: int = 0,
    ship_to: str | None = None,
    role: Role = Role.GUARDIAN,
) -> Waiting:
    with database.transaction() as session:
        ward = add_person(session, keyring)
        guardian = add_person(session, keyring, pin=OTHER_PIN, locale=locale)
        appointment_id = appoint(session, role, ward, guardian)
        more = [add_person(session, keyring) for _ in range(others)]
        for other in more:
            appoint(session, role, ward, other)
        if settings:
            policies.put(session, ward.id, policy_of(settings), who="test", now=now())
        payment_id = pay(session, ward, ship_to=ship_to)
        return Waiting(ward, guardian, appointment_id, request_of(session, payment_id), payment_id, more)


def state(database: Database, waiting: Waiting) -> tuple[str, str]:
    """Of the request and of its payment."""
    with database.transaction() as session:
        request = session.get_one(ApprovalRequest, waiting.request_id)
        return request.state.value, session.get_one(Payment, waiting.payment_id).state.value


def answers(database: Database) -> list[str]:
    with database.transaction() as session:
        return [a.answer.value for a in session.scalars(select(ApprovalAnswer))]


def _nothing(session: Session, waiting: Waiting) -> None:
    pass


def _refused_by_another(session: Session, waiting: Waiting) -> None:
    [other] = waiting.others
    requests.answer(session, waiting.request_id, other.id, Answer.REFUSE, verified_by="pin, page", now=now())


def _refused_already(session: Session, waiting: Waiting) -> None:
    guardian = waiting.guardian.id
    requests.answer(session, waiting.request_id, guardian, Answer.REFUSE, verified_by="pin, page", now=now())


def _too_late(session: Session, waiting: Waiting) -> None:
    session.get_one(ApprovalRequest, waiting.request_id).expires_at = now() - timedelta(seconds=1)


def _policy_changed(session: Session, waiting: Waiting) -> None:
    settings = WardSettings(blocked=frozenset({MERCHANT}))
    policies.put(session, waiting.ward.id, policy_of(settings), who="test", now=now())


def _resigned(session: Session, waiting: Waiting) -> None:
    appointments.end(session, waiting.appointment_id, by_approver=True, who="test", now=now())


RESULTS = {
    Result.APPROVED: (_nothing, "approve", ("approved", "approved")),
    Result.MORE_NEEDED: (_nothing, "approve", ("open", "awaiting")),
    Result.REFUSED: (_nothing, "refuse", ("refused", "refused")),
    Result.FROZEN: (_nothing, "fraud", ("refused", "refused")),
    Result.NOT_ALLOWED: (_policy_changed, "approve", ("refused", "refused")),
    Result.ALREADY_ANSWERED: (_refused_already, "approve", ("refused", "refused")),
    Result.ALREADY_DECIDED: (_refused_by_another, "approve", ("refused", "refused")),
    Result.EXPIRED: (_too_late, "approve", ("expired", "expired")),
    Result.NOT_YOURS: (_resigned, "approve", ("open", "awaiting")),
}


@pytest.mark.parametrize("locale", ["en", "zh"])
@pytest.mark.parametrize("result", Result)
def test_every_result_is_told_in_words(
    browser: Browser, database: Database, keyring: Keyring, result: Result, locale: str
) -> None:
    meanwhile, given, ended = RESULTS[result]
    both = result is Result.MORE_NEEDED
    others = int(both or result is Result.ALREADY_DECIDED)
    settings = WardSettings(guardians="all") if both else None
    waiting = arrange(database, keyring, locale=locale, settings=settings, others=others)
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert "USD 50.00" in browser.text
    with database.transaction() as session:
        meanwhile(session, waiting)
    browser.post(waiting.path, answer=given, pin=OTHER_PIN)
    assert texts(locale)[f"result.{result}"] in browser.text
    assert state(database, waiting) == ended
    browser.get("/my/requests")  # in the history, unless it is none of hers (any more)
    told = "not_allowed" if result is Result.NOT_ALLOWED else ended[0]
    assert (texts(locale)[f"state.{told}"] in browser.text) is (result is not Result.NOT_YOURS)


def test_an_approved_payment_goes_to_the_bank_once(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    for _ in range(2):
        browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["result.already_answered"] in browser.text
    with database.transaction() as session:
        assert len(session.scalars(select(Job).where(Job.kind == "debit")).all()) <= 1
        [given] = session.scalars(select(ApprovalAnswer))
    assert (given.approver_id, given.answer, given.verified_by) == (waiting.guardian.id, "approve", "pin, page")
    assert state(database, waiting) == ("approved", "approved")


def test_a_fraud_freezes_and_only_the_guardian_lets_her_pay_again(
    browser: Browser, new_browser: Callable[[], Browser], database: Database, keyring: Keyring
) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.post(waiting.path, answer="fraud", pin=OTHER_PIN)
    with database.transaction() as session:
        assert freezes.is_frozen(session, waiting.ward.id)
    payer = new_browser()
    payer.sign_in(waiting.ward)
    payer.get("/my/me")
    assert EN["me.frozen"] in payer.text
    payer.get("/my/me/pin")
    assert payer.post(f"/my/wards/{waiting.appointment_id}/freeze", pin=PIN).status_code == 404
    browser.get(f"/my/wards/{waiting.appointment_id}")
    assert EN["ward.frozen"].format(label="Grandma") in browser.text
    browser.post(f"/my/wards/{waiting.appointment_id}/freeze", pin=WRONG_PIN)
    assert EN["error.pin"] in browser.text
    browser.post(f"/my/wards/{waiting.appointment_id}/freeze", pin=OTHER_PIN)
    assert EN["said.cleared"] in browser.text
    with database.transaction() as session:
        assert not freezes.is_frozen(session, waiting.ward.id)


@pytest.mark.parametrize("pin", [WRONG_PIN, PIN, "", "48151", "abcdef", "４８１５１６", "4" * 1000])
def test_a_wrong_pin_decides_nothing_and_is_counted(
    browser: Browser, database: Database, keyring: Keyring, pin: str
) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    browser.post(waiting.path, answer="approve", pin=pin)
    assert EN["error.pin"] in browser.text
    assert state(database, waiting) == ("open", "awaiting")
    assert answers(database) == []
    with database.transaction() as session:
        [failure] = session.scalars(select(Failure))
        assert failure.customer_id == waiting.guardian.id


def test_a_spent_budget_accepts_not_even_the_right_pin(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    for _ in range(5):
        browser.post(waiting.path, answer="approve", pin=WRONG_PIN)
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["error.pin"] in browser.text
    assert state(database, waiting) == ("open", "awaiting")
    with database.transaction() as session:
        budget = session.get_one(FailureBudget, (waiting.guardian.id, True))
        assert budget.in_a_row == 5


def test_a_right_pin_ends_the_row_of_failures(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    browser.post(waiting.path, answer="approve", pin=WRONG_PIN)
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    with database.transaction() as session:
        budget = session.get_one(FailureBudget, (waiting.guardian.id, True))
        assert (budget.in_a_row, budget.total) == (0, 1)


def test_nobody_answers_her_own_request(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.ward)
    assert browser.get(waiting.path).status_code == 404
    browser.get("/my/me")
    assert browser.post(waiting.path, answer="approve", pin=PIN).status_code == 404
    assert EN["result.not_yours"] in browser.text
    assert answers(database) == []


def test_nobody_answers_who_came_to_share_the_payers_telephone(
    browser: Browser, database: Database, keyring: Keyring
) -> None:
    waiting = arrange(database, keyring)
    with database.transaction() as session:
        shared = session.scalars(select(CallerId.e164).where(CallerId.customer_id == waiting.ward.id)).one()
        session.add(Contact(customer_id=waiting.guardian.id, kind=ContactKind.SMS, address=shared, added_at=now()))
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert EN["error.same_contact"] in browser.text
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["result.not_yours"] in browser.text
    assert answers(database) == []


def test_nobody_answers_in_a_browser_that_the_payer_ever_used(
    browser: Browser, new_browser: Callable[[], Browser], database: Database, keyring: Keyring
) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.ward)
    browser.post("/my/out")
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert EN["error.shared_device"] in browser.text
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["error.shared_device"] in browser.text
    browser.get(f"/my/wards/{waiting.appointment_id}/end")
    browser.post(f"/my/wards/{waiting.appointment_id}/end", pin=OTHER_PIN)
    assert EN["error.shared_device"] in browser.text
    assert (answers(database), state(database, waiting)) == ([], ("open", "awaiting"))
    own = new_browser()
    own.sign_in(waiting.guardian)
    own.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["result.approved"] in own.text


def test_a_stranger_sees_nothing(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring)
    with database.transaction() as session:
        stranger = add_person(session, keyring)
    browser.sign_in(stranger)
    assert browser.get(waiting.path).status_code == 404
    assert browser.get(f"/my/wards/{waiting.appointment_id}").status_code == 404
    assert browser.get(f"/my/appointments/{waiting.appointment_id}").status_code == 404
    browser.get("/my/requests")
    assert MERCHANT not in browser.text


@pytest.mark.parametrize("given", ["", "approved", "yes"])
def test_what_is_no_answer_is_refused(browser: Browser, database: Database, keyring: Keyring, given: str) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert browser.post(waiting.path, answer=given, pin=OTHER_PIN).status_code == 400
    assert answers(database) == []


def test_a_post_without_our_token_or_from_elsewhere_changes_nothing(
    browser: Browser, new_browser: Callable[[], Browser], database: Database, keyring: Keyring
) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    other = new_browser()
    other.get("/my/")
    foreign = other.text.split('name="csrf_token" value="')[1].split('"')[0]
    for token in ("", "x", foreign):
        browser.get(waiting.path)
        assert browser.post(waiting.path, token, answer="approve", pin=OTHER_PIN).status_code == 400
        assert EN["error.form"] in browser.text
    for site in ("cross-site", "same-site", "none"):
        browser.headers = {}
        browser.get(waiting.path)
        browser.headers = {"Sec-Fetch-Site": site, "Origin": "https://evil.example"}
        assert browser.post(waiting.path, answer="approve", pin=OTHER_PIN).status_code == 403
        assert EN["error.elsewhere"] in browser.text
    assert (answers(database), state(database, waiting)) == ([], ("open", "awaiting"))
    browser.headers = {}
    browser.get(waiting.path)
    browser.headers = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}  # as browsers post our forms
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["result.approved"] in browser.text


def test_nothing_is_answered_by_get(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring)
    browser.sign_in(waiting.guardian)
    browser.get(f"{waiting.path}?answer=approve&pin={OTHER_PIN}")
    assert state(database, waiting) == ("open", "awaiting")
    assert browser.text.index("<button hidden disabled>") < browser.text.index('value="approve"')  # Enter does nothing


@pytest.mark.parametrize(("ticked", "given", "in_book"), [(1, "approve", 1), (0, "approve", 0), (1, "refuse", 0)])
def test_a_guardian_adds_a_new_address_as_she_approves(
    browser: Browser, database: Database, keyring: Keyring, ticked: int, given: str, in_book: int
) -> None:
    waiting = arrange(database, keyring, ship_to="1 Main Street")
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert EN["request.address.unknown"] in browser.text
    box = {"add_address": "on", "address_label": "Home"} if ticked else {}
    browser.post(waiting.path, answer=given, pin=OTHER_PIN, **box)
    with database.transaction() as session:
        book = [(a.label, a.text) for a in addresses.book(session, waiting.ward.id)]
    assert book == [("Home", "1 Main Street")] * in_book


def test_an_address_that_finds_no_room_leaves_the_approval(
    browser: Browser, database: Database, keyring: Keyring
) -> None:
    waiting = arrange(database, keyring, ship_to="1 Main Street")
    with database.transaction() as session:
        for n in range(addresses.MOST):
            addresses.add(session, waiting.ward.id, f"A{n}", f"{n} Side Street", who="test", now=now())
    browser.sign_in(waiting.guardian)
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN, add_address="on", address_label="Home")
    assert EN["result.approved"] in browser.text
    assert EN["error.address_not_added"] in browser.text
    assert state(database, waiting)[0] == "approved"


def test_a_supervisor_adds_no_address(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring, role=Role.SUPERVISOR, ship_to="1 Main Street")
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert "add_address" not in browser.text
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN, add_address="on", address_label="Home")
    assert EN["result.approved"] in browser.text
    with database.transaction() as session:
        assert addresses.book(session, waiting.ward.id) == []


def test_a_policy_that_asks_for_less_meanwhile_is_the_one_that_counts(
    browser: Browser, database: Database, keyring: Keyring
) -> None:
    waiting = arrange(database, keyring, settings=WardSettings(guardians="all"), others=1)
    with database.transaction() as session:
        policies.put(session, waiting.ward.id, policy_of(WardSettings(guardians="any")), who="test", now=now())
    browser.sign_in(waiting.guardian)
    browser.post(waiting.path, answer="approve", pin=OTHER_PIN)
    assert EN["result.approved"] in browser.text


def test_the_history_says_who_when_and_how(browser: Browser, database: Database, keyring: Keyring) -> None:
    waiting = arrange(database, keyring, settings=WardSettings(guardians="all"), others=1)
    [other] = waiting.others
    with database.transaction() as session:
        requests.answer(session, waiting.request_id, other.id, Answer.APPROVE, verified_by="voice, call", now=now())
    browser.sign_in(waiting.guardian)
    browser.get(waiting.path)
    assert EN["answer.guardian"].format(answer=EN["answer.approve"]) in browser.text
    assert f"{EN['by.voice']}, {EN['by.call']}" in browser.text
    browser.post(waiting.path, answer="refuse", pin=OTHER_PIN)
    browser.get("/my/requests")
    assert EN["answer.you"].format(answer=EN["answer.refuse"]) in browser.text
    with database.transaction() as session:
        assert session.get_one(Appointment, waiting.appointment_id).approver_id == waiting.guardian.id
        told = session.scalars(select(Audit.what).where(Audit.subject == waiting.payment_id)).all()
        assert session.get_one(ApprovalRequest, waiting.request_id).state is RequestState.REFUSED
    assert {"approval.approve", "approval.refuse"} <= set(told)
