from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from payments_support import add_payer, confirm
from payments_support import make_due as make_jobs_due
from sqlalchemy import select
from structlog.testing import capture_logs
from urllib3.connection import HTTPSConnection
from webhooks_support import Merchant, drip

from ivr import jobs
from ivr.customers.errors import InvalidInput
from ivr.jobs import Again, GiveUp, Held
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.webhooks import outbox, post
from ivr.webhooks.address import AddressRefused, BadUrl, check_url, is_public, origin, resolve
from ivr.webhooks.deliver import DELIVER_JOB, PATIENCE, deliver, endpoint_secret, wait_after
from ivr.webhooks.models import WebhookDelivery, WebhookEndpoint
from ivr.webhooks.post import NotDelivered
from ivr.webhooks.register import MOST_ENDPOINTS, add_endpoint
from ivr.webhooks.signature import secret, signed_headers

pytest_plugins = ["webhooks_fixtures"]

SHOP = "City Water"  # the merchant of the bills that add_payer makes


@pytest.fixture
def private(settings: Settings) -> Settings:
    """Settings that let webhooks go to this machine."""
    return settings.model_copy(update={"webhooks_to_private": True})


@pytest.fixture
def endpoint(database: Database, keyring: Keyring, merchant: Merchant) -> WebhookEndpoint:
    return add(database, keyring, merchant.url)


@pytest.fixture
def payment(database: Database, endpoint: WebhookEndpoint) -> Payment:
    with database.transaction() as session:
        return confirm(session, add_payer(session))


def add(database: Database, keyring: Keyring, url: str) -> WebhookEndpoint:
    with database.transaction() as session:
        return add_endpoint(session, keyring, merchant=SHOP, url=url, now=datetime.now(UTC), allow_private=True)


def emit(database: Database, payment: Payment, *kinds: outbox.Kind, **named: Any) -> None:
    for kind in kinds:
        with database.transaction() as session:
            locked = session.get_one(Payment, payment.id, with_for_update=True)
            outbox.emit(session, locked, kind, datetime.now(UTC), **named)


def work(database: Database, settings: Settings) -> list[str]:
    """Run what is due, as the worker does; how each job ended."""
    ends = []
    while held := jobs.take(database, "w", [DELIVER_JOB], timedelta(minutes=1)):
        ends.append(run(held, settings))
    return ends


def run(held: Held, settings: Settings) -> str:
    try:
        deliver(held, settings)
        held.done()
        return "done"
    except Again as again:
        held.release(again.after, again.reason)
        return again.reason
    except GiveUp as error:
        held.done(error_type=str(error))
        return f"given up: {error}"


def wake(database: Database) -> None:
    with database.transaction() as session:
        for endpoint in session.scalars(select(WebhookEndpoint).where(WebhookEndpoint.resting_until.is_not(None))):
            endpoint.resting_until = datetime(2000, 1, 1, tzinfo=UTC)


def make_due(database: Database) -> None:
    """Let every wait be over, and every rest."""
    make_jobs_due(database)
    wake(database)


def deliveries(database: Database) -> list[WebhookDelivery]:
    with database.transaction() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.sequence)))


