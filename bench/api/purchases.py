"""Purchases end to end: asked for through the API, signed and confirmed on the page, debited at a sandbox bank.

Buyers are processes, each with the whole application; one worker debits at a bank in a process of its own. The time of
a purchase is from its request until it is paid, for which the database is looked at every 50 ms, for asking the API so
often would be most of what is measured; then the API is asked once. What a process does first is not counted. Each
purchase is signed with a PIN (argon2id), so the figure holds what that costs.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from werkzeug.test import TestResponse

from bench.bars import Bars
from bench.faults.processes import end, fork, postgresql, start_bank
from bench.payments import Timed
from ivr import log
from ivr.api import keys
from ivr.app import create_app
from ivr.call.session import CallStore
from ivr.clock import utc_now
from ivr.customers import merchants, pins
from ivr.customers.cards import add_card
from ivr.customers.models import new_id
from ivr.customers.register import add_customer
from ivr.keys import Keyring
from ivr.payments import service, worker
from ivr.payments.banks import connect
from ivr.payments.states import State
from ivr.services import Services
from ivr.settings import Settings
from ivr.speech.pan import luhn_check_digit
from ivr.store import redis as store_redis
from ivr.store.db import Database
from ivr.store.migrations import upgrade

BUYERS = (1, 4, 16)
PIN = "481516"
A_MINUTE = 2000
"""Thousands a minute."""
LOOK_S = 0.05
MOST_WAIT_S = 120.0
BATCH = 200


def measure(options: argparse.Namespace, console: Console, bars: Bars) -> None:
    table = Table("purchases", "a second", "p50 ms", "p99 ms", "n")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ivr-")))
        server = stack.enter_context(postgresql(folder))
        server.psql("CREATE DATABASE purchases")
        url = make_url(server.get_uri(database="purchases")).set(drivername="postgresql+psycopg")
        bank, port = start_bank(folder / "bank", 0)
        stack.callback(bank.wait)
        stack.callback(bank.terminate)
        sqlite = Settings(
            data_dir=folder, digit_model_dir=folder, voice_model_dir=folder, bank_url=f"http://127.0.0.1:{port}",
            public_url="https://pay.example.com", api_requests_a_minute=10_000_000, _env_file=None,
        )  # type: ignore[call-arg]  # fmt: skip
        stack.callback(store_redis.stop, sqlite)
        there = sqlite.model_copy(update={"database_url": url.render_as_string(hide_password=False)})
        for name, settings in (("SQLite", sqlite), ("PostgreSQL", there)):
            key, customers = _people(settings, max(BUYERS))
            with _worker(settings):
                for buyers in BUYERS:
                    timed = _buy(settings, key, customers[:buyers], options.purchases // buyers)
                    row = (f"{timed.rate:.1f}", f"{timed.ms(50):.0f}", f"{timed.ms(99):.0f}", str(len(timed.seconds)))
                    table.add_row(f"end to end, {buyers} buyers, {name}", *row)
            a_minute = 60 * timed.rate
            bar = f"purchases_a_minute_end_to_end_{buyers}_buyers_{name.lower()}"
            bars.add(bar, a_minute >= A_MINUTE, f"{a_minute:.0f}", A_MINUTE, len(timed.seconds))
            batched = _batches(settings, key, customers[0][0], options.batch)
            table.add_row(f"asked for in batches of {BATCH}, {name}", f"{batched.rate:.0f}", "", "", str(options.batch))
            a_minute, bar = 60 * batched.rate, f"purchases_a_minute_in_batches_{name.lower()}"
            bars.add(bar, a_minute >= A_MINUTE, f"{a_minute:.0f}", A_MINUTE, options.batch)
    console.print(table)


def _people(settings: Settings, count: int) -> tuple[str, list[tuple[str, str]]]:
    """A merchant's key, and customers with PIN and card: the merchant's reference and her number, each."""
    database, keyring, bank, now = (
        Database(settings.sqlalchemy_url()),
        Keyring.load(settings),
        connect(settings),
        utc_now(),
    )
    upgrade(database)
    pans = [body + luhn_check_digit(body) for body in (f"42424212345{n:04}" for n in range(count))]
    tokens = [bank.open_account(pan, balance_minor=10**12).token for pan in pans]  # type: ignore[attr-defined]
    found = []
    with database.transaction() as session:
        merchant = merchants.add_merchant(session, "City Water", who="bench", now=now)
        _, key = keys.issue(session, merchant, "bench", keys.SCOPES, who="bench", now=now)
        for pan, token in zip(pans, tokens, strict=True):
            customer = add_customer(session, phones=[], test=True, now=now)
            pins.set_pin(session, customer.id, PIN, keyring, now)
            add_card(
                session, customer.id, pan, exp_year=now.year + 2, exp_month=1, token=token, authorised_by="bench",
                keyring=keyring, now=now,
            )  # fmt: skip
            number = customer.number
            referred = merchants.refer(session, merchant.id, number, phone=None, number=number, now=now)
            found.append((referred.id, number))
    database.engine.dispose()
    return key, found


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    def run() -> None:
        log.configure("CRITICAL")
        worker.run(settings, threading.Event(), channels={})

    process = fork.Process(target=run, daemon=True)
    process.start()
    try:
        yield
    finally:
        end(process)


def _client(settings: Settings) -> FlaskClient:
    """The application of one process; no purchase touches a speech model."""
    calls = CallStore(store_redis.connect(settings), Keyring.load(settings))
    parts: Any = (settings, Database(settings.sqlalchemy_url()), calls, None, None, None)
    app = create_app(settings, Services(*parts))
    log.configure("CRITICAL")  # which the application has set anew
    return app.test_client()


def _buy(settings: Settings, key: str, customers: list[tuple[str, str]], each: int) -> Timed:
    """So many purchases of each customer, all customers at once."""
    pipes = []
    began = time.perf_counter()
    for referred, number in customers:
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_buyer, args=(settings, key, referred, number, each, theirs), daemon=True)
        process.start()
        pipes.append((process, ours))
    for _, ours in pipes:
        ours.recv()  # ready
    began = time.perf_counter()
    for _, ours in pipes:
        ours.send("go")
    seconds = [one for _, ours in pipes for one in ours.recv()]
    elapsed = time.perf_counter() - began
    for process, _ in pipes:
        process.join()
    return Timed(seconds, elapsed)


def _buyer(settings: Settings, key: str, referred: str, number: str, each: int, pipe: Any) -> None:
    log.configure("CRITICAL")
    client = _client(settings)
    database = Database(settings.sqlalchemy_url())
    _purchase(client, database, key, referred, number, each)
    pipe.send("ready")
    pipe.recv()
    timed = Timed()
    for n in range(each):
        timed.call(lambda n=n: _purchase(client, database, key, referred, number, n))  # type: ignore[misc]
    pipe.send(timed.seconds)


def _purchase(client: FlaskClient, database: Database, key: str, referred: str, number: str, n: int) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    body = {"customer": referred, "amount_minor": 100 + n, "currency": "USD", "product_kind": "book"}
    where: dict[str, Any] = {"base_url": "https://pay.example.com"}
    headers["Idempotency-Key"] = new_id()
    made = _until(201, lambda: client.post("/v1/purchases", json=body, headers=headers, **where)).get_json()
    path = made["page_url"].removeprefix("https://pay.example.com")
    # An address of its own: signatures are limited by address.
    where["environ_base"] = {"REMOTE_ADDR": f"10.{int(made['id'][:2], 16)}.{int(made['id'][2:4], 16)}.{n % 250}"}
    token = re.findall(r'csrf_token" value="([^"]+)"', client.get(path, **where).text)[0]
    for form in ({"do": "sign", "number": number, "pin": PIN}, {"do": "confirm"}):
        _until(303, lambda form=form: client.post(path, data={"csrf_token": token, **form}, **where))  # type: ignore[misc]
    deadline = time.monotonic() + MOST_WAIT_S
    while not _is_paid(database, made["id"]):
        assert time.monotonic() < deadline
        time.sleep(LOOK_S)
    assert client.get(f"/v1/purchases/{made['id']}", headers=headers, **where).get_json()["status"] == "paid"


def _is_paid(database: Database, purchase_id: str) -> bool:
    with database.snapshot() as session:
        payment = service.payment_by_key(session, f"purchase:{purchase_id}")
        return payment is not None and payment.state is State.PAID


def _until(status: int, send: Callable[[], TestResponse]) -> TestResponse:
    """The answer; SQLite under many writers has some of them try again, and the time counts."""
    deadline = time.monotonic() + MOST_WAIT_S
    while (given := send()).status_code != status:
        assert given.status_code in (500, 503), given.text
        assert time.monotonic() < deadline
    return given


def _batches(settings: Settings, key: str, referred: str, count: int) -> Timed:
    client, timed = _client(settings), Timed()
    for _ in range(count // BATCH):
        item = {"customer": referred, "amount_minor": 100, "currency": "USD", "product_kind": "book"}
        items = [item | {"idempotency_key": new_id()} for _ in range(BATCH)]
        timed.call(lambda items=items: _batch(client, key, items))  # type: ignore[misc]
    timed.seconds = [timed.elapsed / count] * count
    return timed


def _batch(client: FlaskClient, key: str, items: list[dict[str, Any]]) -> None:
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": new_id()}
    given = client.post("/v1/purchases:batch", json={"items": items}, headers=headers)
    assert [one["status"] for one in given.get_json()["items"]] == [201] * len(items)
