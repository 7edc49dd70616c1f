"""One-time links: what opening, guessing, replaying and forwarding them does, and does not do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from people_support import (
    BASE_URL,
    MERCHANT,
    OTHER_PIN,
    PIN,
    WRONG_PIN,
    Browser,
    add_person,
    appoint,
    link_path,
    now,
    pay,
    request_of,
)
from sqlalchemy import select

from ivr.approval import appointments
from ivr.approval.links import LINK_LIFE, MOST_TRIES
from ivr.approval.models import Appointment, ApprovalAnswer, ApprovalRequest, Link, PageSession, Standing
from ivr.approval.policy import Role
from ivr.console.people import limits
from ivr.console.people.words import texts
from ivr.customers.models import Failure
from ivr.keys import Keyring
from ivr.log import scrub
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]

EN = texts("en")


class Waiting:
    """A payment that waits for its payer's guardian, who was sent a link."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self.database = database
        with database.transaction() as session:
            self.ward = add_person(session, keyring)
            self.guardian = add_person(session, keyring, pin=OTHER_PIN)
            self.appointment_id = appoint(session, Role.GUARDIAN, self.ward, self.guardian)
            self.request_id = request_of(session, pay(session, self.ward))
        self.link = link_path(database, self.guardian, keyring)
        self.page = f"/my/requests/{self.request_id}"

    def row(self) -> Link:
        with self.database.transaction() as session:
            return session.scalars(select(Link).where(Link.request_id == self.request_id)).one()


@pytest.fixture
def waiting(database: Database, keyring: Keyring) -> Waiting:
    return Waiting(database, keyring)


def plain(page: str) -> str:
    """A page without what differs from form to form."""
    return re.sub(r'name="csrf_token" value="[^"]+"', "", page)


def test_opening_a_link_changes_nothing_and_shows_nothing(
    pages: Flask, new_browser: Callable[[], Browser], waiting: Waiting
) -> None:
    before = waiting.row()
    opened = new_browser()
    opened.get(waiting.link)
    for _ in range(3):  # as previews do
        assert pages.test_client().head(waiting.link, base_url=BASE_URL).status_code == 200
    wrong = new_browser()
    wrong.get("/my/l/" + "0" * 48)
    assert plain(opened.text) == plain(wrong.text)
    for secret in (MERCHANT, "Grandma", "50.00", waiting.ward.number, waiting.guardian.number):
        assert secret not in opened.text
    after = waiting.row()
    assert (after.tries, after.used_at) == (before.tries, before.used_at) == (0, None)


def test_a_link_and_the_pin_show_the_request_and_nothing_else(browser: Browser, waiting: Waiting) -> None:
    browser.post(waiting.link, pin=OTHER_PIN)
    assert browser.path == waiting.page
    assert MERCHANT in browser.text
    for path in ("/my/requests", "/my/wards", f"/my/wards/{waiting.appointment_id}", "/my/me", "/my/me/pin"):
        assert browser.get(path).status_code == 403
        assert EN["error.not_by_link"] in browser.text
    browser.get(waiting.page)
    browser.post(waiting.page, answer="approve", pin=OTHER_PIN)
    assert EN["result.approved"] in browser.text


def test_a_link_is_good_for_its_own_request_only(
    browser: Browser, waiting: Waiting, database: Database, keyring: Keyring
) -> None:
    with database.transaction() as session:
        other = request_of(session, pay(session, waiting.ward, merchant="Other"))
    browser.post(waiting.link, pin=OTHER_PIN)
    assert browser.get(f"/my/requests/{other}").status_code == 403
    browser.get(waiting.page)
    assert browser.post(f"/my/requests/{other}", answer="approve", pin=OTHER_PIN).status_code == 403
    with database.transaction() as session:
        assert session.scalars(select(ApprovalAnswer)).all() == []


def test_a_link_works_once(new_browser: Callable[[], Browser], waiting: Waiting) -> None:
    first, second = new_browser(), new_browser()
    second.get(waiting.link)
    first.post(waiting.link, pin=OTHER_PIN)
    assert first.path == waiting.page
    assert second.post(waiting.link, pin=OTHER_PIN).status_code == 403
    assert EN["error.link"] in second.text


def test_whatever_is_wrong_is_told_in_the_same_words(
    new_browser: Callable[[], Browser], waiting: Waiting, database: Database
) -> None:
    def refused(path: str, pin: str) -> tuple[int, str]:
        browser = new_browser()
        return browser.post(path, pin=pin).status_code, plain(browser.text)

    id_, mac = waiting.link[len("/my/l/") :][:16], waiting.link[len("/my/l/") :][16:]
    seen = [
        refused(waiting.link, WRONG_PIN),
        refused(waiting.link, PIN),  # forwarded to the ward, who gives her own
        refused(waiting.link, ""),
        refused("/my/l/" + "0" * 48, OTHER_PIN),
        refused(f"/my/l/{id_}", OTHER_PIN),
        refused(f"/my/l/{id_}{mac[::-1]}", OTHER_PIN),
        refused(f"/my/l/{'f' * 16}{mac}", OTHER_PIN),
    ]
    with database.transaction() as session:
        session.scalars(select(Link).where(Link.request_id == waiting.request_id)).one().expires_at = now()
    seen.append(refused(waiting.link, OTHER_PIN))
    assert len(set(seen)) == 1
    assert seen[0][0] == 403
    assert waiting.row().used_at is None


