"""Purchases: asked for by a merchant, confirmed on the hosted page, debited by a worker; every way that they end."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from api_support import Program, now, program
from flask import Flask
from people_support import OTHER_PIN, PIN, WRONG_PIN, Browser, add_person, appoint, sent
from purchases_support import ORIGIN, Buyer, page_path, purchase_of, refer_to, register_origin, standing, work
from sqlalchemy import select
from webhooks_support import Merchant as Server

from ivr.api.client import PaymentMessage, PurchaseMessage, verify_webhook
from ivr.approval import addresses
from ivr.approval.models import Answer, ApprovalRequest
from ivr.approval.policy import Role
from ivr.approval.requests import answer
from ivr.customers import accounts, budget, pins
from ivr.customers.accounts import PurchaseAccount
from ivr.customers.cards import add_card
from ivr.customers.models import Bill, BillStatus, Card, Customer, FailureBudget, new_id
from ivr.jobs import Job
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.purchases import buy
from ivr.purchases.models import Purchase
from ivr.purchases.pages import set_page
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.webhooks import outbox
from ivr.webhooks.deliver import endpoint_secret
from ivr.webhooks.register import add_endpoint

pytest_plugins = ["people_fixtures", "webhooks_fixtures"]


@pytest.fixture
def shop(pages: Flask, database: Database) -> Program:
    return program(pages.test_client(), database)


@pytest.fixture
def customer(database: Database, keyring: Keyring) -> Customer:
    with database.transaction() as session:
        return add_person(session, keyring)


@pytest.fixture
def buys(shop: Program, customer: Customer, new_browser: Callable[[], Browser]) -> Callable[..., Any]:
    def ask(*arguments: Any, **more: Any) -> tuple[dict[str, Any], Buyer]:
        references = len(shop.get("/customers").get_json()["data"])
        purchase = purchase_of(shop, refer_to(shop, customer, f"c-{references}"), *arguments, **more)
        return purchase, Buyer(customer, new_browser(), page_path(purchase))

    return ask


def test_a_customer_confirms_and_is_debited(
    shop: Program, buys: Callable[..., Any], database: Database, settings: Settings, customer: Customer
) -> None:
    purchase, buyer = buys()
    assert (purchase["status"], purchase["result"]) == ("open", None)
    buyer.browser.get(buyer.path)
    assert buyer.sees("USD 42.10")
    assert buyer.sees("City Water")
    assert not buyer.sees("4242")
    buyer.sign()
    assert buyer.sees("visa •••• 4242")
    given = buyer.confirm()
    assert given.headers["Refresh"] == "2"
    assert standing(shop, purchase) == ("confirmed", None)
    work(settings)
    assert standing(shop, purchase) == ("paid", "paid")
    buyer.browser.get(buyer.path)
    assert buyer.sees("Paid.")
    found = shop.get(f"/purchases/{purchase['id']}").get_json()
    assert shop.get(f"/bills/{found['bill']}").get_json()["status"] == "paid"
    assert shop.get(f"/payments/{found['payment']}").get_json()["status"] == "paid"
    with database.transaction() as session:
        account = session.get_one(PurchaseAccount, customer.id)
        assert (account.currency, account.limit_minor) == ("USD", accounts.MOST_A_PURCHASE_MINOR)
        assert [m.name for m, _ in accounts.merchants_of(session, account)] == ["City Water"]
        assert session.get_one(Payment, found["payment"]).evidence["factors"] == ["pin"]


def test_confirmed_twice_it_is_paid_once(
    shop: Program, buys: Callable[..., Any], database: Database, settings: Settings
) -> None:
    purchase, buyer = buys()
    buyer.sign()
    token = re.search(r'csrf_token" value="([^"]+)"', buyer.browser.text)
    assert token is not None
    for _ in range(2):
        buyer.browser.post(buyer.path, _token=token[1], do="confirm")
    work(settings)
    buyer.browser.post(buyer.path, _token=token[1], do="confirm")
    buyer.browser.post(buyer.path, _token=token[1], do="cancel")
    assert buyer.sees("Paid.")
    assert standing(shop, purchase) == ("paid", "paid")
    with database.transaction() as session:
        assert len(session.scalars(select(Payment)).all()) == 1


def test_the_bank_refuses_and_nothing_is_left_to_pay(
    shop: Program, buys: Callable[..., Any], database: Database, settings: Settings
) -> None:
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    work(settings, declines=True)
    assert standing(shop, purchase) == ("failed", "bank_refused")
    buyer.browser.get(buyer.path)
    assert buyer.sees("your bank refused")
    with database.transaction() as session:
        assert session.scalars(select(Bill.status)).all() == [BillStatus.CANCELLED]


def test_five_wrong_tries_end_it_alike_for_known_and_unknown(
    shop: Program, buys: Callable[..., Any], customer: Customer, new_browser: Callable[[], Browser], database: Database
) -> None:
    nobody = shop.made("/customers", {"reference": "nobody", "phone": "+14155559999"})["id"]
    known, buyer = buys()
    unknown = purchase_of(shop, nobody)
    stranger = Buyer(customer, new_browser(), page_path(unknown))
    for step in range(5):
        seen = []
        for one, purchase in ((buyer, known), (stranger, unknown)):
            given = one.sign(WRONG_PIN)
            seen.append((given.status_code, re.sub(r'value="[^"]+"', "", one.browser.text), standing(shop, purchase)))
        assert seen[0] == seen[1]
        assert seen[0][2] == (("failed", "unknown_user") if step == 4 else ("open", None))
    with database.transaction() as session:
        assert session.get_one(FailureBudget, (customer.id, False)).total == 5  # does not lock her own telephone
        assert session.get_one(FailureBudget, (customer.id, True)).total == 0
    buyer.sign()
    assert standing(shop, known) == ("failed", "unknown_user")


def test_who_guesses_in_parallel_guesses_no_more_than_the_budget(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All PINs are compared while somebody else writes, so nobody waits for the comparing; then each is judged."""
    compare, compared = pins.compare, threading.Semaphore(0)

    def counted(*arguments: Any) -> pins.Compared:
        found = compare(*arguments)
        compared.release()
        return found

    monkeypatch.setattr(pins, "compare", counted)
    guesses = [f"73028{n}" for n in range(8)]
    buyers = [buys()[1] for _ in guesses]
    for buyer in buyers:
        buyer.browser.get(buyer.path)
    with ThreadPoolExecutor(len(guesses)) as pool:
        with database.transaction() as session:
            budget.hold(session, [customer.id])
            answers = [pool.submit(buyer.sign, guess) for buyer, guess in zip(buyers, guesses, strict=True)]
            assert all(compared.acquire(timeout=8) for _ in guesses)
        assert {answer.result().status_code for answer in answers} == {200}
    with database.transaction() as session:
        assert session.get_one(FailureBudget, (customer.id, False)).total == budget.FREE_IN_A_ROW
    purchase, buyer = buys()
    buyer.sign(PIN)
    assert buyer.sees("This did not work.")
    assert standing(shop, purchase) == ("open", None)


