"""Who lets which app charge: asked for by the merchant, signed by the customer alone, ended by either."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from api_support import Program, now, program
from app_support import Pump, an_app, bind
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from people_support import BASE_URL, OTHER_PIN, PIN, WRONG_PIN, Browser, add_person, link_path
from sqlalchemy import func, select, update

from ivr.approval import app_links
from ivr.customers import apps
from ivr.customers.apps import BIND_JOB, AppBinding
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Card, Customer, Notice
from ivr.customers.voiceprints import record_consent, store_voiceprint
from ivr.jobs import take
from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]


@pytest.fixture
def client(pages: Flask) -> FlaskClient:
    return pages.test_client()


@pytest.fixture
def shop(client: FlaskClient, database: Database) -> Program:
    return program(client, database)


def person(database: Database, keyring: Keyring, **more: Any) -> Customer:
    """Somebody with a voiceprint; no model looks at it here."""
    with database.transaction() as session:
        customer = add_person(session, keyring, **more)
        consent = record_consent(session, customer.id, text_version="voiceprint-1", channel="test", now=now())
        store_voiceprint(session, customer.id, b"x", "model", 8_000, "telephone", consent.id, keyring, now())
    return customer


@pytest.fixture
def alice(database: Database, keyring: Keyring) -> Customer:
    return person(database, keyring)


@pytest.fixture
def pump(client: FlaskClient, database: Database, shop: Program, alice: Customer) -> Pump:
    return an_app(client, database, shop, alice)


def ask(pump: Pump, database: Database) -> dict[str, Any]:
    """The merchant asks, and the worker does what it does then."""
    asked = pump.shop.made(f"/apps/{pump.app_id}/bindings", {"customer": pump.reference})
    while held := take(database, "test", {BIND_JOB}, timedelta(seconds=30)):
        app_links.ask(held)
        held.done()
    return asked


def signed(**more: str) -> dict[str, str]:
    return {"last4": "4242", "currency": "usd", "limit": "20", "day_limit": "50", "yes_limit": "", "pin": PIN} | more


def test_asked_for_by_the_merchant_and_signed_by_the_customer(
    pump: Pump, client: FlaskClient, database: Database, keyring: Keyring, alice: Customer
) -> None:
    asked = ask(pump, database)
    assert (asked["status"], asked["limit_minor"]) == ("requested", None)
    path = link_path(database, alice, keyring, "app.bind")
    opened = client.get(path, base_url=BASE_URL)
    assert "Pump of City Water" in opened.text.replace("The app ", "")
    assert "4242" not in opened.text
    done = client.post(path, data=signed(), base_url=BASE_URL)
    assert done.status_code == 200, done.text
    found = pump.shop.get(f"/bindings/{asked['id']}").get_json()
    assert (found["status"], found["currency"]) == ("bound", "USD")
    assert (found["limit_minor"], found["day_limit_minor"]) == (2_000, 5_000)
    assert client.post(path, data=signed(), base_url=BASE_URL).status_code == 404  # once
    with database.transaction() as session:
        told = session.scalar(select(Notice.values).where(Notice.template == "app.bound"))
        assert told["last4"] == "4242"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"pin": WRONG_PIN}, 403),
        ({"pin": ""}, 403),
        ({"last4": "1111"}, 422),
        ({"last4": ""}, 422),
        ({"currency": "XXY"}, 422),
        ({"limit": "0"}, 422),
        ({"limit": "x"}, 422),
        ({"day_limit": "10"}, 422),
        ({"yes_limit": "30"}, 422),
    ],
)
def test_what_is_wrong_binds_nothing_and_may_be_put_right(
    pump: Pump,
    client: FlaskClient,
    database: Database,
    keyring: Keyring,
    alice: Customer,
    wrong: dict[str, str],
    status: int,
) -> None:
    asked = ask(pump, database)
    path = link_path(database, alice, keyring, "app.bind")
    given = client.post(path, data=signed(**wrong), base_url=BASE_URL)
    assert given.status_code == status
    assert 'role="alert"' in given.text
    assert pump.shop.get(f"/bindings/{asked['id']}").get_json()["status"] == "requested"
    assert client.post(path, data=signed(), base_url=BASE_URL).status_code == 200


def test_a_link_bears_five_wrong_pins(
    pump: Pump, client: FlaskClient, database: Database, keyring: Keyring, alice: Customer
) -> None:
    ask(pump, database)
    path = link_path(database, alice, keyring, "app.bind")
    told = [client.post(path, data=signed(pin=WRONG_PIN), base_url=BASE_URL).status_code for _ in range(6)]
    assert told == [403] * 5 + [404]


def test_no_other_token_opens_a_page(pump: Pump, client: FlaskClient, database: Database) -> None:
    asked = ask(pump, database)
    for token in ("x", "0" * 48, asked["id"] + "0" * 32):
        given = client.get(f"/pay/app/{token}", base_url=BASE_URL)
        assert given.status_code == 404
        assert "Pump" not in given.text


def test_somebody_unknown_and_somebody_who_does_not_answer_are_the_same(
    pump: Pump, database: Database, shop: Program
) -> None:
    nobody = shop.made("/customers", {"reference": "nobody", "phone": "+14155559999"})["id"]
    known, unknown = ask(pump, database), ask(Pump(pump.client, shop, pump.app_id, nobody), database)

    def alike(document: dict[str, Any]) -> dict[str, Any]:
        return document | {"id": "", "customer": "", "requested_at": ""}

    assert alike(known) == alike(unknown)
    assert pump.ask().get_json()["detail"] == Pump(pump.client, shop, pump.app_id, nobody).ask().get_json()["detail"]


def test_a_customer_is_sent_few_links_a_day(pump: Pump, database: Database, alice: Customer) -> None:
    for _ in range(5):
        ask(pump, database)
    with database.transaction() as session:
        sent = session.scalar(select(func.count()).select_from(Notice).where(Notice.template == "app.bind"))
        assert sent == app_links.MOST_A_DAY


def test_binding_again_ends_the_earlier_one(pump: Pump, database: Database) -> None:
    first = bind(database, pump).binding_id
    second = bind(database, pump, limit_minor=100).binding_id
    assert pump.shop.get(f"/bindings/{first}").get_json()["status"] == "unbound"
    assert pump.shop.get(f"/bindings/{second}").get_json()["status"] == "bound"


def test_only_who_is_meant_can_sign_and_only_while_it_is_new(
    pump: Pump, database: Database, keyring: Keyring, alice: Customer
) -> None:
    other = person(database, keyring, pin=OTHER_PIN)
    asked = ask(pump, database)
    with database.transaction() as session:
        cards = {card.customer_id: card.id for card in session.scalars(select(Card))}
    terms = {"currency": "USD", "limit_minor": 100}
    with database.transaction() as session, pytest.raises(apps.LinkSpent):
        apps.bind(session, asked["id"], other.id, cards[other.id], **terms, now=now())
    with database.transaction() as session, pytest.raises(InvalidInput):
        apps.bind(session, asked["id"], alice.id, cards[other.id], **terms, now=now())
    late = now() + apps.LINK_LIFE + timedelta(seconds=1)
    with database.transaction() as session, pytest.raises(apps.LinkSpent):
        apps.bind(session, asked["id"], alice.id, cards[alice.id], **terms, now=late)


def test_without_a_voiceprint_there_is_nothing_to_bind(
    client: FlaskClient, database: Database, keyring: Keyring, shop: Program
) -> None:
    with database.transaction() as session:
        mute = add_person(session, keyring)
    pump = an_app(client, database, shop, mute)
    ask(pump, database)
    given = client.post(link_path(database, mute, keyring, "app.bind"), data=signed(), base_url=BASE_URL)
    assert given.status_code == 422
    assert "Enrol your voice first" in given.text


def test_the_customer_sees_and_ends_it_on_her_page(
    pump: Pump, database: Database, alice: Customer, new_browser: Callable[[], Browser], keyring: Keyring
) -> None:
    bind(database, pump)
    browser, stranger = new_browser(), new_browser()
    browser.sign_in(alice)
    browser.get("/my/me")
    assert "Pump of City Water" in browser.text
    assert "card ending 4242" in browser.text
    assert "Charged so far: USD 0.00" in browser.text
    stranger.sign_in(person(database, keyring))
    assert stranger.post(f"/my/me/apps/{pump.binding_id}/end").status_code == 404
    browser.get("/my/me")
    browser.post(f"/my/me/apps/{pump.binding_id}/end")
    assert "This app can charge you no more." in browser.text
    assert pump.shop.get(f"/bindings/{pump.binding_id}").get_json()["status"] == "unbound"


def test_the_operator_adds_lists_and_ends(
    database: Database, settings: Settings, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ivr.ops.desk", "ivr.ops.commands.app"):
        monkeypatch.setattr(f"{module}.settings", lambda: settings)
    monkeypatch.setattr("ivr.ops.desk.upgrade", lambda _: None)  # the tables are there already
    bind(database, pump)

    def run(*words: str, code: int = 0) -> str:
        given = CliRunner().invoke(main, ["app", *words])
        assert given.exit_code == code, given.output
        return given.output

    added = run("add", "City Water", "Tap")
    assert "Tap of City Water" in added
    assert "Pump" in run("list")
    assert pump.binding_id in run("bindings", pump.app_id)
    run("prompt", pump.app_id, str(shipped("fixtures/audio/dora/yes.wav")))
    assert (settings.data_dir / "app-prompts" / f"{pump.app_id}.wav").exists()
    run("prompt", pump.app_id, "none.wav", code=2)
    run("prompt", pump.app_id, "prompt.exe", code=2)
    charge = pump.charge()
    played = pump.client.get(charge["prompt"]["audio_url"])
    assert (played.status_code, played.mimetype) == (200, "audio/x-wav")
    run("unbind", pump.binding_id)
    run("unbind", "none", code=2)
    run("close", pump.app_id)
    with database.transaction() as session:
        assert session.get_one(AppBinding, pump.binding_id).unbound_at
        session.execute(update(AppBinding).values(unbound_at=None))
    assert pump.ask().status_code == 404
