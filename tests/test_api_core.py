"""The merchants' API: keys, scopes, idempotency, pages, rates, errors, and what one merchant may know."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from api_support import Program, now, program
from flask import Flask
from flask.testing import FlaskClient
from people_support import add_person
from sqlalchemy import select

from ivr.api import keys
from ivr.api.models import ApiKey
from ivr.api.operations import OPERATIONS
from ivr.customers import merchants
from ivr.customers.merchants import MerchantCustomer, MerchantText
from ivr.customers.models import Bill, BillStatus, CallerId, new_id
from ivr.customers.register import add_caller_id
from ivr.keys import Keyring
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]


@pytest.fixture
def client(pages: Flask) -> FlaskClient:
    return pages.test_client()


@pytest.fixture
def shop(client: FlaskClient, database: Database) -> Program:
    return program(client, database)


def refer(shop: Program, phone: str = "+14155550001", reference: str = "c-1") -> str:
    return str(shop.made("/customers", {"reference": reference, "phone": phone})["id"])


def bill_of(shop: Program, customer: str, **more: Any) -> dict[str, Any]:
    return shop.made("/bills", {"customer": customer, "amount_minor": 4210, "currency": "USD", **more})


def problem(given: Any, status: int, code: str) -> dict[str, Any]:
    assert given.status_code == status, given.text
    assert given.mimetype == "application/problem+json"
    found: dict[str, Any] = given.get_json()
    assert found["code"] == code
    return found


# --- keys


def test_without_a_valid_key_nothing_is_answered(client: FlaskClient, database: Database, shop: Program) -> None:
    for shown in ("", "Bearer", "Bearer pbv_x", f"Basic {shop.key}", f"Bearer {shop.key[:-1]}~"):
        given = client.get("/v1/bills", headers={"Authorization": shown})
        problem(given, 401, "no_valid_key")
        assert given.headers["WWW-Authenticate"] == "Bearer"
    with database.transaction() as session:
        keys.revoke(session, shop.key.split("_")[1], who="test", now=now())
    problem(shop.get("/bills"), 401, "no_valid_key")


def test_the_database_does_not_hold_the_key(database: Database, shop: Program) -> None:
    with database.transaction() as session:
        (row,) = session.scalars(select(ApiKey)).all()
    secret = shop.key.split("_", 2)[2]
    assert all(secret not in str(value) for value in vars(row).values())


def test_a_closed_merchants_keys_are_worth_nothing(database: Database, shop: Program) -> None:
    with database.transaction() as session:
        merchants.require_merchant(session, shop.merchant_id).closed_at = now()
    problem(shop.get("/bills"), 401, "no_valid_key")


def test_every_operation_needs_its_scope(client: FlaskClient, database: Database) -> None:
    for found in OPERATIONS:
        others = [scope for scope in keys.SCOPES if scope != found.scope]
        poor = program(client, database, f"Shop of {found.name}", others)
        path = re.sub(r"{\w+}", "0" * 16, found.path)
        given = {"GET": poor.get, "POST": poor.post, "DELETE": poor.delete}[found.method](path)
        problem(given, 403, "no_scope")


# --- what a merchant may know


def test_a_known_number_and_an_unknown_one_are_answered_alike(
    shop: Program, database: Database, keyring: Keyring
) -> None:
    with database.transaction() as session:
        person = add_person(session, keyring)
        phone = session.scalar(select(CallerId.e164).where(CallerId.customer_id == person.id))
    known, unknown = refer(shop, str(phone), "known"), refer(shop, "+14155559999", "unknown")
    answers = []
    for customer in (known, unknown):
        bill = bill_of(shop, customer)
        again = shop.get(f"/bills/{bill['id']}").get_json()
        cancelled = shop.made(f"/bills/{bill['id']}/cancel")
        answers.append([{**one, "id": "", "customer": "", "created_at": ""} for one in (bill, again, cancelled)])
    assert answers[0] == answers[1]
    assert shop.get(f"/customers/{known}").get_json().keys() == shop.get(f"/customers/{unknown}").get_json().keys()


def test_bills_to_a_number_wait_for_a_customer_who_has_it(shop: Program, database: Database, keyring: Keyring) -> None:
    waiting = bill_of(shop, refer(shop, "+14155558888"))
    withdrawn = bill_of(shop, refer(shop, "+14155558888"))
    shop.made(f"/bills/{withdrawn['id']}/cancel")
    with database.transaction() as session:
        person = add_person(session, keyring)
        assert session.get(Bill, waiting["id"]) is None
        add_caller_id(session, person.id, "+14155558888", now())
        owed = session.get(Bill, waiting["id"])
        assert owed is not None
        assert (owed.customer_id, owed.merchant, owed.amount_minor) == (person.id, "City Water", 4210)
        assert session.get(Bill, withdrawn["id"]) is None


def test_a_number_that_two_share_is_nobody(shop: Program, database: Database, keyring: Keyring) -> None:
    with database.transaction() as session:
        people = [add_person(session, keyring) for _ in range(2)]
        for person in people:
            add_caller_id(session, person.id, "+14155557777", now())
    bill = bill_of(shop, refer(shop, "+14155557777"))
    by_number = shop.made("/customers", {"reference": "by-number", "number": people[1].number})
    owed = bill_of(shop, by_number["id"])
    with database.transaction() as session:
        assert session.get(Bill, bill["id"]) is None
        assert session.get_one(Bill, owed["id"]).customer_id == people[1].id


def test_a_bill_withdrawn_while_she_comes_to_owe_it_is_withdrawn(
    shop: Program, database: Database, keyring: Keyring, pages: Flask
) -> None:
    bill = bill_of(shop, refer(shop, "+14155558888"))
    with ThreadPoolExecutor(1) as beside:
        with database.transaction() as session:
            person = add_person(session, keyring)
            add_caller_id(session, person.id, "+14155558888", now())
            cancelled = beside.submit(replace(shop, client=pages.test_client()).made, f"/bills/{bill['id']}/cancel")
            with pytest.raises(TimeoutError):
                cancelled.result(0.3)  # it waits
        assert cancelled.result()["status"] == "cancelled"
    with database.transaction() as session:
        assert session.get_one(Bill, bill["id"]).status is BillStatus.CANCELLED


def test_a_bill_issued_while_she_gets_the_number_is_owed(
    shop: Program, database: Database, keyring: Keyring, pages: Flask
) -> None:
    referred = refer(shop, "+14155558888")
    with database.transaction() as session:
        person = add_person(session, keyring)

    def number_added() -> None:
        with database.transaction() as session:
            add_caller_id(session, person.id, "+14155558888", now())

    with ThreadPoolExecutor(1) as beside:
        with database.transaction() as session:
            row = session.get_one(MerchantCustomer, referred)
            bill = merchants.issue_bill(session, row, amount_minor=4210, currency="USD", now=now())
            added = beside.submit(number_added)
            with pytest.raises(TimeoutError):
                added.result(0.3)
        added.result()
    with database.transaction() as session:
        assert session.get_one(Bill, bill.id).customer_id == person.id


def test_whoever_is_meant_in_the_end_owes_what_was_billed_before(
    shop: Program, database: Database, keyring: Keyring
) -> None:
    with database.transaction() as session:
        stays, goes = (add_person(session, keyring) for _ in range(2))
        for person in (stays, goes):
            add_caller_id(session, person.id, "+14155557777", now())
    referred = refer(shop, "+14155557777")
    before = bill_of(shop, referred)
    with database.transaction() as session:
        session.delete(session.get_one(CallerId, ("+14155557777", goes.id)))
    after = bill_of(shop, referred)
    with database.transaction() as session:
        assert [session.get_one(Bill, bill["id"]).customer_id for bill in (before, after)] == [stays.id] * 2


def test_one_reference_given_at_once_is_one(shop: Program, pages: Flask) -> None:
    shops = [replace(shop, client=pages.test_client()) for _ in range(4)]
    with ThreadPoolExecutor(len(shops)) as pool:
        assert len(set(pool.map(refer, shops))) == 1


# --- requests


def test_a_request_sent_again_is_answered_as_at_first(shop: Program, database: Database) -> None:
    customer, key = refer(shop), new_id()
    asked = {"customer": customer, "amount_minor": 500, "currency": "USD"}
    first = shop.made("/bills", asked, key=key)
    assert shop.made("/bills", asked, key=key) == first
    assert len(shop.get("/bills").get_json()["data"]) == 1
    problem(shop.post("/bills", {**asked, "amount_minor": 501}, key=key), 409, "idempotency_key_used")
    problem(shop.post("/refunds", {"payment": "0" * 16}, key=key), 409, "idempotency_key_used")


def test_keys_of_two_merchants_do_not_meet(client: FlaskClient, database: Database, shop: Program) -> None:
    other, key = program(client, database, "Other Shop"), new_id()
    asked = {"reference": "c-1", "phone": "+14155550001"}
    assert shop.made("/customers", asked, key=key)["id"] != other.made("/customers", asked, key=key)["id"]


def test_a_refused_request_leaves_its_key_free(shop: Program) -> None:
    key = new_id()
    asked = {"customer": "0" * 16, "amount_minor": 1, "currency": "USD"}
    problem(shop.post("/bills", asked, key=key), 404, "not_found")
    assert shop.made("/customers", {"reference": "c-1", "phone": "+14155550001"}, key=key)


@pytest.mark.parametrize("key", ["", "short", "with space", "ü" * 10, "x" * 65])
def test_a_post_needs_an_idempotency_key(shop: Program, key: str) -> None:
    given = shop.client.post(
        "/v1/customers",
        json={"reference": "c", "phone": "+14155550001"},
        headers={"Authorization": f"Bearer {shop.key}", "Idempotency-Key": key.encode().decode("latin1")},
    )
    problem(given, 422, "invalid")


def test_bodies_that_cannot_be_read(shop: Program) -> None:
    def post(data: bytes, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {shop.key}", "Idempotency-Key": new_id(), **headers}
        return shop.client.post("/v1/customers", data=data, headers=sent)

    problem(post(b"{}", **{"Content-Type": "text/plain"}), 415, "wrong_media_type")
    problem(post(b"{", **{"Content-Type": "application/json"}), 400, "bad_request")
    problem(post(b"[" * 20_000, **{"Content-Type": "application/json"}), 413, "too_long")
    problem(post(b"\xff", **{"Content-Type": "application/json"}), 400, "bad_request")


def test_an_error_does_not_repeat_a_card_number(shop: Program) -> None:
    number = "4242424242424242"
    for body in ({"reference": number, "phone": "+14155550001"}, {"reference": "c", "phone": number}, {number: 1}):
        given = shop.post("/customers", body)
        assert given.status_code == 422
        assert number not in given.text, given.text


def test_lists_come_in_pages(shop: Program) -> None:
    made = [refer(shop, f"+1415555{n:04}", f"c-{n}") for n in range(7)]
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        part = shop.get("/customers", limit=3, **cursor).get_json()
        seen += [one["id"] for one in part["data"]]
        if part["next"] is None:
            break
        cursor = {"cursor": part["next"]}
    assert seen == made[::-1]
    beyond = base64.urlsafe_b64encode(b"0001-01-01T00:00:00+14:00 x").decode()
    for wrong in ({"limit": 0}, {"limit": 201}, {"cursor": "???"}, {"cursor": "eHg"}, {"cursor": beyond}, {"what": 1}):
        problem(shop.get("/customers", **wrong), 422, "invalid")


def test_too_many_requests_are_told_when_to_come_back(
    client: FlaskClient, database: Database, shop: Program, pages: Flask, redis_client: Any
) -> None:
    from ivr.api.limits import RateLimit

    desk = pages.extensions["ivr.api"]
    pages.extensions["ivr.api"] = replace(desk, limit=RateLimit(redis_client, 18))
    other = program(client, database, "Other Shop")
    lefts = [shop.get("/bills").headers["RateLimit-Remaining"] for _ in range(3)]
    assert lefts == ["2", "1", "0"]
    given = shop.get("/bills")
    problem(given, 429, "too_many_requests")
    assert 1 <= int(given.headers["Retry-After"]) <= 10
    assert other.get("/bills").status_code == 200


def test_a_batch_for_which_no_window_is_long_enough_is_refused(shop: Program, pages: Flask, redis_client: Any) -> None:
    from ivr.api.limits import RateLimit

    desk = pages.extensions["ivr.api"]
    pages.extensions["ivr.api"] = replace(desk, limit=RateLimit(redis_client, 18))
    item = {
        "idempotency_key": "key-of-an-item", "customer": refer(shop), "amount_minor": 1, "currency": "USD",
        "product_kind": "service",
    }  # fmt: skip
    told = problem(shop.post("/purchases:batch", {"items": [item] * 4}), 422, "invalid")
    assert "counts as 4 requests" in told["detail"]


def test_a_database_that_is_busy_is_asked_again(
    shop: Program, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool: Any = database.engine.pool
    monkeypatch.setattr(pool, "_timeout", 0.1)
    with ExitStack() as others:
        for _ in range(pool.size() + pool._max_overflow):
            others.enter_context(database.engine.connect())
        problem(shop.get("/bills"), 503, "unavailable")
    assert shop.get("/bills").status_code == 200


def test_what_no_database_can_be_asked_for_is_refused(shop: Program) -> None:
    asked = {"customer": refer(shop), "amount_minor": 1, "currency": "USD"}
    for wrong in (
        {"description": "a\0b"},
        {"due_at": "0001-01-01T00:00:00+14:00"},
        {"due_at": "9999-12-31T23:59:59-14:00"},
    ):
        problem(shop.post("/bills", asked | wrong), 422, "invalid")


def test_unknown_paths_and_methods(shop: Program) -> None:
    problem(shop.get("/nothing"), 404, "http_404")
    given = shop.client.put("/v1/bills", headers={"Authorization": f"Bearer {shop.key}"})
    problem(given, 405, "http_405")
    assert set(given.headers["Allow"].split(", ")) >= {"GET", "POST"}
    assert shop.client.get("/nothing").mimetype == "text/html"  # elsewhere nothing changes


# --- texts and names


def test_a_text_is_used_once_it_is_approved(shop: Program, database: Database) -> None:
    text = shop.made("/texts", {"text": "Water of the quarter"})
    assert text["status"] == "proposed"
    asked = {"customer": refer(shop), "amount_minor": 1, "currency": "USD", "description": text["text"]}
    problem(shop.post("/bills", asked), 422, "invalid")
    with database.transaction() as session:
        session.get_one(MerchantText, text["id"]).approved_at = now()
    assert shop.made("/bills", asked)["description"] == text["text"]
    assert shop.get(f"/texts/{text['id']}").get_json()["status"] == "approved"


def test_a_text_proposed_several_times_at_once_is_one(shop: Program, pages: Flask) -> None:
    shops = [replace(shop, client=pages.test_client()) for _ in range(4)]
    with ThreadPoolExecutor(len(shops)) as pool:
        made = list(pool.map(lambda one: one.made("/texts", {"text": "Water of the quarter"}), shops))
    assert [made[0]] * 4 == made
    assert shop.get("/texts").get_json()["data"] == [made[0]]


@pytest.mark.parametrize(
    "text",
    [
        "call 1234", "1 2 3 4", "one two three four", "see www.example", "https://x", "me@example.org", "x" * 81,
        "pay.example.com now", "line\nbreak", "", " ", "４２４２", "一二三四五",
    ],
)  # fmt: skip
def test_what_may_not_be_spoken(shop: Program, database: Database, text: str) -> None:
    problem(shop.post("/texts", {"text": text}), 422, "invalid")
    with database.transaction() as session, pytest.raises(Exception, match="a merchant's name"):
        merchants.add_merchant(session, text, who="test", now=now())


# --- webhooks


@pytest.fixture
def registered(shop: Program, database: Database) -> Program:
    from ivr.customers.merchants import MerchantOrigin

    with database.transaction() as session:
        session.add(MerchantOrigin(merchant_id=shop.merchant_id, origin="https://localhost:8443", created_at=now()))
    return shop


def test_webhooks_go_to_registered_origins_and_public_addresses(registered: Program) -> None:
    for url in ("https://elsewhere.example/x", "http://localhost:8443/x", "https://localhost/x", "localhost:8443"):
        problem(registered.post("/webhooks", {"url": url}), 422, "invalid")
    problem(registered.post("/webhooks", {"url": "https://localhost:8443/x"}), 422, "invalid")  # a private address


def test_a_webhooks_secret_is_told_to_who_makes_it(
    registered: Program, database: Database, pages: Flask, settings: Settings
) -> None:
    desk = pages.extensions["ivr.api"]
    open_ = settings.model_copy(update={"webhooks_to_private": True})
    pages.extensions["ivr.api"] = replace(desk, services=replace(desk.services, settings=open_))
    key = new_id()
    made = registered.made("/webhooks", {"url": "https://localhost:8443/x"}, key=key)
    assert made["secret"].startswith("whsec_")
    assert registered.made("/webhooks", {"url": "https://localhost:8443/x"}, key=key) == made
    assert "secret" not in registered.get(f"/webhooks/{made['id']}").get_json()
    with database.transaction() as session:
        from ivr.payments.models import PaymentCommand

        assert all(made["secret"] not in str(c.answer) for c in session.scalars(select(PaymentCommand)))
    assert registered.delete(f"/webhooks/{made['id']}").status_code == 204
    problem(registered.get(f"/webhooks/{made['id']}"), 404, "not_found")
