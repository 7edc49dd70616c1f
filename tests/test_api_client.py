"""The Python client against a real HTTP server of the application."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import redis
from api_support import now, program
from flask import Flask, Request
from people_support import add_person, pay
from sqlalchemy import select, update
from werkzeug.serving import BaseWSGIServer, make_server

from ivr.api import client as api
from ivr.api.client import (
    Batch,
    BatchItem,
    Client,
    NewAppCharge,
    NewBill,
    NewBinding,
    NewCard,
    NewCustomer,
    NewPurchase,
    NewRefund,
    NewText,
    NewWebhook,
    problems,
)
from ivr.api.limits import Counted, RateLimit
from ivr.api.operations import EXTENSION, OPERATIONS
from ivr.api.shapes import Page
from ivr.customers import apps, merchants
from ivr.customers.merchants import MerchantBill, MerchantOrigin
from ivr.customers.models import Bill, CallerId
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.store.db import Database
from ivr.webhooks.signature import signed_headers

pytest_plugins = ["people_fixtures"]

DOC = Path(__file__).parent.parent / "docs" / "api.md"


class Line:
    """What is between the client and the service: it can lose answers of requests that were carried out."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.seen: list[tuple[str, str, str]] = []  # method, path, idempotency key
        self.lose = 0
        self.answer: list[tuple[str, str]] = []  # status and body of a proxy that is in the way

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        self.seen.append((request.method, request.path, request.headers.get("Idempotency-Key", "")))
        if self.answer:
            status, body = self.answer.pop(0)
            start_response(status, [("Content-Type", "text/html")])
            return [body.encode()]
        given = list(self.app(environ, start_response))
        if self.lose:
            self.lose -= 1
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return given


@pytest.fixture
def line(pages: Flask) -> Line:
    return Line(pages)


