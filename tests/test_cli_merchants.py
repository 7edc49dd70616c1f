"""The operator's commands of merchants and of purchase accounts, as he types them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_cli_operator import Desk, desk  # noqa: F401

from ivr.api import keys
from ivr.clock import utc_now
from ivr.customers import accounts, cards
from ivr.customers.accounts import PurchaseAccount
from ivr.customers.lookup import customer_by_number
from ivr.customers.merchants import MerchantText, require_merchant
from ivr.customers.models import Audit, new_id
from ivr.keys import Keyring
from ivr.purchases.pages import page_for
from ivr.settings import settings
from ivr.store.db import Database


@contextmanager
def rows() -> Iterator[Session]:
    """What no command of these does: customers' and merchants' own doing."""
    database = Database(settings().sqlalchemy_url())
    with database.transaction() as session:
        yield session
    database.engine.dispose()


def trail() -> list[str]:
    with rows() as session:
        return list(session.scalars(select(Audit.what).where(Audit.who.startswith("operator")).order_by(Audit.at)))


def add_card(number: str, pan: str) -> str:
    now = utc_now()
    with rows() as session:
        customer = customer_by_number(session, number)
        assert customer is not None
        return cards.add_card(
            session, customer.id, pan, exp_year=now.year + 2, exp_month=1, token=f"tok_{pan[-4:]}",
            authorised_by="test", keyring=Keyring.load(settings()), now=now,
        ).id  # fmt: skip


@pytest.fixture
def buyer(desk: Desk) -> str:  # noqa: F811
    """The number of a customer who has bought once, from the water works, with the card that ends in 4242."""
    number = desk.customer("--test")
    desk.ok("merchant", "add", "City Water")
    card_id, now = add_card(number, "4242424242424242"), utc_now()
    with rows() as session:
        customer = customer_by_number(session, number)
        assert customer is not None
        account = accounts.open_account(
            session, customer.id, currency="USD", card_id=card_id, bank="sandbox", who="test", now=now
        )
        accounts.allow(session, account, require_merchant(session, "City Water").id, who="test", now=now)
    return number


def account() -> PurchaseAccount:
    with rows() as session:
        return session.scalars(select(PurchaseAccount)).one()


# --- ivr account


def test_an_account_is_listed_blocked_and_unblocked(desk: Desk, buyer: str) -> None:  # noqa: F811
    (line,) = (line for line in desk.ok("account", "list").splitlines() if buyer in line)
    assert all(word in line for word in ("USD 500.00", "visa •••• 4242", "sandbox"))
    assert "blocked" not in line
    assert "blocked" in desk.ok("account", "block", buyer)
    assert account().blocked_at is not None
    assert "blocked" in desk.ok("account", "list")
    desk.ok("account", "block", buyer)  # stays so, and is noted once
    assert "not blocked" in desk.ok("account", "unblock", buyer)
    assert account().blocked_at is None
    assert trail()[-2:] == ["purchase_account.blocked", "purchase_account.unblocked"]


def test_an_accounts_limit_and_card_are_set(desk: Desk, buyer: str) -> None:  # noqa: F811
    assert "EUR 20.50" in desk.ok("account", "limit", buyer, "20.50", "EUR")
    assert (account().limit_minor, account().currency) == (2050, "EUR")
    second = add_card(buyer, "5555555555554444")
    assert second in desk.ok("account", "card", buyer, second)
    assert account().card_id == second
    assert "•••• 4444" in desk.ok("account", "list")
    assert trail()[-2:] == ["purchase_account.limit", "purchase_account.card"]


def test_whom_an_account_buys_from_is_decided(desk: Desk, buyer: str) -> None:  # noqa: F811
    desk.ok("merchant", "add", "Corner Bookshop")
    assert "Corner Bookshop" not in desk.ok("account", "merchants", buyer)
    listed = desk.ok("account", "merchants", buyer, "--allow", "Corner Bookshop", "--refuse", "City Water")
    refused = {name: "refused" in line for line in listed.splitlines() for name in ("City", "Corner") if name in line}
    assert refused == {"City": True, "Corner": False}
    assert "refused" not in desk.ok("account", "merchants", buyer, "--allow", "City Water")


def test_what_cannot_be_done_with_an_account_is_said_and_changes_nothing(
    desk: Desk,  # noqa: F811
    buyer: str,
) -> None:
    other = desk.ok("customer", "add", "--phone", "+15035550177").split()[1]
    theirs, before = add_card(other, "5555555555554444"), desk.everything()
    for arguments, says in (
        (("block", other), "no purchase account"),
        (("block", "1234566"), "no customer has the number"),
        (("limit", buyer, "0", "USD"), "above zero"),
        (("limit", buyer, "5", "XXY"), "currency"),
        (("limit", buyer, "1.234", "USD"), "USD"),
        (("card", buyer, theirs), "not authorised"),
        (("card", buyer, new_id()), "not authorised"),
        (("merchants", buyer, "--allow", "City Water", "--refuse", "Nobody"), "there is no merchant"),
    ):
        result = desk.run("account", *arguments)
        assert result.exit_code == 2, result.output
        assert says in result.output
    assert desk.everything() == before


def test_before_anybody_has_bought_there_is_no_account(desk: Desk) -> None:  # noqa: F811
    assert "no purchase accounts" in desk.ok("account", "list")


# --- ivr merchant


def test_where_a_kind_of_product_is_confirmed_is_chosen(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IVR_WEBHOOKS_TO_PRIVATE", "true")
    settings.cache_clear()
    desk.ok("merchant", "add", "City Water")
    assert "goods where an address is given" in desk.ok("merchant", "page", "City Water")
    url = "https://localhost:8443/tickets"
    for arguments, says in (
        (("show", url), "not registered"),
        (("show",), "give the page too"),
        (("show", "nothing"), "a page is goods, service or a URL"),
        (("x" * 41, "goods"), "a kind of product"),
    ):
        result = desk.run("merchant", "page", "City Water", *arguments)
        assert result.exit_code == 2, result.output
        assert says in result.output
    assert desk.ok("merchant", "origin", "City Water", url).endswith("https://localhost:8443\n")
    for kind, page in (("Show", url), ("book", "service"), ("BOOK", "goods")):
        listed = desk.ok("merchant", "page", "City Water", kind, page)
    chosen = [line.replace("│", "").split() for line in listed.splitlines()]
    assert ["book", "goods"] in chosen
    assert ["show", url] in chosen
    with rows() as session:
        shop = require_merchant(session, "City Water")
        assert page_for(session, shop, "book", None) == ("goods", None)
        assert page_for(session, shop, "show", None) == ("service", url)
    assert trail()[-3:] == ["merchant.page"] * 3


def test_a_key_is_shown_once_and_can_be_taken_back(desk: Desk) -> None:  # noqa: F811
    desk.ok("merchant", "add", "City Water")
    shown = desk.ok("merchant", "key", "City Water", "--label", "shop", "--scope", "bills:read").splitlines()[-1]
    key_id, secret = shown.split("_")[1], shown.split("_", 2)[2]
    assert secret not in desk.ok("merchant", "keys", "City Water") + desk.everything()
    with rows() as session:
        found = keys.check(session, shown)
        assert found is not None
        assert found[0].scopes == ["bills:read"]
    desk.ok("merchant", "revoke", key_id)
    with rows() as session:
        assert keys.check(session, shown) is None
    assert desk.run("merchant", "key", "City Water", "--scope", "bills:eat").exit_code == 2


def test_texts_are_approved_and_refused(desk: Desk) -> None:  # noqa: F811
    merchant = desk.ok("merchant", "add", "City Water").split()[1].rstrip(":")
    with rows() as session:
        text = MerchantText(id=new_id(), merchant_id=merchant, text="Water of the quarter", created_at=utc_now())
        session.add(text)
    assert "proposed" in desk.ok("merchant", "texts")
    for decide, status in (("approve", "approved"), ("refuse", "refused")):
        desk.ok("merchant", decide, text.id)
        assert status in desk.ok("merchant", "texts", "--merchant", "City Water")
    assert desk.run("merchant", "approve", "nothing").exit_code == 2


def test_a_closed_merchant_has_no_valid_keys(desk: Desk) -> None:  # noqa: F811
    desk.ok("merchant", "add", "City Water")
    shown = desk.ok("merchant", "key", "City Water").splitlines()[-1]
    desk.ok("merchant", "close", "City Water")
    assert "closed" in desk.ok("merchant", "list")
    with rows() as session:
        assert keys.check(session, shown) is None
    assert desk.run("merchant", "page", "City Water", "book", "goods").exit_code == 2
