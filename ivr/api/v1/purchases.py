"""Purchases: a customer of yours confirms them on a page, and is debited."""

from __future__ import annotations

from typing import Any, Literal

from flask import request
from pydantic import AwareDatetime, Field
from sqlalchemy import Select, select

from ivr import onetime
from ivr.api import problems
from ivr.api.lists import Page, PageQuery, page
from ivr.api.operations import Call, Data, carried_out, once, operation
from ivr.api.problems import NotFound
from ivr.api.v1 import customers
from ivr.customers import audit
from ivr.customers.merchants import LONGEST_SPOKEN
from ivr.customers.money import MOST_MINOR
from ivr.payments.models import Payment
from ivr.purchases import buy
from ivr.purchases.models import Purchase as Row
from ivr.purchases.pages import with_query
from ivr.purchases.results import Result, Status, standing
from ivr.webhooks.address import LONGEST_URL

MOST_ITEMS = 200


class NewPurchase(Data):
    """What a customer of yours wants to buy."""

    customer: str = Field(pattern="^[0-9a-f]{16}$", description="The id of your reference to her.")
    amount_minor: int = Field(gt=0, le=MOST_MINOR, description="In the currency's smallest unit.")
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217.")
    product_kind: str = Field(min_length=1, max_length=40, description="Chooses the page that she confirms it on.")
    description: str = Field("", max_length=LONGEST_SPOKEN, description="One of your approved texts, or nothing.")
    ship_to: str | None = Field(None, min_length=1, max_length=200, description="Where goods go, on one line.")
    result_url: str | None = Field(
        None, min_length=1, max_length=LONGEST_URL, description="Where she goes afterwards: https, a registered origin."
    )


class Purchase(Data):
    """A purchase request. ``result`` says how it ended, once it has; it is told to you as late as to the customer."""

    id: str
    customer: str
    amount_minor: int
    currency: str
    product_kind: str
    description: str
    status: Status
    result: Result | None
    page_url: str = Field(description="Where to send her.")
    payment: str | None = Field(description="Once she has confirmed it.")
    bill: str | None = Field(description="Its bill, which payment webhooks name.")
    created_at: AwareDatetime
    expires_at: AwareDatetime


class PurchaseQuery(PageQuery):
    """Which purchases."""

    customer: str | None = Field(None, pattern="^[0-9a-f]{16}$")


class BatchItem(NewPurchase):
    """One of many."""

    idempotency_key: str = Field(pattern="^[!-~]{8,64}$", description="Its own, as in Idempotency-Key.")


class Batch(Data):
    """Many purchases."""

    items: list[BatchItem] = Field(min_length=1, max_length=MOST_ITEMS)


class Refusal(Data):
    """Why an item was not carried out: a problem, as a request by itself would be answered."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class BatchAnswer(Data):
    """What became of one item: a purchase, or a problem."""

    idempotency_key: str
    status: Literal[201, 404, 409, 422]
    purchase: Purchase | None
    problem: Refusal | None


class BatchAnswers(Data):
    """What became of each item, in the order they came in."""

    items: list[BatchAnswer]


def _with_url(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    """The page's address, which is made and not stored."""
    public = call.desk.services.settings.public_url or request.host_url
    url = onetime.url(call.desk.keyring, public, "purchase", document["id"])
    jump = call.session.get_one(Row, document["id"]).jump_url
    return document | {"page_url": with_query(jump, purchase=document["id"], page=url) if jump else url}


def _each_with_url(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    return document | {"data": [_with_url(call, one) for one in document["data"]]}


def _items_with_url(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    items = [
        item | {"purchase": _with_url(call, item["purchase"])} if item["purchase"] else item
        for item in document["items"]
    ]
    return {"items": items}


@operation(
    "POST", "/purchases", "purchases:write", sent=NewPurchase, returns=Purchase, status=201,
    problems=(NotFound,), links=("get_purchase",), reveal=_with_url,
)  # fmt: skip
def create_purchase(call: Call, given: NewPurchase) -> Purchase:
    """Ask a customer to buy something."""
    return _create(call, given)


@operation(
    "POST", "/purchases:batch", "purchases:write", sent=Batch, returns=BatchAnswers,
    reveal=_items_with_url, longest=1024 * 1024, weight=lambda sent: len(sent.items),
)  # fmt: skip
def create_purchases(call: Call, given: Batch) -> BatchAnswers:
    """Ask for many purchases, each by itself: one that is refused keeps no other from being made."""
    return BatchAnswers(items=[_item(call, item) for item in given.items])


def _item(call: Call, item: BatchItem) -> BatchAnswer:
    key = item.idempotency_key
    asked = NewPurchase(**item.model_dump(exclude={"idempotency_key"}))
    try:
        made = once("create_purchase", call, asked, key, lambda: carried_out(lambda: _create(call, asked)))
    except problems.Problem as problem:
        told = Refusal.model_validate(problem.document())
        return BatchAnswer.model_validate(
            {"idempotency_key": key, "status": told.status, "purchase": None, "problem": told}
        )
    return BatchAnswer(
        idempotency_key=key, status=201, purchase=Purchase.model_validate(made, strict=False), problem=None
    )


@operation("GET", "/purchases", "purchases:read", sent=PurchaseQuery, returns=Page[Purchase], reveal=_each_with_url)
def list_purchases(call: Call, asked: PurchaseQuery) -> Page[Purchase]:
    """Your purchases, the newest first."""
    query = _mine(call)
    if asked.customer is not None:
        query = query.where(Row.merchant_customer_id == asked.customer)
    return page(call.session, query, (Row.created_at, Row.id), asked, lambda found: shown(call, *found))


@operation("GET", "/purchases/{purchase_id}", "purchases:read", returns=Purchase, reveal=_with_url)
def get_purchase(call: Call, _: None) -> Purchase:
    """One purchase."""
    found = call.session.execute(_mine(call).where(Row.id == call.path["purchase_id"])).first()
    if found is None:
        raise NotFound("you have no purchase with this id")
    return shown(call, found[0], found[1])


def _create(call: Call, given: NewPurchase) -> Purchase:
    made = buy.ask(
        call.session,
        call.merchant,
        customers.find(call, given.customer),
        now=call.now,
        **given.model_dump(exclude={"customer"}),
    )
    audit.record(call.session, call.who, "purchase.asked", made.id, call.now)
    return shown(call, made, None)


def _mine(call: Call) -> Select[Row, Payment]:
    query = select(Row, Payment).outerjoin(Payment, Payment.id == Row.payment_id)
    return query.where(Row.merchant_id == call.merchant.id)


def shown(call: Call, row: Row, payment: Payment | None) -> Purchase:
    status, result = standing(row, payment, call.now)
    return Purchase(
        id=row.id,
        customer=row.merchant_customer_id,
        amount_minor=row.amount_minor,
        currency=row.currency,
        product_kind=row.product_kind,
        description=row.description,
        status=status,
        result=result,
        page_url="",  # is made when it is answered, and not stored
        payment=row.payment_id,
        bill=payment.bill_id if payment else None,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