def test_somebody_elses_pin_is_worth_nothing_and_is_not_counted(
    shop: Program, buys: Callable[..., Any], database: Database, keyring: Keyring
) -> None:
    purchase, buyer = buys()
    with database.transaction() as session:
        other = add_person(session, keyring, pin=OTHER_PIN)
    buyer.sign(OTHER_PIN, other.number)
    assert buyer.sees("This did not work.")
    assert not buyer.sees("4242")
    assert standing(shop, purchase) == ("open", None)
    with database.transaction() as session:
        assert session.get(FailureBudget, (other.id, False)) is None


def test_what_a_merchant_is_answered_does_not_tell_whom_we_know(
    shop: Program, customer: Customer, database: Database
) -> None:
    with database.transaction() as session:
        phone = session.get_one(Customer, customer.id).caller_ids[0].e164
    answers = []
    for n, number in enumerate((phone, "+14155559999")):
        referred = shop.made("/customers", {"reference": f"r{n}", "phone": number})["id"]
        made = purchase_of(shop, referred)
        read = shop.get(f"/purchases/{made['id']}").get_json()
        changing = {"id": "", "customer": "", "created_at": "", "expires_at": "", "page_url": ""}
        answers.append([one | changing for one in (made, read)])
    assert answers[0] == answers[1]


def test_no_page_without_its_token(buys: Callable[..., Any], browser: Browser) -> None:
    purchase, buyer = buys()
    other = purchase["id"] + "0" * 32
    for path in (f"/pay/purchase/{other}", buyer.path[:-1], buyer.path.replace("purchase", "card"), "/pay/x/y"):
        given = browser.get(path)
        assert (given.status_code, "USD 42.10" in browser.text) == (404, False)


