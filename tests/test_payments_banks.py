"""What every bank must do, run against each connector and a real process behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from payments_support import new_pan
from stripe_fixtures import DECLINED, NEEDS_CUSTOMER, StripeStandIn
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from ivr.customers.models import new_id
from ivr.payments.bank import (
    Authorised,
    Bank,
    BankRejected,
    BankUnavailable,
    Captured,
    Declined,
    DeclineReason,
    InvalidCard,
    KeyReused,
    Linked,
    Refunded,
    StatementLine,
    Token,
    Voided,
)
from ivr.payments.http_bank import HttpBank
from ivr.payments.sandbox import books
from ivr.payments.sandbox.app import create_app
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.stripe_bank import StripeBank

pytest_plugins = ["payments_fixtures", "stripe_fixtures"]

# 422 for data that the schema allows: a number of the right form may fail Luhn's check, a key may come twice.
SCHEMATHESIS = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
[phases.coverage]
unexpected-methods = ["DELETE", "TRACE"]
"""
OPENAPI = Path(__file__).parents[1] / "ivr/payments/openapi/bank.yaml"


@dataclass(frozen=True)
class Case:
    """A connector, cards at its bank, and how its process is told to misbehave."""

    bank: Bank
    card: Callable[[str], str]  # a new card's token: "good", "declined", "customer"
    lose: Callable[[str], None]  # the next answer to this operation is lost, after it was done
    slow: Callable[[], None]
    agree: Callable[[str], None]  # the customer does, at the link


