"""Who lets which app charge: asked for by the merchant, signed by the customer alone, ended by either."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from api_support import Program, now, program
from app_support import Pump, an_app, bind
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from people_support import OTHER_PIN, PIN, WRONG_PIN, Browser, add_person, link_path, pay
from sqlalchemy import func, select, update

from ivr.approval import app_links
from ivr.customers import apps
from ivr.customers.apps import BIND_JOB, AppBinding, AppCharge, ChargeStatus
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Card, Customer, Notice, new_id
from ivr.customers.voiceprints import record_consent, store_voiceprint
from ivr.jobs import take
from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.payments.models import Payment, Refund, RefundState
from ivr.payments.states import State
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


def terms(database: Database, **more: str) -> dict[str, str]:
    with database.transaction() as session:
        card = session.scalars(select(Card.id).order_by(Card.authorised_at)).first()
    return {"do": "bind", "card": str(card), "currency": "usd", "limit": "20", "day_limit": "50"} | more


def test_asked_for_by_the_merchant_and_signed_by_the_customer(
    pump: Pump, browser: Browser, database: Database, keyring: Keyring, alice: Customer
) -> None:
    asked = ask(pump, database)
    assert (asked["status"], asked["limit_minor"]) == ("requested", None)
    path = link_path(database, alice, keyring, "app.bind")
    browser.get(path)
    assert "Pump" not in browser.text
    browser.post(path, do="sign", pin=PIN)
    assert "The app Pump of City Water asks to charge your card" in browser.text
    assert "ending 4242" in browser.text
    browser.post(path, **terms(database))
    assert "Pump of City Water may now charge you" in browser.text
    found = pump.shop.get(f"/bindings/{asked['id']}").get_json()
    assert (found["status"], found["currency"]) == ("bound", "USD")
    assert (found["limit_minor"], found["day_limit_minor"]) == (2_000, 5_000)
    browser.post(path, **terms(database, limit="5000"))  # once
    assert pump.shop.get(f"/bindings/{asked['id']}").get_json() == found
    with database.transaction() as session:
        told = session.scalar(select(Notice.values).where(Notice.template == "app.bound"))
        assert told
        assert told["last4"] == "4242"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"card": "0" * 16}, "These limits"),
        ({"card": ""}, "These limits"),
        ({"currency": "XXY"}, "this currency"),
        ({"limit": "0"}, "These limits"),
        ({"limit": "x"}, "These limits"),
        ({"day_limit": "10"}, "These limits"),
        ({"yes_limit": "30"}, "These limits"),
    ],
)
def test_what_is_wrong_binds_nothing_and_may_be_put_right(
    pump: Pump,
    browser: Browser,
    database: Database,
    keyring: Keyring,
    alice: Customer,
    wrong: dict[str, str],
    said: str,
) -> None:
    asked = ask(pump, database)
    path = link_path(database, alice, keyring, "app.bind")
    browser.post(path, do="sign", pin=PIN)
    browser.post(path, **terms(database, **wrong))
    assert said in browser.text
    assert pump.shop.get(f"/bindings/{asked['id']}").get_json()["status"] == "requested"
    browser.post(path, **terms(database))
    assert pump.shop.get(f"/bindings/{asked['id']}").get_json()["status"] == "bound"


def test_nobody_binds_without_her_pin(
    pump: Pump, new_browser: Callable[[], Browser], database: Database, keyring: Keyring, alice: Customer
) -> None:
    asked, (hers, other) = ask(pump, database), (new_browser(), new_browser())
    path = link_path(database, alice, keyring, "app.bind")
    hers.post(path, do="sign", pin=PIN)
    other.post(path, **terms(database))  # signed in another browser
    other.post(path, do="sign", pin=WRONG_PIN)
    other.post(path, **terms(database))
    assert pump.shop.get(f"/bindings/{asked['id']}").get_json()["status"] == "requested"


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
    wanted = {"currency": "USD", "limit_minor": 100}
    with database.transaction() as session, pytest.raises(apps.LinkSpent):
        apps.bind(session, asked["id"], other.id, cards[other.id], **wanted, now=now())
    with database.transaction() as session, pytest.raises(InvalidInput):
        apps.bind(session, asked["id"], alice.id, cards[other.id], **wanted, now=now())
    late = now() + apps.LINK_LIFE + timedelta(seconds=1)
    with database.transaction() as session, pytest.raises(apps.LinkSpent):
        apps.bind(session, asked["id"], alice.id, cards[alice.id], **wanted, now=late)


def test_without_a_voiceprint_there_is_nothing_to_bind(
    client: FlaskClient, browser: Browser, database: Database, keyring: Keyring, shop: Program
) -> None:
    with database.transaction() as session:
        mute = add_person(session, keyring)
    pump = an_app(client, database, shop, mute)
    ask(pump, database)
    path = link_path(database, mute, keyring, "app.bind")
    browser.post(path, do="sign", pin=PIN)
    browser.post(path, **terms(database))
    assert "Enrol your voice first" in browser.text


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


def test_she_sees_what_each_app_charged_less_what_was_given_back(
    pump: Pump, database: Database, alice: Customer, browser: Browser
) -> None:
    bind(database, pump)
    with database.transaction() as session:
        for state, amount_minor, refunded in (
            (State.PART_REFUNDED, 1_250, [(RefundState.DONE, 200), (RefundState.REFUSED, 300)]),
            (State.PAID, 700, []),
            (State.VOIDED, 9_900, []),
            (State.AWAITING, 8_800, []),
        ):
            payment = session.get_one(Payment, pay(session, alice, amount_minor))
            payment.state = state
            session.add(
                AppCharge(
                    id=new_id(), app_id=pump.app_id, binding_id=pump.binding_id, amount_minor=amount_minor,
                    currency="USD", description="", by_voice=True, status=ChargeStatus.CONFIRMED,
                    payment_id=payment.id, created_at=now(), expires_at=now(),
                )
            )  # fmt: skip
            for number, (end, minor) in enumerate(refunded):
                session.add(
                    Refund(
                        id=new_id(), payment_id=payment.id, amount_minor=minor, state=end, bank_key=f"key {number}",
                        why="test", created_at=now(), updated_at=now(),
                    )
                )  # fmt: skip
    browser.sign_in(alice)
    browser.get("/my/me")
    assert "Charged so far: USD 17.50" in browser.text  # 12.50 - 2.00 + 7.00
    listed = re.findall(r"UTC: USD (\d+\.\d\d)\s*(?:\(USD (\S+) given back\))?", browser.text)
    assert listed == [("7.00", ""), ("12.50", "2.00")]


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