def test_confirming_needs_the_proof_of_this_browser(shop: Program, buys: Callable[..., Any], browser: Browser) -> None:
    purchase, buyer = buys()
    buyer.sign()
    browser.get(buyer.path)
    browser.post(buyer.path, do="confirm")
    assert "Enter your PIN once more" in browser.text
    assert standing(shop, purchase) == ("open", None)
    assert browser.post(buyer.path, do="what").status_code == 400
    assert browser.post(buyer.path, _token="x", do="cancel").status_code == 400


def test_a_form_of_another_site_is_refused(shop: Program, buys: Callable[..., Any]) -> None:
    purchase, buyer = buys()
    buyer.sign()
    buyer.browser.headers["Sec-Fetch-Site"] = "cross-site"
    assert buyer.confirm().status_code == 403
    assert standing(shop, purchase) == ("open", None)


def test_she_declines(shop: Program, buys: Callable[..., Any]) -> None:
    purchase, buyer = buys()
    buyer.browser.post(buyer.path, do="cancel")
    assert standing(shop, purchase) == ("failed", "cancelled")
    assert buyer.sees("as you wished")


def test_a_page_expires(shop: Program, buys: Callable[..., Any], database: Database) -> None:
    purchase, buyer = buys()
    buyer.sign()
    with database.transaction() as session:
        session.get_one(Purchase, purchase["id"]).expires_at = now() - timedelta(seconds=1)
    buyer.confirm()
    assert buyer.sees("the time for it is over")
    assert standing(shop, purchase) == ("failed", "expired")


def test_without_a_card_there_is_no_bank(shop: Program, buys: Callable[..., Any], database: Database) -> None:
    with database.transaction() as session:
        for card in session.scalars(select(Card)):
            card.revoked_at = now()
    purchase, buyer = buys()
    buyer.sign()
    assert standing(shop, purchase) == ("open", None)
    buyer.confirm()
    assert standing(shop, purchase) == ("failed", "no_bank")
    with database.transaction() as session:
        assert session.scalars(select(PurchaseAccount)).all() == []


def test_play_money_is_not_real_money(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer
) -> None:
    with database.transaction() as session:
        session.get_one(Customer, customer.id).test = False
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert standing(shop, purchase) == ("failed", "no_bank")


def opened(database: Database, customer: Customer) -> None:
    """She has bought before."""
    with database.transaction() as session:
        card = session.scalars(select(Card).where(Card.customer_id == customer.id)).first()
        assert card is not None
        accounts.open_account(
            session, customer.id, currency="USD", card_id=card.id, bank="sandbox", who="test", now=now()
        )


def change(database: Database, customer: Customer, how: Callable[..., None], *values: Any) -> None:
    with database.transaction() as session:
        how(session, accounts.require(session, customer.id), *values, who="test", now=now())


def test_a_blocked_account_buys_nothing_and_an_unblocked_one_does(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer
) -> None:
    opened(database, customer)
    change(database, customer, accounts.block)
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert standing(shop, purchase) == ("failed", "account_blocked")
    change(database, customer, accounts.unblock)
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert standing(shop, purchase) == ("confirmed", None)


def test_a_refused_merchant_sells_nothing(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer
) -> None:
    opened(database, customer)
    change(database, customer, accounts.refuse, shop.merchant_id)
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert standing(shop, purchase) == ("failed", "merchant_not_allowed")
    with database.transaction() as session:
        assert session.scalars(select(Bill)).all() == []


@pytest.mark.parametrize(("limit", "currency"), [(4_209, "USD"), (9_999, "EUR")])
def test_more_than_the_accounts_limit_is_not_allowed(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer, limit: int, currency: str
) -> None:
    opened(database, customer)
    change(database, customer, accounts.set_limit, limit, currency)
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert standing(shop, purchase) == ("failed", "not_allowed")
    assert shop.get("/bills").get_json()["data"] == []  # nothing is left to pay


def test_a_new_account_buys_up_to_its_first_limit(shop: Program, buys: Callable[..., Any]) -> None:
    for amount_minor, ends in (
        (accounts.MOST_A_PURCHASE_MINOR + 1, "not_allowed"),
        (accounts.MOST_A_PURCHASE_MINOR, None),
    ):
        purchase, buyer = buys(amount_minor)
        buyer.sign()
        buyer.confirm()
        assert standing(shop, purchase)[1] == ends