def test_the_signature_is_that_of_the_specification() -> None:
    known = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert known["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_endpoint_has_a_secret_of_its_own() -> None:
    assert secret(bytes(32), "a") != secret(bytes(32), "b")
    assert secret(bytes(32), "a") != secret(b"1" * 32, "a")
    assert len(base64.b64decode(secret(bytes(32), "a").removeprefix("whsec_"))) == 32


def test_a_message_arrives_signed_with_the_time_of_its_sending(
    database: Database,
    private: Settings,
    keyring: Keyring,
    merchant: Merchant,
    endpoint: WebhookEndpoint,
    payment: Payment,
) -> None:
    emit(database, payment, "payment.refunded", refunded_minor=100)
    assert work(database, private) == ["done"]
    ((headers, body),) = merchant.got
    assert json.loads(body)["data"] == {
        "payment": payment.id,
        "sequence": 1,
        "bill": payment.bill_id,
        "amount_minor": 4210,
        "currency": "USD",
        "refunded_minor": 100,
    }
    key = base64.b64decode(endpoint_secret(keyring, endpoint).removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert abs(int(headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 30
    assert headers["host"] == f"localhost:{merchant.port}"
    assert work(database, private) == []


def test_only_the_merchants_own_payments_are_told(database: Database, keyring: Keyring, payment: Payment) -> None:
    with database.transaction() as session:
        session.scalars(select(WebhookEndpoint)).one().merchant = "Another Shop"
    emit(database, payment, "payment.paid")
    assert deliveries(database) == []


def test_messages_of_a_payment_come_in_order_also_when_the_first_fails(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    merchant.answers = [(500, {}), (404, {})]
    emit(database, payment, "payment.paid", "payment.refunded", "payment.refunded")
    assert work(database, private) == ["status 500"]
    make_due(database)
    assert work(database, private) == ["status 404"]
    assert merchant.got == []
    make_due(database)
    assert work(database, private) == ["done"] * 3
    assert merchant.kinds() == ["payment.paid", "payment.refunded", "payment.refunded"]
    assert [json.loads(body)["data"]["sequence"] for _, body in merchant.got] == [1, 2, 3]


def test_payments_and_endpoints_do_not_wait_for_each_other(
    database: Database, private: Settings, keyring: Keyring, merchant: Merchant, payment: Payment
) -> None:
    add(database, keyring, f"{merchant.url}/second")
    merchant.answers = [(500, {})]
    emit(database, payment, "payment.paid")
    assert sorted(work(database, private)) == ["done", "status 500"]


def test_waits_grow_up_to_three_days_and_then_the_next_message_is_sent(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    emit(database, payment, "payment.paid", "payment.refunded")
    held = jobs.take(database, "w", [DELIVER_JOB], timedelta(minutes=1))
    assert held
    merchant.answers = [(503, {})] * 99
    since = clock = datetime.fromisoformat(held.payload["since"])
    waits: list[timedelta] = []
    attempts = 0
    while attempts < 99:
        attempts += 1
        held = Held(held.database, held.job_id, held.kind, held.payload, attempts, held.holder, held.lease)
        try:
            deliver(held, private, partial(lambda now: now, clock))
        except Again as again:
            waits.append(again.after)
            clock += again.after
            wake(database)
        except GiveUp:
            held.done(error_type="given up")
            break
    assert len(merchant.paths) == attempts
    assert waits == sorted(waits)
    assert waits[0] == timedelta(seconds=5)
    assert waits[1:3] == [timedelta(seconds=10), timedelta(seconds=30)]
    assert waits[-1] == timedelta(hours=8)
    assert timedelta(hours=60) < clock - since <= PATIENCE
    first, second = deliveries(database)
    assert (first.given_up_at, first.last_error) == (clock, "status 503")
    assert (second.delivered_at, second.given_up_at) == (None, None)
    merchant.answers = []
    for _ in range(4):  # days: the clock was three of them ahead
        make_due(database)
    assert work(database, private) == ["done"]
    assert merchant.kinds() == ["payment.refunded"]


def test_the_wait_grows_with_the_time_tried() -> None:
    waits = [wait_after(timedelta(seconds=s)) for s in (0, 1, 5, 60, 10**6)]
    assert waits == [timedelta(seconds=s) for s in (5, 5, 10, 120, 8 * 3600)]


def test_a_server_that_failed_is_left_alone_and_then_asked_by_one_message(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    with database.transaction() as session:
        others = [confirm(session, add_payer(session), key=f"other {i}") for i in range(2)]
    merchant.answers = [(500, {}), (500, {})]
    emit(database, payment, "payment.paid")
    for other in others:
        emit(database, other, "payment.paid")
    assert work(database, private) == ["status 500", "endpoint resting", "endpoint resting"]
    make_due(database)
    assert sorted(work(database, private)) == ["endpoint resting", "endpoint resting", "status 500"]
    assert len(merchant.paths) == 2
    make_due(database)
    assert work(database, private) == ["done"] * 3


def test_while_one_message_asks_whether_the_server_is_back_the_others_wait(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    with database.transaction() as session:
        other = confirm(session, add_payer(session), key="other")
        session.scalars(select(WebhookEndpoint)).one().resting_until = datetime.now(UTC)
    emit(database, payment, "payment.paid")
    emit(database, other, "payment.paid")
    meanwhile: list[str] = []

    def ask(_: object) -> None:
        merchant.before_answer = None
        held = jobs.take(database, "another", [DELIVER_JOB], timedelta(minutes=1))
        assert held
        meanwhile.append(run(held, private))

    merchant.before_answer = ask
    held = jobs.take(database, "w", [DELIVER_JOB], timedelta(minutes=1))
    assert held
    assert run(held, private) == "done"
    assert meanwhile == ["endpoint resting"]


def test_a_replay_sends_everything_again_in_order_with_the_same_ids(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    emit(database, payment, "payment.paid", "payment.refunded")
    work(database, private)
    with database.transaction() as session:
        assert outbox.replay(session, payment.id, datetime.now(UTC)) == 2
    assert work(database, private) == ["done", "done"]
    assert merchant.kinds() == ["payment.paid", "payment.refunded"] * 2
    assert merchant.ids()[:2] == merchant.ids()[2:]
    with database.transaction() as session:
        assert outbox.replay(session, "nobody", datetime.now(UTC)) == 0


def test_a_replay_overtakes_a_message_that_waits(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    merchant.answers = [(500, {})]
    emit(database, payment, "payment.paid")
    work(database, private)
    with database.transaction() as session:
        outbox.replay(session, payment.id, datetime.now(UTC))
    assert work(database, private) == ["done"]
    make_due(database)
    assert work(database, private) == ["done"]  # the job of the first round, which sends nothing
    assert len(merchant.got) == 1


def test_a_worker_that_lost_its_lease_records_nothing(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    emit(database, payment, "payment.paid")
    slow = jobs.take(database, "slow", [DELIVER_JOB], timedelta(0))
    assert slow
    assert work(database, private) == ["done"]
    with pytest.raises(jobs.LeaseLost):
        deliver(slow, private)
    assert len(merchant.got) == 1


def test_an_event_written_while_the_one_before_is_finished_is_not_forgotten(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    emit(database, payment, "payment.paid")
    writer: list[threading.Thread] = []

    def refund_meanwhile(_: object) -> None:
        writer.append(threading.Thread(target=emit, args=(database, payment, "payment.refunded")))
        writer[0].start()
        merchant.before_answer = None

    merchant.before_answer = refund_meanwhile
    work(database, private)
    writer[0].join()
    work(database, private)
    assert merchant.kinds() == ["payment.paid", "payment.refunded"]


def test_nothing_goes_to_a_removed_endpoint(
    database: Database, private: Settings, merchant: Merchant, payment: Payment
) -> None:
    emit(database, payment, "payment.paid")
    with database.transaction() as session:
        session.scalars(select(WebhookEndpoint)).one().removed_at = datetime.now(UTC)
    assert work(database, private) == ["given up: endpoint removed"]
    emit(database, payment, "payment.refunded")
    assert merchant.got == []
    with database.transaction() as session:
        assert outbox.replay(session, payment.id, datetime.now(UTC)) == 0


def test_a_private_address_is_refused_and_the_log_names_neither_url_nor_secret(
    database: Database,
    settings: Settings,
    keyring: Keyring,
    merchant: Merchant,
    endpoint: WebhookEndpoint,
    payment: Payment,
) -> None:
    emit(database, payment, "payment.paid")
    with capture_logs() as lines:
        assert work(database, settings) == ["address not public"]
    assert merchant.paths == []
    assert "localhost" not in str(lines)
    assert endpoint_secret(keyring, endpoint) not in str(lines)


INSIDE = (
    "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1 0.0.0.0 255.255.255.255 192.0.2.1 "
    "::1 :: fe80::1 fe80::1%1 fc00::1 ff02::1 ::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b:1::a00:1 "
    "2002:a00:1::1 2001:0:a00:1::1 2001:db8::1"
)


@pytest.mark.parametrize("address", INSIDE.split())
def test_no_address_inside_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_outside_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "https://",
        "https:///hooks",
        "https://user:password@shop.example/",
        "https://shop.example/#part",
        "ftp://shop.example/",
        "shop.example/hooks",
        "https://shop.example:99999/",
        "https://shop.example/" + "a" * 1000,
        "https://[::1",
        "",
    ],
)
def test_urls_that_are_not_plain_https_are_refused(url: str) -> None:
    with pytest.raises(BadUrl) as refusal:
        check_url(url)
    assert all(part not in str(refusal.value) for part in ("shop.example", ":password"))


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::1]/"])
def test_an_address_in_disguise_is_refused_at_registration(database: Database, keyring: Keyring, url: str) -> None:
    with database.transaction() as session, pytest.raises(BadUrl):
        add_endpoint(session, keyring, merchant=SHOP, url=url, now=datetime.now(UTC))


def test_endpoints_are_unique_and_bounded(database: Database, keyring: Keyring) -> None:
    for i in range(MOST_ENDPOINTS):
        add(database, keyring, f"https://localhost/{i}")
        if i == 0:
            with pytest.raises(InvalidInput, match="already"):
                add(database, keyring, "HTTPS://LOCALHOST/0")
    with pytest.raises(InvalidInput, match="at most"):
        add(database, keyring, "https://localhost/more")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Answers that the resolver gives, one after the other, the last for good; other names are asked really."""
    answers: dict[str, list[list[str]]] = {}
    really = socket.getaddrinfo

    def ask(host: str, port: int, *rest: Any, **named: Any) -> Any:
        if host not in answers:
            return really(host, port, *rest, **named)
        given = answers[host]
        found = given.pop(0) if len(given) > 1 else given[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    return answers


def test_one_private_address_among_public_ones_is_refused(names: dict[str, list[list[str]]]) -> None:
    names["shop.example"] = [["8.8.8.8", "10.0.0.1"]]
    with pytest.raises(NotDelivered, match="address not public"):
        send("https://shop.example/hooks", allow_private=False)


def test_the_connection_goes_to_the_address_that_was_checked(
    merchant: Merchant, names: dict[str, list[list[str]]]
) -> None:
    # A name that answers otherwise the second time: were it asked again, the connection would fail.
    names["localhost"] = [["127.0.0.1"], ["192.0.2.1"]]
    send(merchant.url)
    assert len(merchant.got) == 1
    assert names["localhost"] == [["192.0.2.1"]]


def test_the_certificate_must_be_the_names(merchant: Merchant, names: dict[str, list[list[str]]]) -> None:
    names["shop.example"] = [["127.0.0.1"]]
    with pytest.raises(NotDelivered, match="SSL"):
        send(f"https://shop.example:{merchant.port}/hooks")
    assert merchant.paths == []


def test_a_strangers_certificate_is_refused(merchant: Merchant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NotDelivered, match="SSL"):
        send(merchant.url)
    assert merchant.paths == []


def test_a_redirect_within_the_origin_is_followed(merchant: Merchant) -> None:
    merchant.answers = [(307, {"Location": "/there"}), (308, {"Location": f"https://localhost:{merchant.port}/here"})]
    send(merchant.url)
    assert merchant.paths == ["/hooks", "/there", "/here"]
    assert merchant.got[0][1] == b"{}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((307, {"Location": "https://elsewhere.example/"}), "origin not registered"),
        ((307, {"Location": "https://169.254.169.254/latest/meta-data"}), "origin not registered"),
        ((307, {"Location": "http://localhost/"}), "BadUrl"),
        ((307, {"Location": "//user@localhost/"}), "BadUrl"),
        ((307, {"Location": "https://[b"}), "BadUrl"),
        ((302, {"Location": "/there"}), "status 302"),
        ((307, {}), "status 307"),
    ],
)
def test_other_redirects_are_refused(merchant: Merchant, answer: tuple[int, dict[str, str]], why: str) -> None:
    merchant.answers = [answer]
    with pytest.raises(NotDelivered, match=why):
        send(merchant.url)
    assert merchant.paths == ["/hooks"]


def test_a_redirect_to_a_registered_origin_that_has_become_private_is_refused(
    merchant: Merchant, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The merchant's server stands for a public one: its own address passes the check, another private one does not.
    monkeypatch.setattr("ivr.webhooks.address.is_public", lambda address: address == "127.0.0.1")
    names["inside.example"] = [["10.0.0.1"]]
    merchant.answers = [(307, {"Location": "https://inside.example/"})]
    with pytest.raises(NotDelivered, match="address not public"):
        send(merchant.url, allow_private=False, also=[("inside.example", 443)])


def test_redirects_are_counted(merchant: Merchant) -> None:
    merchant.answers = [(307, {"Location": "/again"})] * 9
    with pytest.raises(NotDelivered, match="too many"):
        send(merchant.url)
    assert len(merchant.paths) == 1 + post.MOST_REDIRECTS


def test_a_server_that_drips_is_cut_off(merchant: Merchant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LONGEST_S", 0.5)
    merchant.before_answer = drip(5)
    with pytest.raises(NotDelivered, match="too slow"):
        send(merchant.url)


def test_the_time_for_all_redirects_is_one(merchant: Merchant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LONGEST_S", 0.5)
    merchant.answers = [(307, {"Location": "/again"})] * 3
    merchant.before_answer = lambda _: time.sleep(0.3)
    with pytest.raises(NotDelivered):
        send(merchant.url)
    assert len(merchant.paths) == 2
    merchant.before_answer = None


def test_a_server_that_never_finishes_its_handshake_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "STEP_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotDelivered):
        send(f"https://localhost:{silent.getsockname()[1]}/")


def test_a_server_that_drips_after_a_slow_connection_is_cut_off(
    merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = HTTPSConnection._new_conn

    def slowly(connection: HTTPSConnection) -> socket.socket:
        time.sleep(0.5)  # as long as the whole exchange may take: there is nothing yet that could be cut
        return connect(connection)

    monkeypatch.setattr(HTTPSConnection, "_new_conn", slowly)
    monkeypatch.setattr(post, "LONGEST_S", 0.2)
    merchant.before_answer = drip(3)
    with pytest.raises(NotDelivered, match="too slow"):
        send(merchant.url)
    assert merchant.paths == []  # not even asked


def test_a_server_that_is_away_is_an_ordinary_failure(merchant: Merchant) -> None:
    with pytest.raises(NotDelivered):
        send("https://localhost:1/", also=[("localhost", 1)])
    with pytest.raises(NotDelivered, match="name not resolved"):
        send("https://nowhere.invalid/", also=[("nowhere.invalid", 443)])


def test_a_name_without_addresses_is_refused(names: dict[str, list[list[str]]]) -> None:
    names["empty.example"] = [[]]
    with pytest.raises(AddressRefused):
        resolve(check_url("https://empty.example/"))
    with pytest.raises(NotDelivered, match="name not resolved"):
        send("https://empty.example/")


def send(url: str, *, allow_private: bool = True, also: list[tuple[str, int]] | None = None) -> None:
    post.post(url, b"{}", {}, origins=[origin(check_url(url)), *(also or [])], allow_private=allow_private)
