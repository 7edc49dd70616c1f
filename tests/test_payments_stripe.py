"""Debits at Stripe's stand-in: what is lost, killed, refused, linked and told by events."""

from __future__ import annotations

import hashlib
import hmac
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe
from flask import Flask
from payments_support import add_payer, confirm, history, make_due, status
from sqlalchemy import delete, select
from stripe_fixtures import API_KEY, DECLINED, NEEDS_CUSTOMER, RETURN_URL, WEBHOOK_SECRET, StripeStandIn
from werkzeug.serving import make_server

from ivr.api import stripe_events
from ivr.api.stripe_events import BadEvent, read
from ivr.call.engine import _FAILURES, Engine
from ivr.call.flow import Call
from ivr.call.flow import Event as CallEvent
from ivr.customers.models import Card, Contact, Notice
from ivr.jobs import Job
from ivr.payments import verify, worker
from ivr.payments.bank import Authorised, Bank, CurrencyNotSupported, Declined, DeclineReason, Linked, StatementLine
from ivr.payments.banks import connect
from ivr.payments.debit import KEY_LIFE, LINK_LIFE, PATIENT_ATTEMPTS
from ivr.payments.models import Payment
from ivr.payments.stripe_bank import StripeBank
from ivr.payments.stripe_declines import REASONS, reason
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["stripe_fixtures"]

PAID = ["created", "debiting", "authorised", "paid"]


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """SQLite alone: what is tested here lies between the worker and Stripe."""
    path = tmp_path / "ivr.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    found = Database(f"sqlite:///{path}")
    yield found
    found.engine.dispose()


@pytest.fixture
def pay(database: Database, stripe_standin: StripeStandIn) -> Callable[..., Payment]:
    """A confirmed payment of 42.10; no worker has seen it."""

    def pay(pan: str = "4242424242424242") -> Payment:
        with database.transaction() as session:
            return confirm(session, add_payer(session, stripe_standin.token(pan)), bank="stripe")

    return pay


def work(settings: Settings, database: Database, times: int = 1) -> None:
    for _ in range(times):
        make_due(database)
        worker.run(settings, threading.Event(), once=True)


def job(database: Database) -> Job:
    with database.transaction() as session:
        return session.scalars(select(Job).where(Job.kind == "payment.debit")).one()


def notices(database: Database) -> list[tuple[str, dict[str, Any]]]:
    with database.transaction() as session:
        return [(notice.template, notice.values) for notice in session.scalars(select(Notice))]


def _paid_once(database: Database, standin: StripeStandIn, payment: Payment) -> None:
    assert history(database, payment.id) == PAID
    assert status(database, payment.id) == ("paid", "paid")
    assert standin.lines(payment.id) == [StatementLine(payment.id, "debit", 4210, "USD")]
    assert len(standin.intents(payment.id)) == 1


def _debited_nothing(standin: StripeStandIn, payment: Payment) -> None:
    assert standin.lines(payment.id) == []
    assert {intent["status"] for intent in standin.intents(payment.id)} <= {"canceled", "requires_payment_method"}