@pytest.fixture(params=["sandbox", "http", "stripe"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "stripe":
        standin: StripeStandIn = request.getfixturevalue("stripe_standin")
        pans = {"good": "4242424242424242", "declined": DECLINED, "customer": NEEDS_CUSTOMER}
        named = {"authorise": "create", "void": "cancel"}
        return Case(
            standin.bank(),
            lambda kind: standin.token(pans[kind]),
            lambda operation: standin.control(lose={named.get(operation, operation): 1}),
            lambda: standin.control(delay_ms=300),
            lambda url: requests.get(url, timeout=10, allow_redirects=False).raise_for_status(),
        )
    sandbox: SandboxBank = request.getfixturevalue("bank")
    prefixes = {"good": "424242", "declined": "400003", "customer": "400005"}
    return Case(
        sandbox if request.param == "sandbox" else HttpBank(sandbox.url, "sandbox", test_only=True),
        lambda kind: sandbox.tokenise(new_pan(prefixes[kind]), 2099, 1).token,
        lambda operation: sandbox.control(lose={operation: 1}),
        lambda: sandbox.control(latency_ms=300),
        lambda url: requests.post(url, timeout=10).raise_for_status(),
    )


def authorise(case: Case, card: str = "good", amount_minor: int = 1000, **more: str) -> Any:
    reference = more.get("reference", new_id())
    return case.bank.authorise(
        more.get("token") or case.card(card), amount_minor, "USD", key=more.get("key", new_id()), reference=reference
    )


def held(case: Case, **more: str) -> str:
    found = authorise(case, **more)
    assert isinstance(found, Authorised)
    return found.reference


def lines(case: Case, reference: str) -> list[tuple[str, int]]:
    return [(line.kind, line.amount_minor) for line in case.bank.statement() if line.reference == reference]


def test_the_same_key_is_answered_as_the_first_time_and_with_other_parameters_not_at_all(case: Case) -> None:
    token, key, reference = case.card("good"), new_id(), new_id()
    first = authorise(case, token=token, key=key, reference=reference)
    assert authorise(case, token=token, key=key, reference=reference) == first
    with pytest.raises(KeyReused):
        authorise(case, token=token, key=key, reference=reference, amount_minor=1001)


def test_a_lost_answer_is_given_again(case: Case) -> None:
    token, key, reference = case.card("good"), new_id(), new_id()
    case.lose("authorise")
    with pytest.raises(BankUnavailable):
        authorise(case, token=token, key=key, reference=reference)
    found = authorise(case, token=token, key=key, reference=reference)
    assert case.bank.status(found.reference) == found
    case.lose("capture")
    with suppress(BankUnavailable):  # Stripe's connector looks at once how the intent stands
        case.bank.capture(found.reference, key="c" + key)
    assert case.bank.capture(found.reference, key="c" + key) == Captured()
    assert lines(case, reference) == [("debit", 1000)]


def test_four_at_once_with_one_key_hold_once(case: Case) -> None:
    token, key, reference = case.card("good"), new_id(), new_id()
    case.slow()

    def ask(_: int) -> Any:
        try:
            return authorise(case, token=token, key=key, reference=reference)
        except BankUnavailable:  # the first one is still under way: repeat it later
            return None

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(ask, range(4))) - {None}
    assert len(answers) == 1
    assert case.bank.find(reference, datetime.now(UTC) - timedelta(minutes=1)) in answers


def test_what_is_held_is_captured_or_voided_once(case: Case) -> None:
    captured, voided = new_id(), new_id()
    first, second = held(case, reference=captured), held(case, reference=voided)
    assert case.bank.capture(first, key=new_id()) == Captured()
    assert case.bank.capture(first, key=new_id()) == Captured()
    assert case.bank.void(first, key=new_id()) == Captured()
    assert case.bank.void(second, key=new_id()) == Voided()
    assert case.bank.void(second, key=new_id()) == Voided()
    assert case.bank.capture(second, key=new_id()) == Voided()
    assert case.bank.status(first) == Captured()
    assert case.bank.status(second) == Voided()
    assert (lines(case, captured), lines(case, voided)) == ([("debit", 1000)], [])


def test_a_part_is_captured_and_no_more_than_that_given_back(case: Case) -> None:
    assert case.bank.capabilities.partial_capture
    reference = new_id()
    bank_reference = held(case, reference=reference)
    assert case.bank.capture(bank_reference, 600, key="k" + reference) == Captured()
    with pytest.raises(KeyReused):
        case.bank.capture(bank_reference, 700, key="k" + reference)
    assert isinstance(case.bank.refund(bank_reference, 601, key=new_id()), Declined)
    assert case.bank.refund(bank_reference, 200, key="r" + reference) == Refunded()
    assert case.bank.refund(bank_reference, 200, key="r" + reference) == Refunded()
    assert sorted(lines(case, reference)) == [("debit", 600), ("refund", 200)]
    assert case.bank.refund(bank_reference, 400, key=new_id()) == Refunded()
    assert isinstance(case.bank.refund(bank_reference, 1, key=new_id()), Declined)


def test_the_answer_to_a_refund_that_was_lost_is_given_again(case: Case) -> None:
    reference = new_id()
    bank_reference = held(case, reference=reference)
    case.bank.capture(bank_reference, key=new_id())
    case.lose("refund")
    try:
        case.bank.refund(bank_reference, 300, key="r" + reference)
    except BankUnavailable:
        assert case.bank.refund(bank_reference, 300, key="r" + reference) == Refunded()
    assert sorted(lines(case, reference)) == [("debit", 1000), ("refund", 300)]


def test_a_decline_is_an_answer_and_holds_nothing(case: Case) -> None:
    reference = new_id()
    found = authorise(case, "declined", reference=reference)
    assert isinstance(found, Declined)
    assert case.bank.find(reference, datetime.now(UTC)) == found
    assert lines(case, reference) == []


def test_a_card_whose_customer_must_agree_is_held_when_she_has(case: Case) -> None:
    reference = new_id()
    found = authorise(case, "customer", reference=reference)
    assert isinstance(found, Linked)
    assert found.url.startswith("http")
    assert found.url not in repr(found)
    assert case.bank.status(found.reference) == found
    case.agree(found.url)
    agreed = case.bank.status(found.reference)
    assert isinstance(agreed, Authorised)
    assert case.bank.capture(agreed.reference, key=new_id()) == Captured()
    assert lines(case, reference) == [("debit", 1000)]


def test_a_link_that_is_void_debits_nothing_whatever_the_customer_does(case: Case) -> None:
    reference = new_id()
    found = authorise(case, "customer", reference=reference)
    assert isinstance(found, Linked)
    assert case.bank.void(found.reference, key=new_id()) == Voided()
    for method in ("GET", "POST"):
        requests.request(method, found.url, timeout=10, allow_redirects=False)
    assert case.bank.capture(found.reference, key=new_id()) == Voided()
    assert lines(case, reference) == []


def test_an_authorisation_is_found_by_our_reference_and_by_its_key_where_the_bank_can(case: Case) -> None:
    key, reference, since = new_id(), new_id(), datetime.now(UTC)
    assert case.bank.find(reference, since) is None
    found = authorise(case, key=key, reference=reference)
    assert case.bank.find(reference, since) == found
    if case.bank.capabilities.look_up_by_key:
        assert case.bank.look_up(key) == found
        assert case.bank.look_up(new_id()) is None


def test_a_token_is_known_by_its_brand_and_last_digits(case: Case) -> None:
    token = case.card("good")
    card = case.bank.card(token)
    assert (card.token, card.brand, len(card.last4)) == (token, "visa", 4)
    with pytest.raises(InvalidCard):
        case.bank.card("pm_unknown")


def test_a_bank_that_is_away_is_unavailable() -> None:
    away: list[Bank] = [
        HttpBank("http://127.0.0.1:9", "key", test_only=False),
        StripeBank("sk_live_1", return_url=None, url="http://127.0.0.1:9"),
    ]
    for bank in away:
        assert not bank.test_only
        with pytest.raises(BankUnavailable):
            bank.statement()
        with pytest.raises(BankUnavailable):
            bank.void("pi_1", key="k")
        with pytest.raises(BankUnavailable):
            bank.refund("pi_1", 1, key="k")


HOLD = {"id": "auth_1", "status": "authorised", "expires_at": "2099-01-01T00:00:00Z", "decline": None}


@pytest.fixture
def saying() -> Iterator[Callable[..., HttpBank]]:
    """The connector to a bank that answers everything with one status and body."""
    said: list[Response] = []
    server = make_server("127.0.0.1", 0, lambda *request: said[-1](*request), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def bank(body: object, status: int = 200) -> HttpBank:
        said.append(Response(json.dumps(body), status, mimetype="application/json"))
        return HttpBank(f"http://127.0.0.1:{server.server_port}", "key", test_only=True)

    yield bank
    server.shutdown()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 200),
        ({}, 200),
        (HOLD | {"status": "thinking"}, 200),
        (HOLD | {"id": None}, 200),
        (HOLD | {"id": "x" * 129}, 200),
        (HOLD | {"expires_at": "2099-01-01T00:00:00"}, 200),
        (HOLD | {"expires_at": "soon"}, 200),
        (HOLD, 302),
        ({"error": "no"}, 500),
        ({"error": {"code": "not_confirmed", "message": "proxy"}}, 502),
    ],
)
def test_an_answer_that_cannot_be_read_is_as_good_as_none(
    saying: Callable[..., HttpBank], body: object, status: int
) -> None:
    bank = saying(body, status)
    for ask in (
        lambda: bank.authorise("tok", 1, "USD", key="k", reference="r"),
        lambda: bank.look_up("k"),
        lambda: bank.refund("auth_1", 1, key="k"),
        bank.statement,
        lambda: bank.card("tok"),
    ):
        with pytest.raises(BankUnavailable):
            ask()


