"""Signing in to the pages by code, and that nothing is open to whoever has not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta
from itertools import islice

import pytest
from flask import Flask
from people_support import BASE_URL, Browser, add_person, now, run_code_jobs, sent
from sqlalchemy import func, select

from ivr.approval.links import CODE_LIFE, MOST_TRIES
from ivr.approval.models import PageSession, SignInCode
from ivr.console.forms import HEADERS
from ivr.console.people import limits
from ivr.console.people.guard import OPEN
from ivr.console.people.words import texts
from ivr.customers.models import Customer, Notice
from ivr.jobs import Job
from ivr.keys import Keyring
from ivr.speech.pan import luhn_check_digit
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]

EN = texts("en")
UNKNOWN = "123456" + luhn_check_digit("123456")


@pytest.fixture
def customer(database: Database, keyring: Keyring) -> Customer:
    with database.transaction() as session:
        return add_person(session, keyring)


def notices(database: Database) -> int:
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Notice)) or 0


def test_a_code_signs_in_and_signing_out_ends_it(browser: Browser, customer: Customer, database: Database) -> None:
    browser.sign_in(customer)
    assert EN["requests.none"] in browser.text
    browser.post("/my/out")
    assert EN["said.signed_out"] in browser.text
    browser.get("/my/requests")
    assert (browser.path, EN["error.signed_out"] in browser.text) == ("/my/", True)


def test_the_cookies_are_out_of_reach_and_the_database_knows_only_their_hashes(
    browser: Browser, customer: Customer, database: Database
) -> None:
    browser.sign_in(customer)
    held = {name: browser.client.get_cookie(name, "pay.example.com", "/my") for name in ("my-session", "my-device")}
    for cookie in held.values():
        assert cookie is not None
        assert (cookie.http_only, cookie.same_site, cookie.secure) == (True, "Strict", True)
    with database.transaction() as session:
        [row] = session.scalars(select(PageSession))
    hashed = [hashlib.sha256(cookie.value.encode()).hexdigest() for cookie in held.values() if cookie]
    assert [row.id, row.device] == hashed
    assert row.expires_at - row.created_at == timedelta(minutes=30)


def test_a_session_ends_after_its_time(browser: Browser, customer: Customer, database: Database) -> None:
    browser.sign_in(customer)
    with database.transaction() as session:
        session.scalars(select(PageSession)).one().expires_at = now()
    browser.get("/my/requests")
    assert browser.path == "/my/"


def test_a_browser_stays_the_same_device_for_the_next_sign_in(
    browser: Browser, customer: Customer, database: Database
) -> None:
    browser.sign_in(customer)
    browser.sign_in(customer)
    with database.transaction() as session:
        rows = session.scalars(select(PageSession)).all()
    assert len(rows) == 2
    assert len({row.device for row in rows}) == 1
    assert sum(row.expires_at > now() for row in rows) == 1  # the earlier session ended


def test_whether_a_number_is_known_is_not_told(
    new_browser: Callable[[], Browser], customer: Customer, database: Database
) -> None:
    seen = []
    for number in (customer.number, UNKNOWN):
        browser = new_browser()
        given = browser.post("/my/", number=number)
        asked = (given.status_code, browser.path, re.sub(r'value="[^"]+"', "", browser.text))
        browser.post("/my/code", code="000000")
        with database.transaction() as session:
            jobs = session.scalars(select(Job.payload).where(Job.kind == "page.code", Job.done_at.is_(None))).all()
        assert jobs == [{"number": number}]  # the same work in either case
        run_code_jobs(database)
        seen.append((asked, re.sub(r'value="[^"]+"', "", browser.text)))
    assert seen[0] == seen[1]
    assert notices(database) == 1


def test_a_contact_that_is_new_gets_no_code(browser: Browser, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        customer = add_person(session, keyring, days=6)
    browser.post("/my/", number=customer.number)
    assert run_code_jobs(database) == 1
    assert notices(database) == 0


@pytest.mark.parametrize("number", ["", "12", "12345678", "abcdefg", "１２３４５６７", "123\x00456"])
def test_what_is_no_number_is_refused(browser: Browser, database: Database, number: str) -> None:
    browser.post("/my/", number=number)
    assert EN["error.number"] in browser.text
    assert run_code_jobs(database) == 0


def test_a_code_works_once_and_only_the_newest(
    browser: Browser, new_browser: Callable[[], Browser], customer: Customer, database: Database, keyring: Keyring
) -> None:
    codes = []
    for _ in range(2):
        browser.post("/my/", number=customer.number)
        run_code_jobs(database)
        codes.append(sent(database, customer, "page.code", keyring)["code"])
    browser.post("/my/code", code=codes[0])
    assert EN["error.code"] in browser.text
    browser.post("/my/code", code=codes[1])
    assert browser.path == "/my/requests"
    thief = new_browser()
    thief.post("/my/", number=customer.number)
    thief.post("/my/code", code=codes[1])
    assert EN["error.code"] in thief.text


def test_guessing_a_code_ends_it(browser: Browser, customer: Customer, database: Database, keyring: Keyring) -> None:
    browser.post("/my/", number=customer.number)
    run_code_jobs(database)
    code = sent(database, customer, "page.code", keyring)["code"]
    wrong = (f"{n:06d}" for n in range(10) if f"{n:06d}" != code)
    for guess in islice(wrong, MOST_TRIES):
        browser.post("/my/code", code=guess)
        assert EN["error.code"] in browser.text
    browser.post("/my/code", code=code)
    assert EN["error.code"] in browser.text


def test_a_code_expires(browser: Browser, customer: Customer, database: Database, keyring: Keyring) -> None:
    browser.post("/my/", number=customer.number)
    run_code_jobs(database)
    with database.transaction() as session:
        session.get_one(SignInCode, customer.id).expires_at -= CODE_LIFE + timedelta(seconds=1)
    browser.post("/my/code", code=sent(database, customer, "page.code", keyring)["code"])
    assert EN["error.code"] in browser.text


def test_codes_are_limited_for_each_customer_known_or_not(
    new_browser: Callable[[], Browser], customer: Customer
) -> None:
    for number in (customer.number, UNKNOWN):
        answers = []
        for n in range(limits.CODES_A_CUSTOMER_AN_HOUR + 1):
            browser = new_browser()
            browser.address = f"203.0.113.{n}"
            answers.append(browser.post("/my/", number=number).status_code)
        assert answers == [200] * limits.CODES_A_CUSTOMER_AN_HOUR + [429]
        assert EN["error.429"] in browser.text


def test_codes_and_guesses_are_limited_for_each_address(new_browser: Callable[[], Browser], database: Database) -> None:
    browser = new_browser()
    browser.address = "2001:db8:1:2::1"
    numbers = [f"{n:06d}" + luhn_check_digit(f"{n:06d}") for n in range(limits.CODES_AN_ADDRESS_AN_HOUR + 1)]
    answers = [browser.post("/my/", number=number).status_code for number in numbers]
    assert answers[-2:] == [200, 429]
    browser.address = "2001:db8:1:2:ffff::9"  # the same household
    assert browser.post("/my/", number=UNKNOWN).status_code == 429
    browser.address = "2001:db8:1:3::1"
    assert browser.post("/my/", number=UNKNOWN).status_code == 200
    guesses = [browser.post("/my/code", code="1").status_code for _ in range(limits.GUESSES_AN_ADDRESS_AN_HOUR + 1)]
    assert guesses[-2:] == [200, 429]


def test_every_page_but_those_to_sign_in_asks_who_it_is(pages: Flask, new_browser: Callable[[], Browser]) -> None:
    rules = [rule for rule in pages.url_map.iter_rules() if rule.endpoint.startswith("people.")]
    closed = [rule for rule in rules if rule.endpoint not in OPEN]
    assert len(closed) >= 13
    browser = new_browser()
    for rule in closed:
        path = re.sub(r"<[^>]+>", "0" * 16, rule.rule)
        for method in rule.methods & {"GET", "POST"}:  # type: ignore[operator]
            browser.get(path) if method == "GET" else browser.post(path)
            assert browser.path == "/my/", path


def test_every_answer_forbids_scripts_frames_and_keeping(pages: Flask, new_browser: Callable[[], Browser]) -> None:
    client = pages.test_client()
    for path in ("/my/", "/my/l/x", "/my/requests", "/my/none", "/my/static/people.css"):
        given = client.get(path, base_url=BASE_URL)
        assert {name: given.headers.get(name) for name in HEADERS} == HEADERS, path
        assert given.headers["Cache-Control"] == ("max-age=3600" if path.endswith("css") else "no-store")
    assert "script-src" not in HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]


def test_where_nothing_is_the_page_says_so(browser: Browser, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        customer = add_person(session, keyring)
    browser.sign_in(customer)
    assert browser.get("/my/nothing").status_code == 404
    assert texts("en")["error.404"] in browser.text


def test_before_sign_in_the_browser_chooses_the_language(browser: Browser) -> None:
    for accepted, locale in (("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("de, en-GB;q=0.5", "en"), ("fr", "en"), ("", "en")):
        browser.headers = {"Accept-Language": accepted}
        browser.get("/my/")
        assert texts(locale)["start.text"] in browser.text, accepted


def test_signed_in_the_customer_has_her_own_language(browser: Browser, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        customer = add_person(session, keyring, locale="zh")
    browser.headers = {"Accept-Language": "en"}
    browser.sign_in(customer)
    assert texts("zh")["requests.none"] in browser.text
    assert 'lang="zh-Hans"' in browser.text
