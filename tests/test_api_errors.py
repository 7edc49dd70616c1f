"""Every error that the description of an operation names, provoked by a request, and none besides; and what a merchant
is answered about all that is another's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from api_support import BASE_URL, Program, now, program
from flask import Flask
from people_support import add_person, pay
from purchases_support import refer_to
from redis.backoff import NoBackoff
from redis.retry import Retry
from werkzeug.test import TestResponse

from ivr.api import keys
from ivr.api.limits import RateLimit
from ivr.api.operations import EXTENSION, OPERATIONS, Operation
from ivr.api.problems import Problem
from ivr.customers import apps
from ivr.customers.apps import AppCharge, ChargeStatus
from ivr.customers.merchants import Merchant
from ivr.customers.models import new_id
from ivr.keys import Keyring
from ivr.payments.models import Payment, Refund, RefundState
from ivr.store.db import Database
from ivr.webhooks.register import add_endpoint

pytest_plugins = ["people_fixtures"]

DOC = Path(__file__).parent.parent / "docs" / "api.md"
NOBODY = "0" * 16

Seen = tuple[str, int, str]  # operation, status, code


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """One kind is enough here: what the operations do is tested on both elsewhere."""
    path = tmp_path / "ivr.sqlite3"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.engine.dispose()


@dataclass
class World:
    """A merchant with a customer, an app that nobody bound, a payment under way and a cancelled bill."""

    pages: Flask
    redis: redis.Redis
    shop: Program
    poor: dict[str, str]  # by scope, a key that has all others
    customer: str
    app: str
    payment: str
    bill: str

    def ask(
        self,
        op: Operation,
        *,
        key: str = "",
        once: str | None = None,
        data: bytes | None = None,
        media_type: str = "application/json",
        ids: dict[str, str] | None = None,
        query: str = "",
        **fields: Any,
    ) -> TestResponse:
        """A request that is right but for what is given."""
        path = op.path.format_map({name: (ids or {}).get(name, NOBODY) for name in op.parameters})
        headers = {"Authorization": f"Bearer {key or self.shop.key}"}
        sent: dict[str, Any] = {}
        if op.method == "POST":
            headers["Idempotency-Key"] = new_id() if once is None else once
            body = self.body(op) | fields
            sent = {"json": body} if data is None else {"data": data, "content_type": media_type}
        where = f"/v1{path}{query}"
        return self.shop.client.open(where, method=op.method, headers=headers, base_url=BASE_URL, **sent)

    @property
    def bought(self) -> dict[str, Any]:
        return {"customer": self.customer, "amount_minor": 1, "currency": "USD", "product_kind": "book"}

    def body(self, op: Operation) -> dict[str, Any]:
        of_her, bought = {"customer": self.customer}, self.bought
        bodies: dict[str, dict[str, Any]] = {
            "create_customer": {"reference": "c-1", "phone": "+14155550001"},
            "request_card": of_her,
            "propose_text": {"text": "Water of the quarter"},
            "create_bill": {**of_her, "amount_minor": 1, "currency": "USD"},
            "create_refund": {"payment": self.payment},
            "create_purchase": bought,
            "create_purchases": {"items": [{**bought, "idempotency_key": new_id()}]},
            "create_webhook": {"url": "https://shop.example/hooks"},
            "create_binding": of_her,
            "create_app_charge": {**of_her, "app": self.app, "amount_minor": 1, "currency": "USD"},
        }
        return bodies.get(op.name, {})

    @contextmanager
    def limited_by(self, limit: RateLimit) -> Iterator[None]:
        desk = self.pages.extensions[EXTENSION]
        self.pages.extensions[EXTENSION] = replace(desk, limit=limit)
        yield
        self.pages.extensions[EXTENSION] = desk


@pytest.fixture
def world(pages: Flask, database: Database, keyring: Keyring, redis_client: redis.Redis) -> World:
    shop = program(pages.test_client(), database)
    poor = {}
    with database.transaction() as session:
        person = add_person(session, keyring)
        merchant = session.get_one(Merchant, shop.merchant_id)
        for scope in keys.SCOPES:
            others = [one for one in keys.SCOPES if one != scope]
            _, poor[scope] = keys.issue(session, merchant, "poor", others, who="test", now=now())
        app = apps.add_app(session, merchant, "Pump", who="test", now=now()).id
    customer = refer_to(shop, person, "hers")
    paid, cancelled = (
        shop.made("/bills", {"customer": customer, "amount_minor": 900, "currency": "USD"})["id"] for _ in range(2)
    )
    shop.made(f"/bills/{cancelled}/cancel")
    with database.transaction() as session:
        payment = session.get_one(Payment, pay(session, person, 900))
        payment.bill_id = paid
    return World(pages, redis_client, shop, poor, customer, app, payment.id, cancelled)


# --- what provokes which error, and where


def too_many(world: World, op: Operation) -> TestResponse:
    with world.limited_by(RateLimit(world.redis, 6)):  # one in ten seconds
        world.ask(op)
        return world.ask(op)


def unavailable(world: World, op: Operation) -> TestResponse:
    nowhere = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    with world.limited_by(RateLimit(nowhere, 6)):
        return world.ask(op)


def used_key(world: World, op: Operation) -> TestResponse:
    key = new_id()
    world.shop.made("/customers", {"reference": key, "phone": "+14155550002"}, key=key)
    return world.ask(op, once=key)


Provoke = Callable[[World, Operation], TestResponse]
EVERYWHERE: dict[str, Provoke] = {
    "no_valid_key": lambda world, op: world.ask(op, key="pbv_made_up"),
    "no_scope": lambda world, op: world.ask(op, key=world.poor[op.scope]),
    "too_many_requests": too_many,
    "unavailable": unavailable,
}
WITH_QUERY: dict[str, Provoke] = {"invalid": lambda world, op: world.ask(op, query="?limit=0")}
POSTED: dict[str, Provoke] = {
    "invalid": lambda world, op: world.ask(op, once=""),
    "idempotency_key_used": used_key,
}
WITH_BODY: dict[str, Provoke] = {
    "invalid": lambda world, op: world.ask(op, more=1),
    "bad_request": lambda world, op: world.ask(op, data=b"{"),
    "too_long": lambda world, op: world.ask(op, data=b" " * (op.longest + 1)),
    "wrong_media_type": lambda world, op: world.ask(op, data=b"{}", media_type="text/plain"),
}
WITH_PARAMETER: dict[str, Provoke] = {"not_found": lambda world, op: world.ask(op)}
OWN: dict[str, dict[str, Provoke]] = {
    "create_customer": {"conflict": lambda world, op: world.ask(op, reference="hers")},
    "request_card": {"not_found": lambda world, op: world.ask(op, customer=NOBODY)},
    "create_bill": {"not_found": lambda world, op: world.ask(op, customer=NOBODY)},
    "cancel_bill": {"conflict": lambda world, op: world.ask(op, ids={"bill_id": world.bill})},
    "ring_bill": {"conflict": lambda world, op: world.ask(op, ids={"bill_id": world.bill})},
    "post_payment": {"conflict": lambda world, op: world.ask(op, ids={"payment_id": world.payment})},
    "release_payment": {"conflict": lambda world, op: world.ask(op, ids={"payment_id": world.payment})},
    "create_refund": {
        "not_found": lambda world, op: world.ask(op, payment=NOBODY),
        "conflict": lambda world, op: world.ask(op),
    },
    "create_purchase": {"not_found": lambda world, op: world.ask(op, customer=NOBODY)},
    "create_binding": {"not_found": lambda world, op: world.ask(op, ids={"app_id": world.app}, customer=NOBODY)},
    "create_app_charge": {
        "not_found": lambda world, op: world.ask(op, app=NOBODY),
        "conflict": lambda world, op: world.ask(op),
    },
}


def cases(op: Operation) -> Iterator[tuple[str, Provoke]]:
    yield from EVERYWHERE.items()
    if op.method == "GET" and op.sent:
        yield from WITH_QUERY.items()
    if op.method == "POST":
        yield from POSTED.items()
    if op.writes and op.sent:
        yield from WITH_BODY.items()
    if op.parameters:
        yield from WITH_PARAMETER.items()
    yield from OWN.get(op.name, {}).items()


def described(world: World) -> set[Seen]:
    """Without what apps do at a charge's own addresses, which needs models: see test_api_app_charges."""
    document = world.shop.client.get("/v1/openapi.json").get_json()
    by_key = {op.name for op in OPERATIONS}
    return {
        (op["operationId"], int(status), code)
        for path in document["paths"].values()
        for op in path.values()
        if op["operationId"] in by_key
        for status, response in op["responses"].items()
        if "application/problem+json" in response.get("content", {})
        for code in re.findall(r"\(`(\w+)`\)", response["description"])
    }


