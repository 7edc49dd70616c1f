"""The API from a merchant's program in Python: one method for each operation, safe to be sent again.

    client = Client("https://pay.example.com", key)
    customer = client.create_customer(NewCustomer(reference="c-17", phone="+15035550123"))
    client.create_bill(NewBill(customer=customer.id, amount_minor=4210, currency="USD"))

A request whose answer does not come, or is "too many" or "not now", is sent again, with the idempotency key that was
made for it: it is carried out once. What the service refuses is raised as one of ``ivr.api.problems``.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import requests
from pydantic import BaseModel

from ivr.api import problems
from ivr.api.problems import Problem
from ivr.api.shapes import (
    MOST,
    PREFIX,
    Amount,
    App,
    AppCharge,
    AskedAppCharge,
    Batch,
    BatchAnswers,
    BatchItem,
    Bill,
    Binding,
    Card,
    Customer,
    MadeWebhook,
    NewAppCharge,
    NewBill,
    NewBinding,
    NewCard,
    NewCustomer,
    NewPurchase,
    NewRefund,
    NewText,
    NewWebhook,
    Page,
    Payment,
    PaymentMessage,
    Purchase,
    PurchaseMessage,
    Refund,
    Text,
    Webhook,
)  # fmt: skip
from ivr.webhooks.signature import BadSignature
from ivr.webhooks.signature import verified as verify_webhook

__all__ = [
    "Amount", "App", "AppCharge", "AskedAppCharge", "BadSignature", "Batch", "BatchAnswers", "BatchItem",
    "Bill", "Binding", "Card", "Client", "Customer", "MadeWebhook", "NewAppCharge", "NewBill", "NewBinding",
    "NewCard", "NewCustomer", "NewPurchase", "NewRefund", "NewText", "NewWebhook", "OtherProblem", "Payment",
    "PaymentMessage", "Problem", "Purchase", "PurchaseMessage", "Refund", "Text", "Unanswered", "Webhook", "problems",
    "verify_webhook",
]  # fmt: skip

TIMEOUT_S = 15.0
ATTEMPTS = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
TOO_MANY, UNKNOWN = 429, {502, 503, 504}
"""Answers after which the same request may get a better one; of ``UNKNOWN``, a proxy's or the service's, it is not
told whether the request was carried out."""

T = TypeVar("T", bound=BaseModel)


class Unanswered(Exception):
    """The request was sent as often as may be, and whether it was carried out is not known.

    The same call with ``key`` finds out: it is carried out then, or its first answer is given.
    """

    def __init__(self, method: str, path: str, key: str | None) -> None:
        super().__init__(f"{method} {path} was not answered")
        self.key = key


class OtherProblem(Problem):
    """A problem that this client does not know by its code."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.title = status, code, "Another problem"  # type: ignore[misc]


