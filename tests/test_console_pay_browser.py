# ruff: noqa: F811 -- fixtures of another module are named as arguments
"""The one-time pages in headless Chromium on a telephone's screen: a purchase without scripts, and axe's verdict."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from people_support import PIN, add_person
from playwright.sync_api import BrowserContext
from test_console_people_browser import CHINESE, NO_SCRIPTS, chromium, context, database, url  # noqa: F401

from ivr import onetime
from ivr.approval import addresses
from ivr.clock import utc_now
from ivr.console.pay.desk import HERE
from ivr.console.people.words import Words
from ivr.customers import card_requests, merchants
from ivr.keys import Keyring
from ivr.purchases import buy
from ivr.store.db import Database


def prepare(database: Database, keyring: Keyring, url: str) -> tuple[str, str, str]:
    """Her number, the address of a purchase's page, and that of a card's."""
    with database.transaction() as session:
        person = add_person(session, keyring)
        addresses.add(session, person.id, "Home", "12 Garden Road, Springfield", who="test", now=utc_now())
        shop = merchants.add_merchant(session, "City Water", who="test", now=utc_now())
        referred = merchants.refer(session, shop.id, "c", phone=None, number=person.number, now=utc_now())
        purchase = buy.ask(
            session, shop, referred, amount_minor=4_210, currency="USD", product_kind="book", description="",
            ship_to="48 Harbour Street", result_url=None, now=utc_now(),
        )  # fmt: skip
        card = card_requests.request_card(
            session, referred, bank_token=None, exp_month=None, exp_year=None, now=utc_now()
        )
        card.customer_id = person.id
    return person.number, *(onetime.url(keyring, url, k, r.id) for k, r in (("purchase", purchase), ("card", card)))


@pytest.mark.parametrize("context", [NO_SCRIPTS], indirect=True)
def test_without_scripts_she_buys(
    context: BrowserContext,
    url: str,
    database: Database,
    keyring: Keyring,
) -> None:
    number, purchase, _ = prepare(database, keyring, url)
    words, page = Words("en", HERE), context.new_page()
    page.goto(purchase)
    page.get_by_label(words("purchase.number")).fill(number)
    page.get_by_label(words("pin")).fill(PIN)
    page.get_by_role("button", name=words("purchase.sign")).click()
    page.get_by_label("Home: 12 Garden Road, Springfield").check()
    page.get_by_role("button", name=words("purchase.confirm", amount="USD 42.10")).click()
    assert words("status.confirmed") in page.inner_text("main")


@pytest.mark.parametrize("context", [{}, CHINESE], indirect=True, ids=["en", "zh"])
def test_axe_finds_nothing_on_any_page(
    context: BrowserContext,
    url: str,
    database: Database,
    keyring: Keyring,
    request: pytest.FixtureRequest,
) -> None:
    words, page = Words(request.node.callspec.id, HERE), context.new_page()
    number, purchase, card = prepare(database, keyring, url)

    def look() -> None:
        found = Axe().run(page)
        assert not found.violations_count, found.generate_report()
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    page.goto(purchase)
    look()
    page.get_by_label(words("purchase.number")).fill(number)
    page.get_by_label(words("pin")).fill(PIN)
    page.get_by_role("button", name=words("purchase.sign")).click()
    look()
    page.get_by_role("button", name=words("purchase.cancel")).click()
    assert words("result.cancelled") in page.inner_text("main")
    look()
    page.goto(card)
    look()
    page.get_by_label(words("pin")).fill(PIN)
    page.get_by_role("button", name=words("sign.go")).click()
    look()
    page.get_by_label(words("card.number"), exact=True).fill("4242424242424242")
    page.get_by_label(words("card.expiry")).fill("01/20")
    page.get_by_role("button", name=words("card.go")).click()
    assert words("error.card") in page.inner_text("main")
    look()
    page.goto(f"{url}/pay/nothing")
    look()