def test_every_error_that_is_described_is_seen_and_no_other(world: World) -> None:
    seen = set()
    for op in OPERATIONS:
        for code, provoke in cases(op):
            given = provoke(world, op)
            assert given.mimetype == "application/problem+json", (op.name, code, given.text)
            problem = given.get_json()
            assert (problem["code"], problem["status"]) == (code, given.status_code), (op.name, given.text)
            assert problem["type"] == f"urn:pay-by-voice:problem:{code}"
            assert given.headers["Cache-Control"] == "no-store"
            assert ("Retry-After" in given.headers) == (given.status_code in (429, 503)), op.name
            seen.add((op.name, given.status_code, code))
    named = described(world)
    assert not named - seen, "described, but no case here provokes it"
    assert not seen - named, "it happens, but is not described"


# --- another merchant's key


def everything_of(world: World, database: Database, keyring: Keyring) -> dict[str, str]:
    """An id of each kind that a path can name, all of the world's merchant."""
    made = {
        "card_id": world.shop.made("/cards", {"customer": world.customer}),
        "text_id": world.shop.made("/texts", {"text": "Water of the quarter"}),
        "purchase_id": world.shop.made("/purchases", world.bought),
        "binding_id": world.shop.made(f"/apps/{world.app}/bindings", {"customer": world.customer}),
    }
    ids = {name: str(document["id"]) for name, document in made.items()}
    with database.transaction() as session:
        name, url = session.get_one(Merchant, world.shop.merchant_id).name, "https://localhost:8443/x"
        webhook = add_endpoint(session, keyring, merchant=name, url=url, now=now(), allow_private=True)
        charge = AppCharge(
            id=new_id(), app_id=world.app, binding_id=ids["binding_id"], amount_minor=1, currency="USD",
            description="", by_voice=True, status=ChargeStatus.DECLINED, created_at=now(), expires_at=now(),
        )  # fmt: skip
        refund = Refund(
            id=new_id(), payment_id=world.payment, amount_minor=1, state=RefundState.REFUSED, bank_key=new_id(),
            why="test", created_at=now(), updated_at=now(),
        )  # fmt: skip
        session.add_all([charge, refund])
    ids |= {"customer_id": world.customer, "bill_id": world.bill, "payment_id": world.payment, "app_id": world.app}
    return ids | {"webhook_id": webhook.id, "charge_id": charge.id, "refund_id": refund.id}


