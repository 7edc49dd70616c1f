"""Purchases: a customer of yours confirms them on a page, and is debited."""

from __future__ import annotations

from typing import Any

from flask import request
from sqlalchemy import Select, select

from ivr import onetime
from ivr.api import problems
from ivr.api.lists import page
from ivr.api.operations import Call, carried_out, once, operation
from ivr.api.problems import NotFound
from ivr.api.shapes import (
    Batch,
    BatchAnswer,
    BatchAnswers,
    BatchItem,
    NewPurchase,
    Page,
    Purchase,
    PurchaseQuery,
    Refusal,
)
from ivr.api.v1 import customers
from ivr.customers import audit
from ivr.payments.models import Payment
from ivr.purchases import buy
from ivr.purchases.models import Purchase as Row
from ivr.purchases.pages import with_query
from ivr.purchases.results import standing


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