def test_somebody_must_agree_first(
    shop: Program,
    buys: Callable[..., Any],
    database: Database,
    keyring: Keyring,
    customer: Customer,
    settings: Settings,
) -> None:
    with database.transaction() as session:
        supervisor = add_person(session, keyring, pin=OTHER_PIN)
        appoint(session, Role.SUPERVISOR, customer, supervisor)
    for given, ends in ((Answer.APPROVE, ("paid", "paid")), (Answer.REFUSE, ("failed", "not_allowed"))):
        purchase, buyer = buys()
        buyer.sign()
        confirmed = buyer.confirm()
        assert confirmed.headers["Refresh"] == "15"
        assert standing(shop, purchase) == ("awaiting_approval", None)
        with database.transaction() as session:
            asked = session.scalars(
                select(ApprovalRequest).join(Payment).where(Payment.idempotency_key == f"purchase:{purchase['id']}")
            ).one()
            answer(session, asked.id, supervisor.id, given, verified_by="pin, page", now=now())
        work(settings)
        assert standing(shop, purchase) == ends


def test_a_policy_that_wants_a_voice_is_not_met_here(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer
) -> None:
    from ivr.approval import policies
    from ivr.approval.policy import Factor, Policy, Rule

    with database.transaction() as session:
        spoken = Policy(name="own", rules=(Rule(name="by voice", factors=frozenset({Factor.VOICE})),))
        policies.put(session, customer.id, spoken, who="test", now=now())
    purchase, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert standing(shop, purchase) == ("failed", "not_allowed")


def test_goods_go_to_the_address_she_chooses(
    shop: Program, buys: Callable[..., Any], database: Database, customer: Customer
) -> None:
    with database.transaction() as session:
        home = addresses.add(session, customer.id, "Home", "12 Garden Road", who="test", now=now()).id
    for chosen, goes in (("given", "48 Harbour Street"), (home, "12 Garden Road")):
        purchase, buyer = buys(ship_to="48 Harbour Street")
        buyer.browser.get(buyer.path)
        assert not buyer.sees("12 Garden Road")
        buyer.sign()
        assert buyer.sees("Home: 12 Garden Road")
        assert buyer.sees("48 Harbour Street")
        buyer.confirm(address="0" * 16)
        assert buyer.sees("Choose again")
        buyer.confirm(address=chosen)
        payment = shop.get(f"/purchases/{purchase['id']}").get_json()["payment"]
        assert shop.get(f"/payments/{payment}").get_json()["ship_to"] == goes


def test_of_several_cards_she_chooses_once(
    shop: Program, buys: Callable[..., Any], database: Database, keyring: Keyring, customer: Customer
) -> None:
    with database.transaction() as session:
        second = add_card(
            session, customer.id, "5555555555554444", exp_year=now().year + 1, exp_month=1, token="tok2",
            authorised_by="test", keyring=keyring, now=now(),
        ).id  # fmt: skip
    purchase, buyer = buys()
    buyer.sign()
    assert buyer.sees("•••• 4242")
    assert buyer.sees("•••• 4444")
    buyer.confirm(card=second)
    with database.transaction() as session:
        assert session.scalars(select(Payment.card_id)).one() == second
    _, buyer = buys()
    buyer.sign()
    assert not buyer.sees("•••• 4242")
    buyer.confirm()
    with database.transaction() as session:
        assert session.scalars(select(Payment.card_id)).all() == [second, second]


def test_the_merchants_page_comes_first_and_the_result_goes_back(
    shop: Program, buys: Callable[..., Any], database: Database, settings: Settings
) -> None:
    refused = shop.post("/purchases", {
        "customer": shop.made("/customers", {"reference": "x", "phone": "+14155550001"})["id"], "amount_minor": 1,
        "currency": "USD", "product_kind": "book", "result_url": f"{ORIGIN}/done",
    })  # fmt: skip
    assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid")
    register_origin(database, shop)
    from ivr.customers.merchants import Merchant

    with database.transaction() as session:
        set_page(session, session.get_one(Merchant, shop.merchant_id), "Show", f"{ORIGIN}/tickets?a=1")
    purchase, _ = buys(product_kind="show", result_url=f"{ORIGIN}/done?b=2")
    jump, _, page = purchase["page_url"].partition("&page=")
    assert jump == f"{ORIGIN}/tickets?a=1&purchase={purchase['id']}"
    from urllib.parse import unquote

    buyer = Buyer(buys()[1].customer, buys()[1].browser, page_path({"page_url": unquote(page)}))
    buyer.sign()
    buyer.confirm()
    work(settings)
    given = buyer.browser.get(buyer.path)
    url = f"{ORIGIN}/done?b=2&purchase={purchase['id']}&status=paid&result=paid"
    assert given.headers["Refresh"] == f"10; url={url}"
    assert f'href="{url}"' in buyer.browser.text
    assert given.headers["Referrer-Policy"] == "no-referrer"