def test_one_merchant_sees_and_does_nothing_with_what_is_anothers(
    world: World, database: Database, keyring: Keyring
) -> None:
    ids = everything_of(world, database, keyring)
    other = program(world.shop.client, database, "Other Shop")
    reads = [op for op in OPERATIONS if op.method == "GET"]
    before = [world.ask(op, ids=ids) for op in reads]
    assert {given.status_code for given in before} == {200}
    assert all(given.get_json().get("data") != [] for given in before)
    for op in sorted(OPERATIONS, key=lambda one: one.writes):
        given = world.ask(op, ids=ids, key=other.key)
        if op.method == "GET" and not op.parameters:
            assert given.get_json() == {"data": [], "next": None}
            if "customer" in op.sent.model_fields:  # type: ignore[union-attr]
                of_her = world.ask(op, key=other.key, query=f"?customer={world.customer}")
                assert of_her.get_json() == {"data": [], "next": None}
        elif op.name == "create_purchases":
            assert [one["status"] for one in given.get_json()["items"]] == [404]
        elif op.name not in ("create_customer", "propose_text", "create_webhook"):  # which name nothing of anybody
            assert (given.status_code, given.get_json()["code"]) == (404, "not_found"), op.name
    assert [world.ask(op, ids=ids).data for op in reads] == [given.data for given in before]


def test_the_table_of_the_docs_has_every_problem() -> None:
    table = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOC.read_text(), re.MULTILINE)
    ours = {(str(one.status), one.code) for one in Problem.__subclasses__() if hasattr(one, "code")}
    assert set(table) == ours