def test_a_refund_is_declined_only_by_that_word(saying: Callable[..., HttpBank]) -> None:
    assert saying({"status": "declined", "decline": "odd"}).refund("a", 1, key="k") == Declined(DeclineReason.OTHER)
    with pytest.raises(BankUnavailable):
        saying({"status": "pending", "decline": None}).refund("a", 1, key="k")


def test_what_a_bank_rejects_did_not_happen_whatever_its_error_looks_like(saying: Callable[..., HttpBank]) -> None:
    for body in ({"error": "no"}, {}, {"error": {"code": ["odd"]}}):
        with pytest.raises(BankRejected):
            saying(body, 400).void("auth_1", key="k")


def test_the_statement_comes_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "STATEMENT_PAGE", 2)
    server = make_server("127.0.0.1", 0, create_app(books.Books(tmp_path), "sandbox"), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bank = SandboxBank(f"http://127.0.0.1:{server.server_port}", "sandbox")
    token, expected = bank.tokenise(new_pan(), 2099, 1).token, []
    for amount in (101, 102, 103, 104):
        found = bank.authorise(token, amount, "USD", key=new_id(), reference="r")
        assert isinstance(found, Authorised)
        bank.capture(found.reference, key=new_id())
        expected.append(StatementLine("r", "debit", amount, "USD"))
    bank.refund(found.reference, 4, key=new_id())
    assert sorted(bank.statement(), key=lambda line: line.amount_minor)[1:] == expected
    assert len(bank.statement()) == 5
    server.shutdown()


def test_a_token_of_stripe_without_a_customer_and_a_number_are_refused(stripe_standin: StripeStandIn) -> None:
    bank = stripe_standin.bank()
    with pytest.raises(InvalidCard, match="customer"):
        bank.card("pm_card_visa")
    with pytest.raises(InvalidCard, match="pm_") as refused:
        bank.tokenise("4242424242424242", 2099, 1)
    assert "4242" not in str(refused.value)
    token = stripe_standin.token()
    assert bank.card(token.split("/")[1]) == Token(token, "visa", "4242")


def test_the_sandbox_implements_the_openapi_file(bank_url: str, tmp_path: Path) -> None:
    """schemathesis: no failure, bounded by its number of examples."""
    named = yaml.safe_load(OPENAPI.read_text())
    assert named["openapi"].startswith("3.1")
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program
    arguments = ["--max-examples=1", "--seed=1", "--request-timeout=30", "--no-color", "--warnings=off"]
    done = subprocess.run(
        [program, "run", str(OPENAPI), f"--url={bank_url}", "--header=X-Api-Key: sandbox", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: 10" in done.stdout