def test_a_debit_is_captured_once(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay()
    work(stripe_settings, database, times=2)
    _paid_once(database, stripe_standin, payment)
    with database.transaction() as session:
        assert list(verify.problems(session, "stripe", stripe_standin.lines(payment.id))) == []


def test_what_stripe_holds_needs_nobody_until_it_lets_go_and_then_ends_voided(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay()
    with database.transaction() as session:
        session.get_one(Payment, payment.id).hold_only = True
    work(stripe_settings, database)
    with database.transaction() as session:
        held = session.get_one(Payment, payment.id)
        assert held.hold_expires_at is not None
        assert timedelta(days=6) < held.hold_expires_at - datetime.now(UTC) <= timedelta(days=7)
        assert verify.stuck(session, datetime.now(UTC) + timedelta(days=6)) == []
        held.hold_expires_at = datetime.now(UTC)
    with database.transaction() as session:
        for waiting in session.scalars(select(Job).where(Job.done_at.is_(None))):
            waiting.run_at = datetime.now(UTC)
    work(stripe_settings, database)
    assert history(database, payment.id) == ["created", "debiting", "held", "voiding", "voided"]
    _debited_nothing(stripe_standin, payment)


class DeadlyStripe(StripeBank):
    """The connector in a worker that is killed (kill -9) before or after one of its requests."""

    def __init__(self, moment: str, url: str) -> None:
        super().__init__(API_KEY, return_url=RETURN_URL, url=url)
        self._moment = moment

    def authorise(self, *arguments: Any, **named: Any) -> Any:
        return self._between("authorise", lambda: super(DeadlyStripe, self).authorise(*arguments, **named))

    def capture(self, *arguments: Any, **named: Any) -> Any:
        return self._between("capture", lambda: super(DeadlyStripe, self).capture(*arguments, **named))

    def _between(self, name: str, ask: Callable[[], Any]) -> Any:
        self._die(f"before {name}")
        answer = ask()
        self._die(f"after {name}")
        return answer

    def _die(self, moment: str) -> None:
        if moment == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def _killed(settings: Settings, bank: Bank | None, when: Callable[[], bool] | None = None) -> None:
    """A worker of its own process that dies, by itself or as soon as ``when`` is true."""
    process = multiprocessing.get_context("fork").Process(
        target=worker.run,
        args=(settings, threading.Event()),
        kwargs={"once": True, "lease": timedelta(0), "bank": bank},
    )
    process.start()
    if when:
        _wait_until(when)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["before authorise", "after authorise", "before capture", "after capture"])
def test_a_worker_killed_before_the_send_or_before_the_record_is_followed_by_one_that_finishes(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    moment: str,
) -> None:
    payment = pay()
    _killed(stripe_settings, DeadlyStripe(moment, stripe_standin.url))
    assert status(database, payment.id)[0] == ("debiting" if "authorise" in moment else "authorised")
    work(stripe_settings, database)
    _paid_once(database, stripe_standin, payment)


@pytest.mark.parametrize(("operation", "done"), [("create", "requires_capture"), ("capture", "succeeded")])
def test_a_worker_killed_after_the_send_is_followed_by_one_that_finishes(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    operation: str,
    done: str,
) -> None:
    payment = pay()
    stripe_standin.control(answer_delay_ms=500)
    _killed(
        stripe_settings,
        None,
        when=lambda: [intent["status"] for intent in stripe_standin.intents(payment.id)] == [done],
    )
    stripe_standin.control()
    work(stripe_settings, database)
    _paid_once(database, stripe_standin, payment)


@pytest.mark.parametrize("fault", ["refuse", "lose"])
@pytest.mark.parametrize("operation", ["create", "capture"])
def test_an_answer_that_is_lost_is_asked_for_again(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    fault: str,
    operation: str,
) -> None:
    payment = pay()
    stripe_standin.control(**{fault: {operation: 2}})
    work(stripe_settings, database, times=3)
    _paid_once(database, stripe_standin, payment)


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_failure_that_stripe_repeats_under_the_key_ends_in_a_void(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    done: bool,
) -> None:
    payment = pay()
    stripe_standin.control(**{"break" if done else "fail": {"create": 1}})
    work(stripe_settings, database, times=PATIENT_ATTEMPTS + 1)
    # What Stripe did although it failed is found in its list. Had it done nothing, nobody could know it yet.
    assert status(database, payment.id) == ("voided" if done else "unknown", "open")
    _debited_nothing(stripe_standin, payment)
    if not done:
        stripe_standin.control(key_life_s=0)  # a day later Stripe has forgotten the key ...
        _grow_old(database, payment)
        work(stripe_settings, database)
        assert job(database).last_error_type == "KeyLifeOver"  # ... and it is not used again
        assert stripe_standin.intents(payment.id) == []
        with database.transaction() as session:
            [stuck] = verify.stuck(session, datetime.now(UTC))
        assert stuck[:4] == (payment.id, None, "unknown", "KeyLifeOver")


def test_a_capture_under_whose_key_stripe_repeats_a_failure_is_found_to_be_paid(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay()
    stripe_standin.control(**{"break": {"capture": 1}})
    work(stripe_settings, database)
    _paid_once(database, stripe_standin, payment)


def test_a_debit_whose_keys_are_too_old_is_recovered_from_the_list_and_not_sent_again(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay()
    stripe_standin.control(lose={"create": 1})
    work(stripe_settings, database)
    sent = stripe_standin.seen("create")
    stripe_standin.control(key_life_s=0)
    _grow_old(database, payment)
    work(stripe_settings, database)
    assert history(database, payment.id) == ["created", "debiting", "unknown", "voided"]
    assert stripe_standin.seen("create") == sent
    _debited_nothing(stripe_standin, payment)


def test_a_setting_that_changed_before_the_request_was_repeated_ends_in_a_void(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay()
    stripe_standin.control(lose={"create": 1})
    work(stripe_settings, database)
    moved = stripe_settings.model_copy(update={"public_url": "https://new.example.com"})  # part of the request
    work(moved, database, times=PATIENT_ATTEMPTS)
    assert status(database, payment.id) == ("voided", "open")
    _debited_nothing(stripe_standin, payment)


def _grow_old(database: Database, payment: Payment) -> None:
    with database.transaction() as session:
        session.get_one(Payment, payment.id).created_at -= KEY_LIFE


def test_a_refund_is_made_once_although_stripe_fails_after_making_it(stripe_standin: StripeStandIn) -> None:
    bank, reference = stripe_standin.bank(), f"payment-{time.time_ns()}"
    found = bank.authorise(stripe_standin.token(), 500, "USD", key=reference, reference=reference)
    assert isinstance(found, Authorised)
    bank.capture(found.reference, key=f"{reference}-capture")
    stripe_standin.control(**{"break": {"refund": 1}})
    bank.refund(found.reference, 200, key=f"{reference}-refund")
    bank.refund(found.reference, 200, key=f"{reference}-refund")
    assert sorted((line.kind, line.amount_minor) for line in stripe_standin.lines(reference)) == [
        ("debit", 500),
        ("refund", 200),
    ]


# Declines, set-up


def test_a_decline_leaves_the_bill_open_and_its_reason_with_the_payment(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    stripe_standin.control(decline_code="insufficient_funds")
    payment = pay(DECLINED)
    work(stripe_settings, database)
    assert status(database, payment.id) == ("refused", "open")
    with database.transaction() as session:
        assert session.get_one(Payment, payment.id).decline_reason == "insufficient_funds"
    _debited_nothing(stripe_standin, payment)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("insufficient_funds", DeclineReason.INSUFFICIENT_FUNDS),
        ("withdrawal_count_limit_exceeded", DeclineReason.INSUFFICIENT_FUNDS),
        ("expired_card", DeclineReason.EXPIRED),
        ("issuer_not_available", DeclineReason.UNAVAILABLE),
        ("try_again_later", DeclineReason.UNAVAILABLE),
        ("authentication_required", DeclineReason.AUTHENTICATION_REQUIRED),
        ("do_not_honor", DeclineReason.OTHER),
        ("a_code_of_next_year", DeclineReason.OTHER),
        (None, DeclineReason.OTHER),
    ],
)
def test_decline_codes_become_few_reasons(code: str | None, expected: DeclineReason) -> None:
    assert reason(code) is expected


@pytest.mark.parametrize(
    "code",
    ["fraudulent", "lost_card", "merchant_blacklist", "pickup_card", "restricted_card", "stolen_card"],
)
def test_a_caller_is_not_told_what_points_to_fraud(code: str) -> None:
    assert code in REASONS
    assert reason(code) not in _FAILURES


def test_a_missing_permission_for_telephone_orders_needs_a_person_who_is_told_so(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    stripe_standin.control(telephone_orders=False)
    payment = pay()
    work(stripe_settings, database)
    assert status(database, payment.id) == ("debiting", "open")
    with database.transaction() as session:
        [stuck] = verify.stuck(session, datetime.now(UTC))
    assert (stuck.payment_id, stuck.why) == (payment.id, "TelephoneOrdersNotEnabled")
    assert stripe_standin.intents(payment.id) == []


def test_what_was_not_ordered_by_telephone_is_not_said_to_be(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    stripe_standin.control(telephone_orders=False)
    payment = pay()
    with database.transaction() as session:
        session.get_one(Payment, payment.id).call_sid = "purchase:0123456789abcdef"
    work(stripe_settings, database)
    assert status(database, payment.id) == ("paid", "paid")


@pytest.mark.parametrize("currency", ["ISK", "UGX"])
def test_a_currency_that_stripe_counts_otherwise_is_never_sent(stripe_standin: StripeStandIn, currency: str) -> None:
    sent = stripe_standin.seen("create")
    with pytest.raises(CurrencyNotSupported):
        stripe_standin.bank().authorise("cus_1/pm_1", 100, currency, key="k", reference="r")
    assert stripe_standin.seen("create") == sent


def test_a_test_key_means_play_money(stripe_settings: Settings) -> None:
    for key, play in (("sk_test_1", True), ("rk_test_1", True), ("sk_live_1", False), ("rk_live_1", False)):
        values = {"stripe_api_key": type(stripe_settings.stripe_api_key)(key)}
        bank = connect(stripe_settings.model_copy(update=values))
        assert bank.test_only is play
        assert key not in repr(bank)


# Links


@pytest.mark.parametrize("soft_decline", [False, True], ids=["action", "402"])
def test_a_payment_that_needs_3_d_secure_is_paid_by_link(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    soft_decline: bool,
) -> None:
    stripe_standin.control(soft_decline=soft_decline)
    payment = pay(NEEDS_CUSTOMER)
    work(stripe_settings, database, times=PATIENT_ATTEMPTS + 2)  # she takes her time, which is no failure of the bank's
    assert status(database, payment.id) == ("linked", "open")
    with database.transaction() as session:
        assert verify.stuck(session, datetime.now(UTC) + LINK_LIFE) == []
    [(template, values)] = notices(database)
    assert template == "payment.link"
    back = requests.get(values["link"], timeout=10, allow_redirects=False)
    assert back.headers["Location"] == "https://pay.example.com/bank/return"
    stripe_standin.control(refuse={"capture": 1}, soft_decline=soft_decline)
    work(stripe_settings, database, times=2)
    assert history(database, payment.id) == ["created", "debiting", "linked", "authorised", "paid"]
    assert stripe_standin.lines(payment.id) == [StatementLine(payment.id, "debit", 4210, "USD")]
    assert [template for template, _ in notices(database)] == ["payment.link", "payment.made"]


@pytest.mark.parametrize(
    ("pan", "code", "heard"),
    [
        (NEEDS_CUSTOMER, "", CallEvent.LINKED),
        (DECLINED, "insufficient_funds", CallEvent.NO_FUNDS),
        (DECLINED, "expired_card", CallEvent.CARD_EXPIRED),
        (DECLINED, "issuer_not_available", CallEvent.ISSUER_AWAY),
        (DECLINED, "stolen_card", CallEvent.DECLINED),
        ("4242424242424242", "", CallEvent.PAID),
    ],
)
def test_the_caller_who_waits_hears_what_became_of_it(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    pan: str,
    code: str,
    heard: CallEvent,
) -> None:
    stripe_standin.control(decline_code=code)
    payment = pay(pan)
    work(stripe_settings, database)
    call = Call("CA1", "en", bill={"id": payment.bill_id, "amount_minor": 4210}, customer_id=payment.customer_id)
    with database.transaction() as session:
        session.get_one(Payment, payment.id).idempotency_key = f"call:CA1:{payment.bill_id}"
    engine = Engine(None, database, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    assert engine._debit(call).event is heard


def test_a_link_that_nobody_used_in_time_is_void(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay(NEEDS_CUSTOMER)
    work(stripe_settings, database)
    with database.transaction() as session:
        session.get_one(Payment, payment.id).updated_at -= LINK_LIFE
    work(stripe_settings, database)
    assert history(database, payment.id) == ["created", "debiting", "linked", "voided"]
    assert status(database, payment.id)[1] == "open"
    _debited_nothing(stripe_standin, payment)


def test_a_customer_who_cannot_be_sent_a_link_is_refused(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings, pay: Callable[..., Payment]
) -> None:
    payment = pay(NEEDS_CUSTOMER)
    with database.transaction() as session:
        session.execute(delete(Contact))
    work(stripe_settings, database)
    assert status(database, payment.id) == ("refused", "open")
    with database.transaction() as session:
        assert session.get_one(Payment, payment.id).decline_reason == "authentication_required"
    _debited_nothing(stripe_standin, payment)


def test_without_a_page_to_return_to_there_is_no_link(stripe_standin: StripeStandIn) -> None:
    bank = stripe_standin.bank(return_url=None)
    token, key = stripe_standin.token(NEEDS_CUSTOMER), f"key-{time.time_ns()}"
    for _ in range(2):
        found = bank.authorise(token, 100, "USD", key=key, reference=key)
        assert found == Declined(DeclineReason.AUTHENTICATION_REQUIRED)
    assert [intent["status"] for intent in stripe_standin.intents(key)] == ["canceled"]


def test_a_repeated_request_is_given_the_same_link(stripe_standin: StripeStandIn) -> None:
    stripe_standin.control(soft_decline=True)
    token, key = stripe_standin.token(NEEDS_CUSTOMER), f"key-{time.time_ns()}"
    first, second = (
        stripe_standin.bank().authorise(token, 100, "USD", key=key, reference=key) for _ in range(2)
    )
    assert isinstance(first, Linked)
    assert first == second


# Events


def signature(body: bytes, timestamp: int, secret: str = WEBHOOK_SECRET) -> str:
    """As Stripe documents it: HMAC-SHA256 over the time, a dot and the raw body."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


GOLDEN_BODY = b'{"id":"evt_1","data":{"object":{"id":"pi_1","metadata":{"payment":"0123456789abcdef"}}}}'
GOLDEN = "t=1700000000,v1=5a6460327ed264ca6b570ee3529e3ab2c9fb0c107ea51d552adedbfed1f262a9"


def test_the_golden_vector_is_accepted_and_every_change_of_it_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    assert read(GOLDEN_BODY, GOLDEN, WEBHOOK_SECRET) == ("evt_1", "0123456789abcdef")
    assert read(GOLDEN_BODY, f"{GOLDEN},v1=00,v0=11", WEBHOOK_SECRET)[0] == "evt_1"
    for body, header, secret in (
        (GOLDEN_BODY + b" ", GOLDEN, WEBHOOK_SECRET),
        (GOLDEN_BODY, GOLDEN.replace("1700000000", "1700000001"), WEBHOOK_SECRET),
        (GOLDEN_BODY, GOLDEN.replace("v1", "v0"), WEBHOOK_SECRET),
        (GOLDEN_BODY, GOLDEN, "whsec_another"),
        (GOLDEN_BODY, None, WEBHOOK_SECRET),
        (GOLDEN_BODY, "nonsense", WEBHOOK_SECRET),
        (b"\xff", GOLDEN, WEBHOOK_SECRET),
    ):
        with pytest.raises(BadEvent):
            read(body, header, secret)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_301.0)
    with pytest.raises(BadEvent):
        read(GOLDEN_BODY, GOLDEN, WEBHOOK_SECRET)


@pytest.mark.parametrize(
    "event",
    [b"[]", b"{}", b"1", b'{"id":"x","data":{"object":{}}}', b'{"id":"evt_1","data":{"object":[]}}', b"{"],
)
def test_what_is_signed_and_no_event_is_refused(event: bytes) -> None:
    with pytest.raises(BadEvent):
        read(event, signature(event, int(time.time())), WEBHOOK_SECRET)


@pytest.fixture
def web(database: Database, stripe_settings: Settings) -> Flask:
    """The web part, as far as Stripe's events reach."""
    app = Flask(__name__)
    app.extensions["ivr"] = type("Services", (), {"settings": stripe_settings, "database": database})
    app.register_blueprint(stripe_events.blueprint)
    return app


def _post(app: Flask, event: dict[str, Any]) -> int:
    body = json.dumps(event).encode()
    headers = {"Stripe-Signature": signature(body, int(time.time()))}
    return app.test_client().post("/bank/stripe/events", data=body, headers=headers).status_code


def test_an_event_has_its_payment_looked_at_once_and_is_never_believed(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    web: Flask,
) -> None:
    payment = pay(NEEDS_CUSTOMER)
    work(stripe_settings, database)
    waits = job(database).run_at
    assert waits > datetime.now(UTC)
    said = {"status": "succeeded", "metadata": {"payment": payment.id}}
    event = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": said}}
    assert _post(web, event) == 204
    assert job(database).run_at < datetime.now(UTC)
    worker.run(stripe_settings, threading.Event(), once=True)
    assert status(database, payment.id)[0] == "linked"  # whatever the event says, she has not agreed yet
    put_off = job(database).run_at
    assert _post(web, event) == 204
    assert job(database).run_at == put_off
    assert _post(web, {**event, "id": "evt_2", "data": {"object": {"metadata": {"payment": "unknown"}}}}) == 204
    assert _post(web, {**event, "id": "evt_3", "data": {"object": {}}}) == 204
    assert web.test_client().post("/bank/stripe/events", json=event).status_code == 400
    assert web.test_client().get("/bank/return").status_code == 200


def test_events_are_refused_where_stripe_is_not_the_bank(web: Flask, stripe_settings: Settings) -> None:
    web.extensions["ivr"].settings = stripe_settings.model_copy(update={"bank": "sandbox"})
    assert _post(web, {"id": "evt_1", "data": {"object": {}}}) == 404


def test_stripes_own_event_wakes_a_payment_that_was_given_up(
    database: Database,
    stripe_standin: StripeStandIn,
    stripe_settings: Settings,
    pay: Callable[..., Payment],
    web: Flask,
) -> None:
    payment = pay()
    stripe_standin.control(telephone_orders=False)
    work(stripe_settings, database)
    assert job(database).done_at is not None
    stripe_standin.control()
    server = make_server("127.0.0.1", 0, web, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stripe_standin.send_events_to(f"http://127.0.0.1:{server.server_port}/bank/stripe/events")
    bank = stripe_standin.bank()
    # A worker of another machine has the intent captured, and dies before it records anything.
    with database.transaction() as session:
        token = session.get_one(Card, payment.card_id).bank_token
    key = payment.bank_idempotency_key
    found = bank.authorise(token, 4210, "USD", key=key, reference=payment.id, merchant="City Water")
    assert isinstance(found, Authorised)
    bank.capture(found.reference, 4210, key=payment.capture_key)
    _wait_until(lambda: job(database).done_at is None)
    server.shutdown()
    worker.run(stripe_settings, threading.Event(), once=True)
    assert status(database, payment.id) == ("paid", "paid")
    assert stripe_standin.lines(payment.id) == [StatementLine(payment.id, "debit", 4210, "USD")]


def test_nothing_of_a_request_is_in_the_errors(stripe_standin: StripeStandIn) -> None:
    bank = StripeBank("sk_live_secret", return_url=None, url="http://127.0.0.1:9")
    with pytest.raises(Exception, match="APIConnectionError") as caught:
        bank.authorise("cus_secret/pm_secret", 100, "USD", key="secret-key", reference="r")
    assert "secret" not in f"{caught.value!r}"
    assert not stripe.enable_telemetry


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
