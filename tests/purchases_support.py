"""What the tests of purchases share: a merchant that asks, a customer who confirms in a browser, the worker."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from api_support import Program
from people_support import BASE_URL, PIN, Browser
from werkzeug.test import TestResponse

from ivr.customers.merchants import MerchantOrigin
from ivr.customers.models import Customer
from ivr.payments import worker
from ivr.payments.bank import Authorised, Capabilities, Captured, Declined, DeclineReason
from ivr.settings import Settings
from ivr.store.db import Database

ORIGIN = "https://shop.example"


class Bank:
    """A bank that answers at once, as it was told to."""

    name, test_only = "sandbox", True
    capabilities = Capabilities(False, True, True, True)

    def __init__(self, declines: bool = False) -> None:
        self.declines = declines

    def authorise(self, *_: object, key: str, **__: object) -> Authorised | Declined:
        return Declined(DeclineReason.INSUFFICIENT_FUNDS) if self.declines else Authorised(f"auth_{key}")

    def capture(self, *_: object, **__: object) -> Captured:
        return Captured()


def work(settings: Settings, *, declines: bool = False) -> None:
    """What a worker does until nothing is due."""
    bank: Any = Bank(declines)
    worker.run(settings, threading.Event(), once=True, bank=bank, channels={})


@dataclass
class Buyer:
    """A customer at her browser, on the page of one purchase."""

    customer: Customer
    browser: Browser
    path: str

    def sign(self, pin: str = PIN, number: str = "") -> TestResponse:
        return self.browser.post(self.path, do="sign", number=number or self.customer.number, pin=pin)

    def confirm(self, **choice: str) -> TestResponse:
        return self.browser.post(self.path, do="confirm", **choice)

    def sees(self, text: str) -> bool:
        return text in self.browser.text


def refer_to(shop: Program, customer: Customer, reference: str = "c-1") -> str:
    return str(shop.made("/customers", {"reference": reference, "number": customer.number})["id"])


def purchase_of(shop: Program, customer_id: str, amount_minor: int = 4_210, **more: Any) -> dict[str, Any]:
    body = {"customer": customer_id, "amount_minor": amount_minor, "currency": "USD", "product_kind": "book", **more}
    return shop.made("/purchases", body)


def page_path(purchase: dict[str, Any]) -> str:
    return str(purchase["page_url"]).removeprefix(BASE_URL)


def standing(shop: Program, purchase: dict[str, Any]) -> tuple[str, str | None]:
    found = shop.get(f"/purchases/{purchase['id']}").get_json()
    return found["status"], found["result"]


def register_origin(database: Database, shop: Program, origin: str = ORIGIN) -> None:
    from api_support import now

    with database.transaction() as session:
        session.add(MerchantOrigin(merchant_id=shop.merchant_id, origin=origin, created_at=now()))