def test_the_chinese_page_is_chinese(buys: Callable[..., Any]) -> None:
    _, buyer = buys()
    buyer.browser.headers["Accept-Language"] = "zh"
    buyer.browser.get(buyer.path)
    assert buyer.sees("您的客户号")
    buyer.sign()
    assert buyer.sees("支付 USD 42.10")


def test_signing_is_limited_by_address(buys: Callable[..., Any], browser: Browser) -> None:
    codes = set()
    for _ in range(13):
        _, buyer = buys()
        buyer.browser.address = "203.0.113.99"
        codes |= {buyer.sign(WRONG_PIN).status_code for _ in range(5)}
    assert 429 in codes


def test_she_is_told_when_her_account_is_opened(
    buys: Callable[..., Any], database: Database, keyring: Keyring, customer: Customer
) -> None:
    _, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert sent(database, customer, "purchases.opened", keyring) == {"last4": "4242"}


# --- the merchant is told


@pytest.fixture
def told(
    shop: Program, merchant: Server, database: Database, keyring: Keyring, settings: Settings
) -> Callable[[], list[tuple[str, Any]]]:
    """Have a worker do what is due; then what the merchant's server has taken, checked and read as its program does."""
    with database.transaction() as session:
        url, name = merchant.url, "City Water"
        endpoint = add_endpoint(session, keyring, merchant=name, url=url, now=now(), allow_private=True)
    key = endpoint_secret(keyring, endpoint)

    def read() -> list[tuple[str, Any]]:
        work(settings.model_copy(update={"webhooks_to_private": True}))
        for headers, body in merchant.got:
            verify_webhook(key, headers, body, now())
        messages = [_message(body) for _, body in merchant.got]
        return [(message.type, message.data) for message in messages]

    return read


def _message(body: bytes) -> PaymentMessage | PurchaseMessage:
    of_payment = json.loads(body)["type"].startswith("payment.")
    return (PaymentMessage if of_payment else PurchaseMessage).model_validate_json(body)


def test_a_purchase_that_ends_without_a_payment_is_told_once(
    shop: Program, buys: Callable[..., Any], database: Database, told: Callable[[], Any], merchant: Server
) -> None:
    cancelled, buyer = buys()
    for _ in range(2):
        buyer.browser.post(buyer.path, do="cancel")
    assert [(kind, data.purchase, data.result) for kind, data in told()] == [
        ("purchase.cancelled", cancelled["id"], "cancelled")
    ]
    refused, buyer = buys(accounts.MOST_A_PURCHASE_MINOR + 1)
    buyer.sign()
    buyer.confirm()
    unknown, buyer = buys()
    for _ in range(5):
        buyer.sign(WRONG_PIN)
    assert [(kind, data.purchase, data.result) for kind, data in told()[1:]] == [
        ("purchase.refused", refused["id"], "not_allowed"),
        ("purchase.refused", unknown["id"], "unknown_user"),
    ]
    with database.transaction() as session:
        assert outbox.replay(session, refused["id"], now()) == 1
    kind, data = told()[3]
    assert merchant.ids()[3] == merchant.ids()[1]
    assert (kind, data.customer, data.amount_minor, data.currency) == (
        "purchase.refused", refused["customer"], refused["amount_minor"], "USD",
    )  # fmt: skip


