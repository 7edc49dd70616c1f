"""``POST /bank/notices`` over real HTTP, on both databases, with a real Redis."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from notices_support import SECRET, TOKEN, authorised, decision, notice, send
from pydantic import ValidationError
from sqlalchemy import func, select

from ivr.api.bank_notices import LONGEST_BODY_BYTES
from ivr.clock import utc_now
from ivr.customers.models import Audit
from ivr.keys import Keyring
from ivr.payments import keeper, notices, service
from ivr.payments.models import AppendOnly, DebitNotice, Payment
from ivr.payments.notices import Confirmations
from ivr.payments.pending import PendingDebits, Verdict
from ivr.payments.states import Event
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.store.redis import RedisUnavailable
from ivr.webhooks.signature import verified

pytest_plugins = ["notices_fixtures"]


def put(pending: PendingDebits, payment: Payment) -> None:
    """What a worker does before it asks the bank to debit."""
    pending.put(keeper.as_pending(payment, TOKEN, "City Water"), datetime.now(UTC))


@pytest.fixture
def payment(database: Database, pending: PendingDebits) -> Payment:
    """A pending payment."""
    payment = authorised(database)
    put(pending, payment)
    return payment


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "WAIT_S", 0.0)


def recorded(database: Database) -> list[tuple[str | None, str | None]]:
    """Payment and reason of every notice on record."""
    with database.transaction() as session:
        return [(row.payment_id, row.reason) for row in session.scalars(select(DebitNotice).order_by(DebitNotice.at))]


def test_a_confirmation_is_signed_and_recorded(notices_url: str, database: Database, payment: Payment) -> None:
    response = send(notices_url, notice(payment), "ntc_1")
    assert verified(SECRET, response.headers, response.content, datetime.now(UTC)) == "ntc_1"
    assert response.json() == {
        "notice": "ntc_1",
        "decision": "confirmed",
        "payment": payment.id,
        "amount_minor": 4210,
        "currency": "USD",
    }
    assert recorded(database) == [(payment.id, None)]
    with database.transaction() as session:
        [line] = session.scalars(select(Audit).where(Audit.what == "debit.confirmed"))
        assert (line.who, line.subject, line.details) == (
            "bank:sandbox",
            payment.id,
            {"notice": "ntc_1", "reason": None},
        )


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"card_token": "tok_2"}, "no_such_payment"),
        ({"merchant": "City Gas"}, "no_such_payment"),
        ({"currency": "EUR"}, "no_such_payment"),
        ({"reference": "auth_2"}, "no_such_payment"),
        ({"amount_minor": 4211}, "other_amount"),
        ({"amount_minor": 4211, "reference": None}, "other_amount"),
    ],
)
def test_a_notice_that_does_not_agree_is_refused_signed_and_recorded(
    notices_url: str, database: Database, payment: Payment, changed: dict[str, Any], reason: str
) -> None:
    response = send(notices_url, notice(payment, **changed), "ntc_1")
    assert decision(response) == reason
    assert verified(SECRET, response.headers, response.content, datetime.now(UTC)) == "ntc_1"
    assert [found for _, found in recorded(database)] == [reason]
    assert decision(send(notices_url, notice(payment))) == "confirmed"


def test_a_second_notice_of_the_same_debit_is_refused(notices_url: str, payment: Payment) -> None:
    assert decision(send(notices_url, notice(payment))) == "confirmed"
    assert decision(send(notices_url, notice(payment))) == "already_confirmed"
    assert decision(send(notices_url, notice(reference=None))) == "already_confirmed"


def test_what_the_bank_holds_no_longer_is_refused(notices_url: str, database: Database, pending: PendingDebits) -> None:
    payment = authorised(database, expires_in=timedelta(seconds=-1))
    put(pending, payment)
    assert decision(send(notices_url, notice(payment))) == "expired"


def test_two_that_only_a_reference_tells_apart_are_refused_without_one(
    notices_url: str, database: Database, pending: PendingDebits, payment: Payment
) -> None:
    other = authorised(database)
    put(pending, other)
    assert decision(send(notices_url, notice())) == "two_candidates"
    assert send(notices_url, notice(other)).json()["payment"] == other.id
    assert send(notices_url, notice()).json()["payment"] == payment.id


@pytest.mark.parametrize("ends", ["voided", "debited", "confirmed"])
def test_what_is_over_and_still_in_the_index_does_not_stand_beside_what_is_meant(
    notices_url: str,
    database: Database,
    pending: PendingDebits,
    payment: Payment,
    redis_client: redis.Redis,
    ends: str,
) -> None:
    over = authorised(database)
    put(pending, over)
    if ends != "voided":
        assert decision(send(notices_url, notice(over))) == "confirmed"
    if ends != "confirmed":
        event = Event.VOID if ends == "voided" else Event.CAPTURE
        with database.transaction() as session:
            service.record_move(session, service.Move(over.id, event, "test"), who="test", now=datetime.now(UTC))
    redis_client.flushall()  # and what Redis knew of the confirmation is lost
    assert pending.rebuild([])
    put(pending, over)
    put(pending, payment)
    assert send(notices_url, notice()).json()["payment"] == payment.id


@pytest.mark.usefixtures("no_waiting")
def test_a_notice_without_reference_of_what_is_over_is_refused(
    notices_url: str, database: Database, pending: PendingDebits, payment: Payment
) -> None:
    with database.transaction() as session:
        service.record_move(session, service.Move(payment.id, Event.VOID, "x"), who="test", now=datetime.now(UTC))
    assert decision(send(notices_url, notice())) == "no_such_payment"
    assert pending.candidates(keeper.as_pending(payment, TOKEN, "City Water").debit) == []


@pytest.mark.parametrize("event", [Event.LOSE, Event.VOID])
def test_a_payment_that_is_being_undone_is_not_confirmed_though_the_index_has_it(
    notices_url: str, database: Database, payment: Payment, event: Event
) -> None:
    with database.transaction() as session:
        service.record_move(session, service.Move(payment.id, event, "test"), who="test", now=datetime.now(UTC))
    assert decision(send(notices_url, notice(payment))) == "no_such_payment"


def test_the_same_notice_is_answered_as_the_first_time(
    notices_url: str, database: Database, payment: Payment, redis_client: redis.Redis
) -> None:
    first = send(notices_url, notice(payment), "ntc_1").json()
    redis_client.flushall()
    assert send(notices_url, notice(payment), "ntc_1").json() == first
    assert recorded(database) == [(payment.id, None)]


@pytest.mark.usefixtures("no_waiting")
def test_a_refusal_stands_for_its_notice_though_the_payment_comes_later(
    notices_url: str, database: Database, pending: PendingDebits
) -> None:
    payment = authorised(database)
    assert decision(send(notices_url, notice(payment), "ntc_1")) == "no_such_payment"
    put(pending, payment)
    assert decision(send(notices_url, notice(payment), "ntc_1")) == "no_such_payment"
    assert decision(send(notices_url, notice(payment), "ntc_2")) == "confirmed"


def test_an_id_with_another_debit_is_an_error(notices_url: str, database: Database, payment: Payment) -> None:
    send(notices_url, notice(payment), "ntc_1")
    response = send(notices_url, notice(payment, amount_minor=1), "ntc_1")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "notice_differs")
    assert recorded(database) == [(payment.id, None)]


@pytest.mark.parametrize("same", [True, False])
def test_twenty_at_once_confirm_once(notices_url: str, database: Database, payment: Payment, same: bool) -> None:
    def one(i: int) -> str:
        return decision(send(notices_url, notice(payment), "ntc" if same else f"ntc_{i}", timeout_s=60))

    with ThreadPoolExecutor(20) as pool:
        decisions = sorted(pool.map(one, range(20)))
    assert decisions == (["confirmed"] * 20 if same else ["already_confirmed"] * 19 + ["confirmed"])
    assert recorded(database).count((payment.id, None)) == 1


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"signed_with": "whsec_" + "A" * 43 + "="}, 401),
        ({"age_s": 301}, 401),
        ({"age_s": -301}, 401),
        ({"age_s": 290}, 200),
        ({"age_s": -290}, 200),
    ],
)
def test_a_forged_or_old_notice_is_unauthorised_and_changes_nothing(
    notices_url: str, database: Database, payment: Payment, how: dict[str, Any], expected: int
) -> None:
    response = send(notices_url, notice(payment), **how)
    assert response.status_code == expected
    assert len(recorded(database)) == (expected == 200)
    if expected == 401:
        assert "webhook-signature" not in response.headers
        assert payment.id not in response.text


def test_a_signature_covers_id_time_and_body(notices_url: str, database: Database, payment: Payment) -> None:
    sent = send(notices_url, notice(payment, amount_minor=1), "ntc_1").request
    assert isinstance(sent.body, bytes)
    for name, value in [("webhook-id", "ntc_2"), ("webhook-timestamp", str(int(time.time()) + 9))]:
        assert requests.post(notices_url, sent.body, headers=dict(sent.headers) | {name: value}).status_code == 401
    longer = {name: value for name, value in sent.headers.items() if name != "Content-Length"}
    assert requests.post(notices_url, sent.body + b" ", headers=longer).status_code == 401
    assert requests.post(notices_url, sent.body).status_code == 401
    assert [reason for _, reason in recorded(database)] == ["other_amount"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"merchant": "City Water"}',
        notice(pan="4539148803436467"),
        notice(amount_minor=0),
        notice(amount_minor="4210"),
        notice(amount_minor=42.1),
        notice(currency="usd"),
        notice(reference=""),
        notice(reference="auth_\x00"),
        notice(card_token="4539148803436467" * 20),
    ],
)
def test_what_is_no_notice_is_refused_without_being_quoted(
    notices_url: str, database: Database, body: dict[str, Any] | bytes
) -> None:
    response = send(notices_url, body)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_notice")
    assert "4539148803436467" not in response.text
    assert recorded(database) == []


def test_what_is_longer_than_any_notice_is_refused_in_the_form_of_every_refusal(notices_url: str) -> None:
    response = send(notices_url, b"x" * (LONGEST_BODY_BYTES + 1))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_long")
    assert send(notices_url, b"x" * LONGEST_BODY_BYTES).status_code == 422


def test_a_notice_that_comes_before_its_payment_waits_for_it(
    notices_url: str, database: Database, pending: PendingDebits
) -> None:
    payment = authorised(database)
    late = threading.Timer(0.4, put, [pending, payment])
    late.start()
    began = time.monotonic()
    assert decision(send(notices_url, notice(payment))) == "confirmed"
    assert 0.3 < time.monotonic() - began < 1.0
    began = time.monotonic()
    assert decision(send(notices_url, notice(reference="auth_x"))) == "no_such_payment"
    assert 0.9 < time.monotonic() - began < 2.0


def test_those_that_wait_do_not_use_up_the_threads(
    database: Database, pending: PendingDebits, payment: Payment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MOST_WAITING", 2)
    confirmations = Confirmations(database, pending, utc_now)

    def unknown(i: int) -> float:
        began = time.monotonic()
        debit = keeper.as_pending(payment, "tok_x", "City Water").debit
        confirmations.answer(notices.Notice(f"n{i}", "sandbox", debit))
        return time.monotonic() - began

    with ThreadPoolExecutor(6) as pool:
        waited = sorted(pool.map(unknown, range(6)))
    assert [round(seconds) for seconds in waited] == [0, 0, 0, 0, 1, 1]


def test_while_redis_is_empty_nothing_is_refused_and_the_rebuild_brings_it_back(
    notices_url: str, database: Database, pending: PendingDebits, payment: Payment, redis_client: redis.Redis
) -> None:
    confirmed = authorised(database)
    put(pending, confirmed)
    assert decision(send(notices_url, notice(confirmed))) == "confirmed"
    redis_client.flushall()
    response = send(notices_url, notice(payment), "ntc_1")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json()["error"]["code"] == "not_known_yet"
    keeper.keep_whole(database, "sandbox", pending)
    assert decision(send(notices_url, notice(payment), "ntc_1")) == "confirmed"
    assert decision(send(notices_url, notice(confirmed, reference=confirmed.bank_reference))) == "no_such_payment"


def test_nothing_is_confirmed_twice_though_redis_forgot_that_it_was(
    notices_url: str, database: Database, pending: PendingDebits, payment: Payment, redis_client: redis.Redis
) -> None:
    assert decision(send(notices_url, notice(payment))) == "confirmed"
    redis_client.flushall()
    keeper.keep_whole(database, "sandbox", pending)
    put(pending, payment)  # by a worker that repeats its capture
    assert decision(send(notices_url, notice(payment))) == "already_confirmed"
    assert recorded(database).count((payment.id, None)) == 1


@pytest.mark.parametrize("step", ["before the record", "after the record"])
def test_a_process_that_dies_on_the_way_leaves_a_notice_that_can_be_repeated(
    notices_url: str,
    database: Database,
    pending: PendingDebits,
    payment: Payment,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    class Died(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    debit = keeper.as_pending(payment, TOKEN, "City Water").debit
    with monkeypatch.context() as dying:
        if step == "before the record":
            dying.setattr(notices, "execute", die)
        else:
            dying.setattr(PendingDebits, "confirmed", die)
        with pytest.raises(Died):
            Confirmations(database, pending, utc_now).answer(notices.Notice("ntc_1", "sandbox", debit))
    if step == "before the record":  # nobody was told anything: another notice may have it
        assert decision(send(notices_url, notice(payment), "ntc_2")) == "confirmed"
        assert decision(send(notices_url, notice(payment), "ntc_1")) == "already_confirmed"
    else:
        assert decision(send(notices_url, notice(payment), "ntc_2")) == "already_confirmed"
        assert decision(send(notices_url, notice(payment), "ntc_1")) == "confirmed"
    assert recorded(database).count((payment.id, None)) == 1


def test_without_redis_no_decision_is_made(database: Database, payment: Payment, keyring: Keyring) -> None:
    away = PendingDebits(redis.Redis(port=9, socket_connect_timeout=0.1), keyring)
    debit = keeper.as_pending(payment, TOKEN, "City Water").debit
    with pytest.raises(redis.RedisError):
        Confirmations(database, away, utc_now).answer(notices.Notice("ntc_1", "sandbox", debit))
    assert recorded(database) == []


def test_a_redis_that_cannot_be_started_is_tried_again_by_whoever_keeps_the_index(
    database: Database, pending: PendingDebits, payment: Payment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: PendingDebits) -> bool:
        raise RedisUnavailable("redis-server did not answer")

    pending.drop(keeper.as_pending(payment, TOKEN, "City Water").debit)
    with monkeypatch.context() as while_away:
        while_away.setattr(PendingDebits, "is_whole", unavailable)
        keeper.keep_whole(database, "sandbox", pending)
    keeper.keep_whole(database, "sandbox", pending, anew=True)
    debit = keeper.as_pending(payment, TOKEN, "City Water").debit
    assert pending.match("n", debit, datetime.now(UTC)) == (Verdict.FOUND, payment.id)


def test_the_rebuild_reads_all_pages_and_only_what_is_pending(
    database: Database, pending: PendingDebits, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAGE", 2)
    payments = [authorised(database) for _ in range(5)]
    with database.transaction() as session:
        command = service.Move(payments[0].id, Event.VOID, "test")
        service.record_move(session, command, who="test", now=datetime.now(UTC))
    redis_client.flushall()
    keeper.keep_whole(database, "sandbox", pending)
    for payment in payments:
        verdict, _ = pending.match("n", keeper.as_pending(payment, TOKEN, "City Water").debit, datetime.now(UTC))
        assert verdict is (Verdict.NO_SUCH_PAYMENT if payment is payments[0] else Verdict.FOUND)


def test_a_notice_on_record_cannot_be_changed(database: Database, notices_url: str, payment: Payment) -> None:
    send(notices_url, notice(payment))
    with pytest.raises(AppendOnly), database.transaction() as session:
        session.scalars(select(DebitNotice)).one().reason = "expired"
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(DebitNotice)) == 1


@pytest.mark.parametrize("unusable", ["not-one-of-ours", "whsec_", "whsec_c2hvcnQ=", "whsec_***"])
def test_a_secret_that_is_none_is_refused_without_being_shown(unusable: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(bank_notice_secret=unusable, digit_model_dir=Path(), voice_model_dir=Path(), _env_file=None)
    assert unusable not in str(caught.value).replace("whsec_ and base64", "")
    assert SECRET not in repr(
        Settings(bank_notice_secret=SECRET, digit_model_dir=Path(), voice_model_dir=Path(), _env_file=None)
    )
