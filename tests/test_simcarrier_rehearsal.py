"""``ivr call`` into a real service: no call is placed that could be about a customer of a live bank."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result
from flask import Flask, Response
from pydantic import SecretStr
from simcarrier_stub import TOKEN, serving
from sqlalchemy import select
from werkzeug.serving import make_server

from ivr.app import create_app
from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.customers.bills import create_bill
from ivr.customers.models import Customer
from ivr.customers.register import add_customer
from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.ops.simcarrier import rehearsal
from ivr.ops.simcarrier.scenario import Scenario, parse
from ivr.services import Services
from ivr.settings import Settings
from ivr.settings import settings as process_settings
from ivr.store.db import Database

TESTER, REAL, NOBODY = "+14155550101", "+14155550102", "+14155550199"
Check = Callable[..., bool]


@pytest.fixture
def customers(database: Database, now: datetime) -> dict[str, Customer]:
    with database.transaction() as session:
        for phone, test in ((TESTER, True), (REAL, False)):
            customer = add_customer(session, phones=[phone], test=test, now=now)
            create_bill(session, customer.id, merchant="Water", amount_minor=4210, currency="USD", now=now)
        found = session.scalars(select(Customer)).all()
        return {TESTER if c.test else REAL: c for c in found}


@pytest.fixture
def bills(database: Database, customers: dict[str, Customer], now: datetime) -> dict[str, str]:
    with database.transaction() as session:
        return {
            phone: create_bill(session, c.id, merchant="Gas", amount_minor=1, currency="USD", now=now).id
            for phone, c in customers.items()
        }


@pytest.fixture
def service(settings: Settings, database: Database, redis_client: redis.Redis, keyring: Keyring) -> Iterator[Flask]:
    """The service on a real server; ``bank`` in its settings is the test's."""
    server = make_server("127.0.0.1", 0, Flask(__name__), threaded=True)
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, None, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    engine = Engine(calls, database, judge, lambda: datetime.now(UTC))

    def serve(**changed: object) -> str:
        url = f"http://127.0.0.1:{server.server_port}"
        token = {"public_url": url, "auth_token": SecretStr(TOKEN)}
        mine = Settings(**{**settings.model_dump(exclude_unset=True), **token, **changed})
        server.app = create_app(mine, Services(mine, database, calls, engine, judge, None))  # type: ignore[arg-type]
        return url

    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield serve  # type: ignore[misc]
    server.shutdown()
    thread.join()
    server.server_close()


LIVE = {"bank": "stripe", "stripe_api_key": SecretStr("sk_live_" + "1" * 24)}


def scenario(phone: str, **table: object) -> Scenario:
    return parse({"name": "A call", "caller": {"from": phone}, **table}, "test")


@pytest.fixture
def check(service: Callable[..., str]) -> Check:
    def check(call: Scenario, *, deployed: bool = True, bank: dict[str, object] | None = None, **values: str) -> bool:
        return rehearsal.check(call, values, service(**(bank or {})), TOKEN, deployed=deployed)

    return check


def test_test_customers_and_strangers_may_be_played(check: Check, customers: dict[str, Customer]) -> None:
    assert check(scenario(TESTER)) is True
    assert check(scenario(NOBODY)) is True
    assert check(scenario(TESTER), bank=LIVE) is False  # nothing of what is said is kept of such a call


@pytest.mark.parametrize(("deployed", "bank"), [(True, {}), (True, LIVE), (False, LIVE)])
def test_a_customer_of_a_live_bank_is_refused_whoever_names_her(
    check: Check, customers: dict[str, Customer], bills: dict[str, str], deployed: bool, bank: dict[str, object]
) -> None:
    number = customers[REAL].number
    named: list[tuple[Scenario, dict[str, str]]] = [
        (scenario(REAL), {}),
        (scenario(NOBODY, end={"customer": number}), {}),
        (scenario("anonymous", turn=[{"keys": f"{number}#"}]), {}),
        (scenario("anonymous", whenever=[{"expect": "card.retry", "keys": "{who}#"}]), {"who": number}),
        (scenario(TESTER, caller={"from": TESTER, "rung": "/voice/bill?bill={bill}"}), {"bill": bills[REAL]}),
    ]
    for call, values in named:
        with pytest.raises(rehearsal.LiveCustomer, match="no call was placed"):
            check(call, deployed=deployed, bank=bank, **values)


def test_the_stage_of_this_machine_has_customers_for_attacks(check: Check, customers: dict[str, Customer]) -> None:
    assert check(scenario(REAL), deployed=False) is True


def test_a_service_that_cannot_say_is_not_called() -> None:
    with serving() as other:
        other.on("/voice/rehearsal", Response(status=404))
        with pytest.raises(rehearsal.ScenarioError, match="no call is placed"):
            rehearsal.check(scenario(TESTER), {}, other.url, TOKEN, deployed=True)
        other.on("/voice/rehearsal", Response("[]", content_type="application/json"))
        with pytest.raises(rehearsal.ScenarioError, match="no call is placed"):
            rehearsal.check(scenario(TESTER), {}, other.url, TOKEN, deployed=True)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setenv("IVR_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("IVR_ACCOUNT_SID", "AC" + "1" * 32)
    process_settings.cache_clear()

    def run(url: str, *phones: str) -> Result:
        files = []
        for phone in phones:
            files.append(tmp_path / f"{phone[1:]}.toml")
            files[-1].write_text(f'name = "{phone}"\n[caller]\nfrom = "{phone}"\n')
        return CliRunner().invoke(main, ["call", *map(str, files), "--url", url, "--speed", "200"])

    yield run
    process_settings.cache_clear()


def test_the_command_asks_about_all_calls_before_the_first(
    call: Callable[..., Result], service: Callable[..., str], customers: dict[str, Customer], redis_client: redis.Redis
) -> None:
    result = call(service(), TESTER, REAL)
    assert result.exit_code == 2
    assert f"{REAL}: the call could be about a customer who was not added with" in result.output
    assert redis_client.keys("call:*") == []