def test_a_purchase_that_nobody_confirms_is_told_to_be_over(
    shop: Program,
    buys: Callable[..., Any],
    database: Database,
    told: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buy, "ENDED_AT_ONCE", 2)
    late = [buys()[0] for _ in range(5)]
    _, waiting = late.pop(), late.pop()
    confirmed, buyer = buys()
    buyer.sign()
    buyer.confirm()
    assert [kind for kind, _ in told()] == ["payment.paid"]  # of the others it is not the time yet
    with database.transaction() as session:
        for one in [*late, confirmed]:
            session.get_one(Purchase, one["id"]).expires_at = now() - timedelta(seconds=1)
        due = session.scalars(select(Job).where(Job.kind == buy.EXPIRE_JOB)).all()
        assert len(due) <= 2  # one a minute, however many purchases
        for job in due:
            assert now() < job.run_at <= now() + buy.LIFE + timedelta(minutes=1)
            job.run_at = now()
    messages = told()[1:]
    assert {kind for kind, _ in messages} == {"purchase.expired"}
    assert {data.purchase for _, data in messages} == {one["id"] for one in late}
    assert standing(shop, late[0]) == ("failed", "expired")
    assert standing(shop, confirmed) == ("paid", "paid")
    assert standing(shop, waiting) == ("open", None)


# --- many at once


def items(shop: Program, customer: Customer, count: int) -> list[dict[str, Any]]:
    referred = refer_to(shop, customer)
    return [
        {
            "idempotency_key": new_id(),
            "customer": referred,
            "amount_minor": 100 + n,
            "currency": "USD",
            "product_kind": "book",
        }
        for n in range(count)
    ]


def test_each_item_of_a_batch_stands_by_itself(shop: Program, customer: Customer) -> None:
    asked = items(shop, customer, 4)
    asked[1]["customer"] = "0" * 16
    asked[2]["currency"] = "XXY"
    first = shop.made("/purchases:batch", {"items": asked})["items"]
    assert [one["status"] for one in first] == [201, 404, 422, 201]
    assert [(one["problem"] or {}).get("code") for one in first] == [None, "not_found", "invalid", None]
    assert first[0]["purchase"] == shop.get(f"/purchases/{first[0]['purchase']['id']}").get_json()
    asked[2]["currency"] = "USD"
    asked[3]["amount_minor"] = 999
    again = shop.made("/purchases:batch", {"items": asked})["items"]
    assert [one["status"] for one in again] == [201, 404, 201, 409]
    assert again[0] == first[0]
    assert again[3]["problem"]["code"] == "idempotency_key_used"
    assert len(shop.get("/purchases").get_json()["data"]) == 3


def test_an_items_key_is_that_of_a_request_by_itself(shop: Program, customer: Customer) -> None:
    (item,) = items(shop, customer, 1)
    (made,) = shop.made("/purchases:batch", {"items": [item]})["items"]
    body = {name: value for name, value in item.items() if name != "idempotency_key"}
    assert shop.made("/purchases", body, key=item["idempotency_key"]) == made["purchase"]


def test_a_batch_has_200_items_at_most_and_counts_as_many(shop: Program, customer: Customer) -> None:
    asked = items(shop, customer, 200)
    before = int(shop.get("/purchases").headers["RateLimit-Remaining"])
    given = shop.post("/purchases:batch", {"items": asked})
    assert [one["status"] for one in given.get_json()["items"]] == [201] * 200
    assert int(given.headers["RateLimit-Remaining"]) <= before - 200
    assert shop.post("/purchases:batch", {"items": asked + items(shop, customer, 1)}).status_code == 422
    assert shop.post("/purchases:batch", {"items": []}).status_code == 422


def test_lists_of_a_customer(shop: Program, customer: Customer) -> None:
    mine = purchase_of(shop, refer_to(shop, customer))
    purchase_of(shop, shop.made("/customers", {"reference": "x", "phone": "+14155550001"})["id"])
    assert shop.get("/purchases", customer=mine["customer"]).get_json()["data"] == [mine]
    assert len(shop.get("/purchases").get_json()["data"]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_minor": 0}, {"currency": "usd"}, {"currency": "XXY"}, {"product_kind": ""}, {"description": "new"},
        {"ship_to": ""}, {"ship_to": "4242424242424242"}, {"result_url": "http://shop.example/"}, {"more": 1},
        {"product_kind": " "},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(shop: Program, customer: Customer, wrong: dict[str, Any]) -> None:
    body = {"customer": refer_to(shop, customer), "amount_minor": 1, "currency": "USD", "product_kind": "book"}
    given = shop.post("/purchases", body | wrong)
    assert (given.status_code, given.get_json()["code"]) == (422, "invalid")
    assert "4242424242424242" not in given.text
    unknown = shop.post("/purchases", body | {"customer": "0" * 16})
    assert (unknown.status_code, unknown.get_json()["code"]) == (404, "not_found")
    assert PIN not in given.text