class Client:
    """Speaks for one merchant. Not to be shared by threads, as a ``requests.Session`` is not.

    Methods that change something take an idempotency ``key``; without one they make one, new for each call. Give your
    own, such as an order's number, where your program may itself be started again.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base = base_url.rstrip("/") + PREFIX
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {key}"
        self._timeout_s, self._attempts, self._sleep = timeout_s, attempts, sleep

    def create_customer(self, new: NewCustomer, *, key: str | None = None) -> Customer:
        return self._post("/customers", Customer, new, key)

    def list_customers(self) -> Iterator[Customer]:
        return self._list("/customers", Customer)

    def get_customer(self, customer_id: str) -> Customer:
        return self._get(f"/customers/{customer_id}", Customer)

    def propose_text(self, new: NewText, *, key: str | None = None) -> Text:
        return self._post("/texts", Text, new, key)

    def list_texts(self) -> Iterator[Text]:
        return self._list("/texts", Text)

    def get_text(self, text_id: str) -> Text:
        return self._get(f"/texts/{text_id}", Text)

    def create_bill(self, new: NewBill, *, key: str | None = None) -> Bill:
        return self._post("/bills", Bill, new, key)

    def list_bills(self, *, customer: str | None = None) -> Iterator[Bill]:
        return self._list("/bills", Bill, customer=customer)

    def get_bill(self, bill_id: str) -> Bill:
        return self._get(f"/bills/{bill_id}", Bill)

    def ring_bill(self, bill_id: str, *, key: str | None = None) -> Bill:
        return self._post(f"/bills/{bill_id}/ring", Bill, None, key)

    def cancel_bill(self, bill_id: str, *, key: str | None = None) -> Bill:
        return self._post(f"/bills/{bill_id}/cancel", Bill, None, key)

    def list_payments(self, *, bill: str | None = None) -> Iterator[Payment]:
        return self._list("/payments", Payment, bill=bill)

    def get_payment(self, payment_id: str) -> Payment:
        return self._get(f"/payments/{payment_id}", Payment)

    def post_payment(self, payment_id: str, amount: Amount | None = None, *, key: str | None = None) -> Payment:
        return self._post(f"/payments/{payment_id}/post", Payment, amount, key)

    def release_payment(self, payment_id: str, *, key: str | None = None) -> Payment:
        return self._post(f"/payments/{payment_id}/release", Payment, None, key)

    def create_refund(self, new: NewRefund, *, key: str | None = None) -> Refund:
        return self._post("/refunds", Refund, new, key)

    def list_refunds(self, *, payment: str | None = None) -> Iterator[Refund]:
        return self._list("/refunds", Refund, payment=payment)

    def get_refund(self, refund_id: str) -> Refund:
        return self._get(f"/refunds/{refund_id}", Refund)

    def create_webhook(self, new: NewWebhook, *, key: str | None = None) -> MadeWebhook:
        return self._post("/webhooks", MadeWebhook, new, key)

    def list_webhooks(self) -> Iterator[Webhook]:
        return self._list("/webhooks", Webhook)

    def get_webhook(self, webhook_id: str) -> Webhook:
        return self._get(f"/webhooks/{webhook_id}", Webhook)

    def remove_webhook(self, webhook_id: str) -> None:
        self._send("DELETE", f"/webhooks/{webhook_id}")

    def request_card(self, new: NewCard, *, key: str | None = None) -> Card:
        return self._post("/cards", Card, new, key)

    def list_cards(self, *, customer: str | None = None) -> Iterator[Card]:
        return self._list("/cards", Card, customer=customer)

    def get_card(self, card_id: str) -> Card:
        return self._get(f"/cards/{card_id}", Card)

    def create_purchase(self, new: NewPurchase, *, key: str | None = None) -> Purchase:
        return self._post("/purchases", Purchase, new, key)

    def create_purchases(self, batch: Batch, *, key: str | None = None) -> BatchAnswers:
        return self._post("/purchases:batch", BatchAnswers, batch, key)

    def list_purchases(self, *, customer: str | None = None) -> Iterator[Purchase]:
        return self._list("/purchases", Purchase, customer=customer)

    def get_purchase(self, purchase_id: str) -> Purchase:
        return self._get(f"/purchases/{purchase_id}", Purchase)

    def list_apps(self) -> Iterator[App]:
        return self._list("/apps", App)

    def create_binding(self, app_id: str, new: NewBinding, *, key: str | None = None) -> Binding:
        return self._post(f"/apps/{app_id}/bindings", Binding, new, key)

    def list_bindings(self, *, customer: str | None = None) -> Iterator[Binding]:
        return self._list("/bindings", Binding, customer=customer)

    def get_binding(self, binding_id: str) -> Binding:
        return self._get(f"/bindings/{binding_id}", Binding)

    def remove_binding(self, binding_id: str) -> None:
        self._send("DELETE", f"/bindings/{binding_id}")

    def create_app_charge(self, new: NewAppCharge, *, key: str | None = None) -> AskedAppCharge:
        return self._post("/app-charges", AskedAppCharge, new, key)

    def list_app_charges(self, *, app: str | None = None, customer: str | None = None) -> Iterator[AppCharge]:
        return self._list("/app-charges", AppCharge, app=app, customer=customer)

    def get_app_charge(self, charge_id: str) -> AskedAppCharge:
        return self._get(f"/app-charges/{charge_id}", AskedAppCharge)

    # What those are made of.

    def _get(self, path: str, returns: type[T]) -> T:
        return _read(self._send("GET", path), returns)

    def _post(self, path: str, returns: type[T], sent: BaseModel | None, key: str | None) -> T:
        body = sent.model_dump(mode="json", exclude_unset=True) if sent else {}
        return _read(self._send("POST", path, json=body, key=key or secrets.token_hex(16)), returns)

    def _list(self, path: str, of: type[T], **query: str | None) -> Iterator[T]:
        """Every entry, the newest first; pages are fetched as they are needed."""
        cursor: str | None = None
        while True:
            given = self._send("GET", path, params={**query, "limit": str(MOST), "cursor": cursor})
            part = _read(given, Page[of])  # type: ignore[valid-type]
            yield from part.data
            cursor = part.next
            if cursor is None:
                return

    def _send(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> requests.Response:
        """The answer of a success. Raises Problem, Unanswered."""
        headers = {"Idempotency-Key": key} if key else {}
        given, lost, wait_s = None, False, 0.0
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(wait_s)
            try:
                given = self._http.request(
                    method, self._base + path, headers=headers, json=json, params=params,
                    timeout=self._timeout_s, allow_redirects=False,
                )  # fmt: skip
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                lost, wait_s = True, _wait_s(attempt)
                continue
            # What was to be removed is, where it is not there, perhaps by the attempt whose answer was lost.
            if 200 <= given.status_code < 300 or (lost and method == "DELETE" and given.status_code == 404):
                return given
            if given.status_code not in {TOO_MANY, *UNKNOWN}:
                raise _problem(given)
            lost = lost or given.status_code in UNKNOWN
            wait_s = _wait_s(attempt, given.headers.get("Retry-After", ""))
            if wait_s > LONGEST_WAIT_S:  # nobody is waiting any more by then
                break
        problem = _problem(given) if given is not None else None
        if problem is None or lost:
            raise Unanswered(method, path, key) from problem
        raise problem


def _read(given: requests.Response, returns: type[T]) -> T:
    return returns.model_validate_json(given.content, extra="ignore")  # a later service may tell more


def _wait_s(attempt: int, asked: str = "") -> float:
    """As long as the service asks for; else ever longer, and never as long as everybody else."""
    if asked.isdecimal():
        return float(asked)
    return min(FIRST_WAIT_S * 2.0**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)


def _problem(given: requests.Response) -> Problem:
    try:
        document = given.json()
        code, detail, faults = document["code"], document["detail"], document.get("errors")
    except (ValueError, KeyError, TypeError):
        return OtherProblem(given.status_code, "unreadable", f"HTTP {given.status_code}, and no problem+json")
    for known in Problem.__subclasses__():
        if getattr(known, "code", None) == code:
            return known(detail, given.headers, faults)
    return OtherProblem(given.status_code, code, detail)