def test_guessing_the_pin_ends_the_link_and_counts_in_the_common_budget(
    new_browser: Callable[[], Browser], waiting: Waiting, database: Database
) -> None:
    for _ in range(MOST_TRIES):
        new_browser().post(waiting.link, pin=WRONG_PIN)
    browser = new_browser()
    browser.post(waiting.link, pin=OTHER_PIN)
    assert EN["error.link"] in browser.text
    with database.transaction() as session:
        charged = session.scalars(select(Failure.customer_id)).all()
    assert charged == [waiting.guardian.id] * MOST_TRIES
    assert waiting.row().tries == MOST_TRIES


def test_a_link_expires(browser: Browser, waiting: Waiting, database: Database) -> None:
    with database.transaction() as session:
        link = session.scalars(select(Link).where(Link.request_id == waiting.request_id)).one()
        link.expires_at -= LINK_LIFE + timedelta(seconds=1)
    browser.post(waiting.link, pin=OTHER_PIN)
    assert EN["error.link"] in browser.text


def test_tries_are_limited_for_each_address(browser: Browser, waiting: Waiting) -> None:
    tries = [
        browser.post("/my/l/" + f"{n:048x}", pin=OTHER_PIN).status_code
        for n in range(limits.LINKS_AN_ADDRESS_AN_HOUR + 1)
    ]
    assert tries[-2:] == [403, 429]
    assert browser.post(waiting.link, pin=OTHER_PIN).status_code == 429
    browser.address = "198.51.100.1"
    browser.post(waiting.link, pin=OTHER_PIN)
    assert browser.path == waiting.page


def test_a_link_opened_in_the_payers_browser_answers_nothing(
    browser: Browser, waiting: Waiting, database: Database
) -> None:
    browser.sign_in(waiting.ward)
    browser.post(waiting.link, pin=OTHER_PIN)
    assert EN["error.shared_device"] in browser.text
    assert 'value="approve"' not in browser.text
    browser.post(waiting.page, answer="approve", pin=OTHER_PIN)
    assert EN["error.shared_device"] in browser.text
    with database.transaction() as session:
        assert session.scalars(select(ApprovalAnswer)).all() == []
        assert session.get_one(ApprovalRequest, waiting.request_id).state == "open"


def test_the_session_of_a_link_is_known_by_it(browser: Browser, waiting: Waiting, database: Database) -> None:
    browser.post(waiting.link, pin=OTHER_PIN)
    with database.transaction() as session:
        [row] = session.scalars(select(PageSession))
    assert (row.customer_id, row.link_id) == (waiting.guardian.id, waiting.row().id)


@pytest.mark.parametrize(
    ("decision", "said", "standing"),
    [("accept", "said.accepted", Standing.ACTIVE), ("decline", "said.declined", Standing.ENDED)],
)
def test_an_appointment_is_decided_by_its_link(
    browser: Browser, database: Database, keyring: Keyring, decision: str, said: str, standing: Standing
) -> None:
    with database.transaction() as session:
        ward, approver = add_person(session, keyring), add_person(session, keyring, pin=OTHER_PIN)
        proposed = appointments.propose(
            session, Role.SUPERVISOR, ward_id=ward.id, approver_id=approver.id, label="Mother", who="test", now=now()
        ).id
    browser.post(link_path(database, approver, keyring, "appointment.ask"), pin=OTHER_PIN)
    assert browser.path == f"/my/appointments/{proposed}"
    assert EN["appointment.supervisor"].format(label="Mother") in browser.text
    browser.post(browser.path, decision=decision, pin=WRONG_PIN)
    assert EN["error.pin"] in browser.text
    browser.post(browser.path, decision=decision, pin=OTHER_PIN)
    assert EN[said] in browser.text
    assert browser.get("/my/wards").status_code == 403
    with database.transaction() as session:
        assert session.get_one(Appointment, proposed).standing is standing


def test_nobody_accepts_in_the_payers_browser_or_for_another(
    new_browser: Callable[[], Browser], database: Database, keyring: Keyring
) -> None:
    with database.transaction() as session:
        ward, approver = add_person(session, keyring), add_person(session, keyring, pin=OTHER_PIN)
        proposed = appointments.propose(
            session, Role.GUARDIAN, ward_id=ward.id, approver_id=approver.id, label="W", who="test", now=now()
        ).id
    payer = new_browser()
    payer.sign_in(ward)
    assert payer.get(f"/my/appointments/{proposed}").status_code == 404
    payer.get("/my/me")
    assert payer.post(f"/my/appointments/{proposed}", decision="accept", pin=PIN).status_code == 404
    payer.sign_in(approver)
    payer.get(f"/my/appointments/{proposed}")
    payer.post(f"/my/appointments/{proposed}", decision="accept", pin=OTHER_PIN)
    assert EN["error.shared_device"] in payer.text
    with database.transaction() as session:
        assert session.get_one(Appointment, proposed).standing is Standing.PROPOSED


def test_no_log_line_holds_a_links_token(waiting: Waiting) -> None:
    token = waiting.link.removeprefix("/my/l/")
    path = waiting.link
    for line in (f"GET {path} HTTP/1.1", f"Exception on {path} [POST]", f"{BASE_URL}{path}?a=b"):
        assert token not in scrub(line)
        assert "/my/l/[masked]" in scrub(line)
