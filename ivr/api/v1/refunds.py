"""Refunds: what a merchant gives back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound, NotNow
from ivr.api.shapes import NewRefund, Page, Refund, RefundQuery
from ivr.api.v1 import payments
from ivr.customers.merchants import MerchantBill
from ivr.customers.models import new_id
from ivr.payments import refunds
from ivr.payments.models import Payment, RefundState
from ivr.payments.models import Refund as Row


@operation(
    "POST", "/refunds", "refunds:write", sent=NewRefund, returns=Refund, status=201,
    problems=(NotFound, NotNow), links=("get_refund",),
)  # fmt: skip
def create_refund(call: Call, given: NewRefund) -> Refund:
    """Give back a payment, or a part of it."""
    payment = payments.find(call, given.payment)
    try:
        made = refunds.request_refund(
            call.session,
            payment.id,
            given.amount_minor,
            key=f"api:{new_id()}",  # the request's own key has it asked for once
            who=call.who,
            why="asked for by the merchant",
            now=call.now,
        )
    except refunds.NotRefundable:
        raise NotNow("the payment is not paid, or has not so much left to give back") from None
    return shown(made)


@operation("GET", "/refunds", "payments:read", sent=RefundQuery, returns=Page[Refund])
def list_refunds(call: Call, asked: RefundQuery) -> Page[Refund]:
    """Refunds of your payments, the newest first."""
    query = _mine(call)
    if asked.payment is not None:
        query = query.where(Row.payment_id == asked.payment)
    return page(call.session, query, (Row.created_at, Row.id), asked, shown)


@operation("GET", "/refunds/{refund_id}", "payments:read", returns=Refund)
def get_refund(call: Call, _: None) -> Refund:
    """One refund."""
    found = call.session.scalar(_mine(call).where(Row.id == call.path["refund_id"]))
    if found is None:
        raise NotFound("there is no refund of yours with this id")
    return shown(found)


def _mine(call: Call) -> Select[Any]:
    mine = select(Row).join(Payment, Payment.id == Row.payment_id)
    mine = mine.join(MerchantBill, MerchantBill.id == Payment.bill_id)
    return mine.where(MerchantBill.merchant_id == call.merchant.id)


def shown(row: Row) -> Refund:
    return Refund(
        id=row.id,
        payment=row.payment_id,
        amount_minor=row.amount_minor,
        status=RefundState(row.state).value,
        created_at=row.created_at,
    )
