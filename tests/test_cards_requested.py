"""Cards that merchants ask for: the same answer about everybody, a link to her own contact, a number kept nowhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import structlog
from api_support import Program, now, program
from flask import Flask
from flask.testing import FlaskClient
from payments_support import new_pan
from people_support import PIN, WRONG_PIN, Browser, add_person, link_path
from purchases_support import refer_to
from sqlalchemy import select, text

from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.customers import card_requests
from ivr.customers.card_requests import MOST_A_DAY, CardRequest
from ivr.customers.models import Card, Customer, Notice
from ivr.jobs import take
from ivr.keys import Keyring
from ivr.payments.sandbox_client import SandboxBank
from ivr.services import Services
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.store.models import metadata

pytest_plugins = ["people_fixtures", "payments_fixtures"]


@pytest.fixture
def pages(bank_settings: Settings, database: Database, redis_client: Any, keyring: Keyring) -> Flask:
    """The application, with a real bank beside."""
    from ivr.app import create_app

    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, None, None, now)  # type: ignore[arg-type]
    engine = Engine(calls, database, judge, now)
    return create_app(bank_settings, Services(bank_settings, database, calls, engine, judge, None))  # type: ignore[arg-type]


@pytest.fixture
def client(pages: Flask) -> FlaskClient:
    return pages.test_client()


@pytest.fixture
def shop(client: FlaskClient, database: Database) -> Program:
    return program(client, database)


@pytest.fixture
def customer(database: Database, keyring: Keyring) -> Customer:
    with database.transaction() as session:
        return add_person(session, keyring)


def ask_all(database: Database) -> None:
    """What the worker does."""
    while held := take(database, "test", {card_requests.ASK_JOB}, timedelta(seconds=30)):
        card_requests.ask(held, now())
        held.done()


def asked(shop: Program, referred: str, database: Database, **more: Any) -> dict[str, Any]:
    made = shop.made("/cards", {"customer": referred, **more})
    ask_all(database)
    return made


def added(database: Database, customer: Customer) -> list[Card]:
    with database.transaction() as session:
        return list(session.scalars(select(Card).where(Card.customer_id == customer.id, Card.bank_token != "tok")))


EXPIRY = f"01/{(now().year + 2) % 100}"


def test_she_enters_the_number_once_and_it_is_kept_nowhere(
    shop: Program, customer: Customer, database: Database, keyring: Keyring, browser: Browser, bank: SandboxBank
) -> None:
    pan = new_pan()
    bank.open_account(pan)
    made = asked(shop, refer_to(shop, customer), database)
    assert (made["status"], made["brand"], made["last4"]) == ("requested", None, None)
    path = link_path(database, customer, keyring, "card.ask")
    browser.get(path)
    assert "City Water" not in browser.text
    browser.post(path, do="sign", pin=WRONG_PIN)
    assert "This did not work." in browser.text
    browser.post(path, do="sign", pin=PIN)
    assert "City Water" in browser.text
    with structlog.testing.capture_logs() as logs:
        browser.post(path, do="add", number=f"{pan[:4]} {pan[4:8]} {pan[8:12]} {pan[12:]}", expiry=EXPIRY)
    assert "The card is added." in browser.text
    (card,) = added(database, customer)
    assert (card.last4, card.text_version) == (pan[-4:], "card-page-1")
    seen = shop.get(f"/cards/{made['id']}").get_json()
    assert (seen["status"], seen["brand"], seen["last4"]) == ("added", "visa", pan[-4:])
    with database.transaction() as session:
        for table in metadata.sorted_tables:
            assert pan not in str(session.execute(text(f'SELECT * FROM "{table.name}"')).all()), table.name
    assert pan not in str(logs) + browser.text + str(seen)
    browser.post(path, do="add", number=pan, expiry=EXPIRY)
    assert len(added(database, customer)) == 1


@pytest.mark.parametrize("by_voice", [False, True])
def test_a_card_by_the_banks_token_is_matched_by_its_number_only_if_she_gives_it(
    shop: Program,
    customer: Customer,
    database: Database,
    keyring: Keyring,
    browser: Browser,
    bank: SandboxBank,
    by_voice: bool,
) -> None:
    from ivr.speech.pan import pan_hash

    pan = new_pan()
    token = bank.open_account(pan).token
    exp = {"month": 1, "year": now().year + 2}
    asked(shop, refer_to(shop, customer), database, token=token, exp=exp)
    path = link_path(database, customer, keyring, "card.ask")
    browser.post(path, do="sign", pin=PIN)
    browser.post(path, do="add", number=new_pan(), expiry="")
    assert "cannot be added" in browser.text
    browser.post(path, do="add", number=pan if by_voice else "", expiry="")
    (card,) = added(database, customer)
    assert (card.bank_token, card.last4) == (token, pan[-4:])
    _, key = keyring.active("pan")
    assert (card.pan_hash == pan_hash(key, customer.id, pan)) == by_voice


def test_the_token_of_anothers_card_is_worth_nothing(
    shop: Program, customer: Customer, database: Database, keyring: Keyring, browser: Browser, bank: SandboxBank
) -> None:
    """Who read the database has all tokens; the last four and a number that ends in them are no proof either."""
    pan = new_pan()
    token = bank.open_account(pan).token
    exp = {"month": 1, "year": now().year + 2}
    with database.transaction() as session:
        other = add_person(session, keyring)
        session.scalars(select(Card).where(Card.customer_id == other.id)).one().bank_token = token
    asked(shop, refer_to(shop, customer), database, token=token, exp=exp)
    path = link_path(database, customer, keyring, "card.ask")
    browser.post(path, do="sign", pin=PIN)
    for number in ("", pan):
        browser.post(path, do="add", number=number, expiry="")
        assert "cannot be added" in browser.text
    assert added(database, customer) == []


def test_what_a_merchant_is_answered_does_not_tell_whom_we_know(
    shop: Program, customer: Customer, database: Database
) -> None:
    answers = []
    for n, number in enumerate((customer.number, "1000009")):
        referred = shop.made("/customers", {"reference": f"r{n}", "number": number})["id"]
        made = asked(shop, referred, database)
        with database.transaction() as session:
            session.get_one(CardRequest, made["id"]).expires_at = now() - timedelta(seconds=1)
        late = shop.get(f"/cards/{made['id']}").get_json()
        answers.append([one | {"id": "", "customer": "", "created_at": ""} for one in (made, late)])
    assert answers[0] == answers[1]
    assert answers[0][1]["status"] == "expired"


def test_nobody_is_pestered(shop: Program, customer: Customer, database: Database) -> None:
    referred = refer_to(shop, customer)
    for _ in range(MOST_A_DAY + 2):
        assert asked(shop, referred, database)["status"] == "requested"
    with database.transaction() as session:
        assert len(session.scalars(select(Notice).where(Notice.template == "card.ask")).all()) == MOST_A_DAY


def test_a_contact_that_is_new_is_not_asked(shop: Program, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        fresh = add_person(session, keyring, days=1)
    asked(shop, refer_to(shop, fresh), database)
    with database.transaction() as session:
        assert session.scalars(select(Notice).where(Notice.template == "card.ask")).all() == []


@pytest.mark.parametrize(
    ("number", "expiry"),
    [("4242424242424243", "01/30"), ("", "01/30"), ("pan", "13/30"), ("pan", ""), ("pan", "01/20"),
     ("1234567890123456", "01/30")],
)  # fmt: skip
def test_what_is_no_card_is_not_added(
    shop: Program, customer: Customer, database: Database, keyring: Keyring, browser: Browser, bank: SandboxBank,
    number: str, expiry: str,
) -> None:  # fmt: skip
    pan = new_pan()
    if number == "pan":
        bank.open_account(pan)
    asked(shop, refer_to(shop, customer), database)
    path = link_path(database, customer, keyring, "card.ask")
    browser.post(path, do="sign", pin=PIN)
    browser.post(path, do="add", number=pan if number == "pan" else number, expiry=expiry)
    assert "cannot be added" in browser.text
    assert added(database, customer) == []


def test_a_bank_that_is_away_adds_nothing(
    shop: Program, customer: Customer, database: Database, keyring: Keyring, browser: Browser, pages: Flask
) -> None:

    asked(shop, refer_to(shop, customer), database)
    pages.extensions["ivr.pay"] = SandboxBank("http://127.0.0.1:9", "sandbox")
    path = link_path(database, customer, keyring, "card.ask")
    browser.post(path, do="sign", pin=PIN)
    browser.post(path, do="add", number=new_pan(), expiry=EXPIRY)
    assert "does not answer" in browser.text
    assert added(database, customer) == []


def test_a_link_is_over_after_five_wrong_pins(
    shop: Program, customer: Customer, database: Database, keyring: Keyring, new_browser: Callable[[], Browser]
) -> None:
    asked(shop, refer_to(shop, customer), database)
    path, browser = link_path(database, customer, keyring, "card.ask"), new_browser()
    browser.get(path)
    token = browser.text.split('name="csrf_token" value="')[1].split('"')[0]
    for _ in range(5):
        browser.post(path, token, do="sign", pin=WRONG_PIN)
    browser.post(path, token, do="sign", pin=PIN)
    assert "was tried too often" in browser.text
    assert browser.post(path, token, do="add", number=new_pan(), expiry=EXPIRY).status_code == 200
    assert added(database, customer) == []


@pytest.mark.parametrize(
    "wrong",
    [{"token": "4242424242424242"}, {"token": "a b c d"}, {"exp": {"month": 1, "year": 2030}},
     {"token": "tok_1234", "exp": {"month": 13, "year": 2030}},
     {"token": "tok_1234", "exp": {"month": 1, "year": 2020}}],
)  # fmt: skip
def test_what_cannot_be_asked_for(shop: Program, customer: Customer, wrong: dict[str, Any]) -> None:
    referred = refer_to(shop, customer)
    given = shop.post("/cards", {"customer": referred, **wrong})
    assert (given.status_code, given.get_json()["code"]) == (422, "invalid")
    unknown = shop.post("/cards", {"customer": "0" * 16})
    assert (unknown.status_code, unknown.get_json()["code"]) == (404, "not_found")
