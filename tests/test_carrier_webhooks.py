"""The carrier's requests: who may make them, and that each counts once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from redis.connection import AbstractConnection
from twilio.request_validator import RequestValidator
from werkzeug.test import TestResponse

from ivr.app import create_app
from ivr.call.engine import Engine
from ivr.call.flow import Event
from ivr.call.judging import Judge
from ivr.call.session import CallStore, Outcome
from ivr.customers.bills import create_bill
from ivr.customers.models import Customer
from ivr.customers.register import add_customer
from ivr.keys import Keyring
from ivr.services import Services
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.store.redis import connect

SID = "CA" + "1" * 32
CALLER = "+14155550101"
Post = Callable[..., TestResponse]


@pytest.fixture
def services(settings: Settings, database: Database, redis_client: redis.Redis, keyring: Keyring) -> Iterator[Services]:
    """Everything but the speech models, which no webhook touches."""
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, None, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    engine = Engine(calls, database, judge, lambda: datetime.now(UTC))
    return Services(settings, database, calls, engine, judge, None)  # type: ignore[arg-type]


@pytest.fixture
def app(settings: Settings, services: Services) -> Flask:
    return create_app(settings, services)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def post(client: FlaskClient, settings: Settings) -> Post:
    """A request signed as the carrier signs it."""

    def post(path: str, **form: Any) -> TestResponse:
        form = {"CallSid": SID, "From": CALLER, **form}
        url = f"{settings.public_url}{path}"
        signature = RequestValidator(settings.auth_token.get_secret_value()).compute_signature(url, form)
        return client.post(path, data=form, headers={"X-Twilio-Signature": signature})

    return post


def test_the_carriers_own_golden_vector_is_accepted(app: Flask, settings: Settings) -> None:
    from flask import request

    from ivr.carrier.signature import is_from_carrier

    form = {
        "CallSid": "CA1234567890ABCDE",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
        "Caller": "+14158675309",
    }
    mine = settings.model_copy(update={"public_url": "https://mycompany.com"})
    for signature, genuine in (("RSOYDt4T1cUTdK1PDd93/VVr8B8=", True), ("RSOYDt4T1cUTdK1PDd93/VVr8B9=", False)):
        with app.test_request_context(
            "/myapp.php?foo=1&bar=2", method="POST", data=form, headers={"X-Twilio-Signature": signature}
        ):
            assert is_from_carrier(request, mine) is genuine


@pytest.mark.parametrize(
    "path",
    ["/voice/answer", "/voice/turn/1", "/voice/turn/1/key", "/voice/status", "/voice/fallback", "/voice/rehearsal"],
)
@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": ""}, {"X-Twilio-Signature": "bm90IGl0"}])
def test_without_the_carriers_signature_nothing_happens(
    client: FlaskClient, redis_client: redis.Redis, path: str, headers: dict[str, str]
) -> None:
    answer = client.post(path, data={"CallSid": SID, "From": CALLER}, headers=headers)
    assert answer.status_code == 403
    assert redis_client.keys() == []


def test_without_a_configured_token_nobody_is_the_carrier(services: Services, settings: Settings) -> None:
    from pydantic import SecretStr

    bare = settings.model_copy(update={"auth_token": SecretStr("")})
    bare_services = Services(bare, *[getattr(services, f) for f in ("database", "calls", "engine", "judge", "digits")])
    url = f"{bare.public_url}/voice/answer"
    signature = RequestValidator("").compute_signature(url, {"CallSid": SID})
    client = create_app(bare, bare_services).test_client()
    assert (
        client.post("/voice/answer", data={"CallSid": SID}, headers={"X-Twilio-Signature": signature}).status_code
        == 403
    )


def test_a_call_is_answered_with_one_listening_turn_over_a_stream(post: Post) -> None:
    answer = post("/voice/answer")
    assert answer.status_code == 200
    text = answer.get_data(as_text=True)
    assert '<Connect action="https://pay.example.com/voice/turn/1">' in text
    assert '<Stream url="wss://pay.example.com/voice/stream">' in text
    assert re.search(r'<Parameter name="token" value="[0-9a-f]{64}"', text)


@pytest.mark.parametrize("caller", [CALLER, "+33142685300", "anonymous", "+266696687", "Restricted", "", None])
def test_known_unknown_foreign_and_withheld_numbers_hear_the_same(
    post: Post, database: Database, now: datetime, caller: str | None
) -> None:
    with database.transaction() as session:
        add_customer(session, phones=[CALLER], now=now)
    ask = re.sub(r'value="[0-9a-f]{64}"', "", post("/voice/answer", From=CALLER).get_data(as_text=True))
    form = {"From": caller} if caller is not None else {}
    other = post("/voice/answer", CallSid="CA" + "2" * 32, **form).get_data(as_text=True)
    assert re.sub(r'value="[0-9a-f]{64}"', "", other) == ask


def test_a_repeated_ring_is_the_same_call(post: Post) -> None:
    assert post("/voice/answer").get_data() == post("/voice/answer").get_data()


def test_every_step_answers_repeats_with_its_first_answer(post: Post, services: Services) -> None:
    post("/voice/answer")
    first = post("/voice/turn/1").get_data()  # the stream never came: asked again
    at = services.calls.load(SID)
    assert at
    assert at[0] == 2
    services.calls.put_outcome(2, Outcome(Event.CANCEL, at[1]))
    over = post("/voice/turn/2").get_data(as_text=True)
    assert "Nothing has been paid" in over
    assert post("/voice/turn/1").get_data() == first
    assert post("/voice/turn/2").get_data(as_text=True) == over
    assert services.calls.load(SID)[0] == 3  # type: ignore[index]


@pytest.mark.parametrize("path", ["/voice/turn/1", "/voice/turn/7", "/voice/turn/1/key"])
def test_a_call_that_never_rang_here_gets_an_apology(post: Post, path: str) -> None:
    answer = post(path, Digits="1")
    assert "something went wrong on our side" in answer.get_data(as_text=True)


def test_a_turn_still_being_judged_is_waited_for_without_blocking(post: Post, services: Services) -> None:
    post("/voice/answer")
    assert services.calls.open_stream(SID, 1, services.calls.stream_token(SID, 1))
    waiting = post("/voice/turn/1").get_data(as_text=True)
    assert "<Pause" in waiting
    assert "/voice/turn/1?waited=1</Redirect>" in waiting
    last = post("/voice/turn/1?waited=5").get_data(as_text=True)
    assert "<Stream" in last  # given up: asked again


def test_a_stream_is_opened_once_also_when_redis_answer_is_lost(
    post: Post, settings: Settings, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    post("/voice/answer")
    calls = CallStore(connect(settings), keyring)
    token = calls.stream_token(SID, 1)
    reads, read = 0, AbstractConnection.read_response

    def losing(connection: AbstractConnection, *given: Any, **named: Any) -> Any:
        nonlocal reads
        reads += 1
        answer = read(connection, *given, **named)
        if reads == 2:  # that of opening it, after that of looking the call up
            connection.disconnect()
            raise redis.ConnectionError("lost")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "read_response", losing)
        assert calls.open_stream(SID, 1, token)
    assert reads > 2
    assert not calls.open_stream(SID, 1, token)


@pytest.mark.parametrize("digits", ["4539148803436467", "123456", "123"])
def test_a_form_that_may_hold_a_card_number_is_refused(post: Post, digits: str) -> None:
    post("/voice/answer")
    assert post("/voice/turn/1/key", Digits=digits).status_code == 400


@pytest.mark.parametrize("sid", ["", "CA 1", "{CA1}", "x" * 65])
def test_a_call_id_that_is_none_is_refused(post: Post, sid: str) -> None:
    assert post("/voice/answer", CallSid=sid).status_code == 400


def test_star_ends_and_zero_dials_the_agent(post: Post, services: Services, settings: Settings) -> None:
    post("/voice/answer")
    assert "Nothing has been paid" in post("/voice/turn/1/key", Digits="*").get_data(as_text=True)
    other = "CA" + "3" * 32
    post("/voice/answer", CallSid=other)
    assert "no agent is available" in post("/voice/turn/1/key", CallSid=other, Digits="0").get_data(as_text=True)


def test_one_key_chooses_a_bill_and_one_confirms(post: Post, services: Services, database: Database) -> None:
    call = _accepted_by_keypad(post, services, database)
    services.calls.put_outcome(1, call)
    choose = post("/voice/turn/1").get_data(as_text=True)
    assert "Number 1: Books, 12 US dollars. Number 2: Tea, 3 US dollars 50." in choose
    confirm = post("/voice/turn/2/key", Digits="2").get_data(as_text=True)
    assert "To pay 3 US dollars 50 with the card ending 6 4 6 7, press 1." in confirm
    assert post("/voice/turn/2/key", Digits="1").get_data(as_text=True) == confirm  # a late repeat changes nothing


def _accepted_by_keypad(post: Post, services: Services, database: Database) -> Outcome:
    """As if card and PIN had been keyed: the state after them, with two bills."""
    from dataclasses import replace

    from ivr.call.flow import State

    now = datetime.now(UTC)
    with database.transaction() as session:
        customer: Customer = add_customer(session, phones=[CALLER], now=now)
        bills = [
            create_bill(session, customer.id, merchant=merchant, amount_minor=amount, currency="USD", now=now)
            for merchant, amount in (("Books", 1200), ("Tea", 350))
        ]
    post("/voice/answer")
    at = services.calls.load(SID)
    assert at
    facts = tuple(
        {"id": b.id, "merchant": b.merchant, "amount_minor": b.amount_minor, "currency": b.currency} for b in bills
    )
    call = replace(at[1], state=State.PIN, customer_id=customer.id, card_id="x", last4="6467", bills=facts)
    return Outcome(Event.SEVERAL_BILLS, call)