@pytest.fixture
def server(line: Line) -> Iterator[str]:
    server: BaseWSGIServer = make_server("127.0.0.1", 0, line, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def key(pages: Flask, database: Database) -> str:
    return program(pages.test_client(), database).key


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(server: str, key: str, waits: list[float]) -> Client:
    return Client(server, key, sleep=waits.append)


def somebody(client: Client, reference: str = "c-1") -> str:
    return client.create_customer(NewCustomer(reference=reference, phone="+14155550001")).id


# --- each operation


def test_every_operation_has_a_method_that_returns_what_it_does() -> None:
    for operation in OPERATIONS:
        method = getattr(Client, operation.name, None)
        assert method, f"add to ivr/api/client.py, in a line or two: {operation.name}"
        returned = get_type_hints(method)["return"]
        if get_origin(returned) is Iterator:
            returned = Page[get_args(returned)[0]]  # type: ignore[misc]
        assert issubclass(returned or type(None), operation.returns or type(None)), operation.name


def test_every_method_asks_for_its_operation(
    client: Client, line: Line, database: Database, keyring: Keyring, pages: Flask
) -> None:
    """All of them in one story."""
    desk = pages.extensions[EXTENSION]
    settings = desk.services.settings.model_copy(update={"webhooks_to_private": True})
    pages.extensions[EXTENSION] = replace(desk, services=replace(desk.services, settings=settings))
    with database.transaction() as session:
        person = add_person(session, keyring)
        phone = session.scalars(select(CallerId.e164).where(CallerId.customer_id == person.id)).one()
        shop = merchants.require_merchant(session, "City Water")
        session.add(MerchantOrigin(merchant_id=shop.id, origin="https://localhost:8443", created_at=shop.created_at))

    customer = client.create_customer(NewCustomer(reference="c-17", phone=phone))
    assert client.get_customer(customer.id) == customer
    assert list(client.list_customers()) == [customer]
    text = client.propose_text(NewText(text="Water of the quarter"))
    assert client.get_text(text.id) == text
    assert list(client.list_texts()) == [text]
    due = datetime(2027, 1, 2, tzinfo=UTC)
    bill = client.create_bill(NewBill(customer=customer.id, amount_minor=4210, currency="USD", due_at=due))
    assert (bill.due_at, bill.status) == (due, "open")
    assert client.ring_bill(bill.id) == client.get_bill(bill.id) == bill
    assert list(client.list_bills(customer=customer.id)) == [bill]
    assert list(client.list_bills(customer="0" * 16)) == []
    assert client.cancel_bill(bill.id).status == "cancelled"

    bill = client.create_bill(NewBill(customer=customer.id, amount_minor=900, currency="USD"))
    with database.transaction() as session:
        paid = session.get_one(Payment, pay(session, person, 900))
        paid.bill_id, paid.state = bill.id, "paid"  # type: ignore[assignment]
    (payment,) = client.list_payments(bill=bill.id)
    assert client.get_payment(payment.id) == payment
    assert payment.status == "paid"
    for move in (client.post_payment, client.release_payment):
        with pytest.raises(problems.NotNow):  # nothing is held
            move(payment.id)
    refund = client.create_refund(NewRefund(payment=payment.id, amount_minor=100))
    assert client.get_refund(refund.id) == refund
    assert list(client.list_refunds(payment=payment.id)) == [refund]

    webhook = client.create_webhook(NewWebhook(url="https://localhost:8443/x"))
    assert webhook.secret
    assert client.get_webhook(webhook.id).url == webhook.url
    assert [one.id for one in client.list_webhooks()] == [webhook.id]
    client.remove_webhook(webhook.id)

    card = client.request_card(NewCard(customer=customer.id))
    assert client.get_card(card.id) == card
    assert list(client.list_cards(customer=customer.id)) == [card]
    wanted = NewPurchase(customer=customer.id, amount_minor=700, currency="USD", product_kind="music")
    purchase = client.create_purchase(wanted)
    assert client.get_purchase(purchase.id).id == purchase.id
    batch = Batch(items=[BatchItem(**wanted.model_dump(), idempotency_key=f"order-{n:04}") for n in range(2)])
    assert [one.status for one in client.create_purchases(batch).items] == [201, 201]
    assert len(list(client.list_purchases(customer=customer.id))) == 3

    with database.transaction() as session:
        app_id = apps.add_app(session, merchants.require_merchant(session, "City Water"), "Pump", who="t", now=now()).id
    assert [one.id for one in client.list_apps()] == [app_id]
    binding = client.create_binding(app_id, NewBinding(customer=customer.id))
    assert client.get_binding(binding.id) == binding
    assert list(client.list_bindings(customer=customer.id)) == [binding]
    charge = NewAppCharge(app=app_id, customer=customer.id, amount_minor=100, currency="USD")
    with pytest.raises(problems.NotNow):  # she has not signed
        client.create_app_charge(charge)
    assert list(client.list_app_charges(app=app_id)) == []
    with pytest.raises(problems.NotFound):
        client.get_app_charge("0" * 16)
    client.remove_binding(binding.id)
    asked = {(method, re.sub("[0-9a-f]{16}", "{}", path)) for method, path, _ in line.seen}
    assert asked == {(o.method, "/v1" + re.sub(r"{\w+}", "{}", o.path)) for o in OPERATIONS}


def test_lists_go_on_over_pages(client: Client, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST", 3)
    made = [somebody(client, f"c-{n}") for n in range(7)]
    line.seen.clear()
    entries = client.list_customers()
    assert next(entries).id == made[-1]
    assert len(line.seen) == 1  # no page before it is needed
    assert [one.id for one in entries] == made[-2::-1]
    assert len(line.seen) == 3


# --- what goes wrong on the way


def test_a_request_whose_answer_is_lost_is_carried_out_once(
    client: Client, line: Line, database: Database, waits: list[float]
) -> None:
    customer = somebody(client)
    line.seen.clear()
    line.lose = 2
    bill = client.create_bill(NewBill(customer=customer, amount_minor=500, currency="USD"))
    keys = [key for _, _, key in line.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(waits) == 2
    with database.transaction() as session:
        assert session.scalars(select(MerchantBill.id)).all() == [bill.id]
    other = client.create_bill(NewBill(customer=customer, amount_minor=500, currency="USD"))
    assert other.id != bill.id  # the next call is another request


def test_a_request_that_is_never_answered_can_be_found_out_about(client: Client, line: Line) -> None:
    line.lose = api.ATTEMPTS
    new = NewCustomer(reference="c-1", phone="+14155550001")
    with pytest.raises(api.Unanswered) as raised:
        client.create_customer(new)
    assert raised.value.key
    found = client.create_customer(new, key=raised.value.key)
    assert list(client.list_customers()) == [found]


def test_nobody_at_the_address(key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    waits: list[float] = []
    with pytest.raises(api.Unanswered):
        next(Client(f"http://127.0.0.1:{port}", key, sleep=waits.append).list_bills())
    assert len(waits) == api.ATTEMPTS - 1
    assert all(0 < wait <= api.LONGEST_WAIT_S for wait in waits)
    assert waits[-1] > waits[0]


def test_a_lost_answer_to_a_removal_is_no_error(client: Client, line: Line, database: Database, pages: Flask) -> None:
    desk = pages.extensions[EXTENSION]
    settings = desk.services.settings.model_copy(update={"webhooks_to_private": True})
    pages.extensions[EXTENSION] = replace(desk, services=replace(desk.services, settings=settings))
    with database.transaction() as session:
        shop = merchants.require_merchant(session, "City Water")
        session.add(MerchantOrigin(merchant_id=shop.id, origin="https://localhost:8443", created_at=shop.created_at))
    webhook = client.create_webhook(NewWebhook(url="https://localhost:8443/x"))
    line.lose = 1
    client.remove_webhook(webhook.id)
    with pytest.raises(problems.NotFound):
        client.remove_webhook(webhook.id)


def test_too_many_requests_wait_as_long_as_they_are_told(
    server: str, key: str, pages: Flask, redis_client: redis.Redis
) -> None:
    pages.extensions[EXTENSION] = replace(pages.extensions[EXTENSION], limit=RateLimit(redis_client, 6))
    waits: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        redis_client.flushall()  # the window is over

    client = Client(server, key, sleep=sleep)
    for _ in range(3):
        list(client.list_bills())
    assert waits
    assert all(1 <= wait <= 10 and wait == int(wait) for wait in waits)


def test_nobody_waits_an_hour(client: Client, pages: Flask, redis_client: redis.Redis, waits: list[float]) -> None:
    class Full(RateLimit):
        def count(self, whose: str, requests: int = 1) -> Counted:
            return Counted(-1, 3600)

    pages.extensions[EXTENSION] = replace(pages.extensions[EXTENSION], limit=Full(redis_client, 6))
    with pytest.raises(problems.TooMany) as raised:
        list(client.list_bills())
    assert raised.value.headers is not None
    assert raised.value.headers["Retry-After"] == "3600"
    assert waits == []


def test_a_service_that_is_away_is_asked_again_and_then_told(client: Client, pages: Flask, waits: list[float]) -> None:
    class Broken(RateLimit):
        left = 2

        def count(self, whose: str, requests: int = 1) -> Any:
            if Broken.left:
                Broken.left -= 1
                raise redis.ConnectionError("away")
            return working.count(whose, requests)

    desk = pages.extensions[EXTENSION]
    working, broken = desk.limit, Broken.__new__(Broken)
    broken.most = working.most
    pages.extensions[EXTENSION] = replace(desk, limit=broken)
    assert list(client.list_bills()) == []
    assert waits == [1.0, 1.0]
    Broken.left = api.ATTEMPTS
    with pytest.raises(api.Unanswered) as raised:
        list(client.list_bills())
    assert isinstance(raised.value.__cause__, problems.Unavailable)


# --- problems


def test_problems_are_exceptions_of_their_own(client: Client, server: str) -> None:
    with pytest.raises(problems.NotFound, match="no bill"):
        client.get_bill("0" * 16)
    with pytest.raises(problems.NoKey):
        next(Client(server, "pbv_x").list_bills())
    with pytest.raises(problems.Invalid) as raised:
        client.create_customer(NewCustomer(reference="c"))
    assert raised.value.status == 422
    customer = somebody(client)
    bill = client.create_bill(NewBill(customer=customer, amount_minor=1, currency="USD"), key="order-17")
    with pytest.raises(problems.KeyUsed):
        client.create_bill(NewBill(customer=customer, amount_minor=2, currency="USD"), key="order-17")
    client.cancel_bill(bill.id)
    with pytest.raises(problems.NotNow):
        client.ring_bill(bill.id)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        ("418 I'm a teapot", '{"code": "teapot", "detail": "short and stout"}', "teapot"),
        ("500 Internal Server Error", "<html>", "unreadable"),
        ("302 Found", "[]", "unreadable"),
    ],
)
def test_what_the_client_does_not_know_is_a_problem_too(
    client: Client, line: Line, status: str, body: str, code: str
) -> None:
    line.answer = [(status, body)]
    with pytest.raises(problems.Problem) as raised:
        list(client.list_bills())
    assert (raised.value.code, raised.value.status) == (code, int(status[:3]))


def test_what_a_later_service_tells_besides_is_left_out() -> None:
    assert api.Customer.model_validate_json(
        '{"id": "1", "reference": "r", "created_at": "2026-01-01T00:00:00Z", "mood": "good"}', extra="ignore"
    )


def test_the_key_is_in_no_repr_and_no_error(client: Client, key: str, line: Line) -> None:
    line.lose = api.ATTEMPTS
    with pytest.raises(api.Unanswered) as raised:
        somebody(client)
    told = repr(client) + repr(raised.value) + str(raised.value)
    assert key.split("_")[2] not in told


def test_what_opens_something_is_in_no_repr() -> None:
    times: dict[str, Any] = {"created_at": datetime.now(UTC), "expires_at": datetime.now(UTC)}
    charge: dict[str, Any] = {"id": "1", "app": "2", "customer": "3", "amount_minor": 1, "currency": "USD"}
    prompt = api.AskedAppCharge.model_validate(
        {
            **charge, **times, "description": "", "status": "asking", "payment": None, "challenge": "90182736",
            "upload_url": "https://x/voice?token=T0", "stream_url": "wss://x/stream?token=T0",
            "prompt": {"text": "say 9 0 1 8, 2 7 3 6", "audio_url": "https://x/prompt?token=T0"},
        }
    )  # fmt: skip
    made = api.MadeWebhook(id="1", url="https://x", created_at=times["created_at"], secret="whsec_T0")
    card = api.NewCard(customer="0" * 16, token="tok_T0")
    told = repr(prompt) + repr(made) + repr(card)
    assert "asking" in told
    assert not [secret for secret in ("T0", "9018", "9 0 1 8") if secret in told]


def test_a_webhook_is_verified() -> None:
    secret, now, body = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" * 1, datetime.now(UTC), b"{}"
    headers = signed_headers(secret, "msg_1", int(now.timestamp()), body)
    assert api.verify_webhook(secret, headers, body, now) == "msg_1"
    with pytest.raises(api.BadSignature):
        api.verify_webhook(secret, headers, b"{ }", now)


# --- docs/api.md


def test_the_example_of_the_docs_runs(
    server: str, key: str, database: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"## The Python client\n.*?```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    monkeypatch.setenv("PAY_KEY", key)
    with database.transaction() as session:
        person = add_person(session, keyring)
        session.execute(update(CallerId).where(CallerId.customer_id == person.id).values(e164="+15035550123"))
    names: dict[str, Any] = {}
    exec(example.replace("https://pay.example.com", server), names)
    with database.transaction() as session:
        owed = session.scalars(select(Bill).where(Bill.customer_id == person.id)).one()
        assert (owed.id, owed.amount_minor) == (names["bill"].id, 4210)
    assert names["bill"] == names["again"]


# --- by itself


def test_a_merchants_program_loads_nothing_of_the_service() -> None:
    asked = "import sys, ivr.api.client; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", asked], text=True).split())
    assert not loaded & {"torch", "vosk", "numpy", "flask", "sqlalchemy", "redis", "voiceprint"}
