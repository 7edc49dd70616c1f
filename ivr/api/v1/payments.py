"""Payments of a merchant's bills, and what is held of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound, NotNow
from ivr.api.shapes import Amount, Page, Payment, PaymentQuery, PaymentStatus
from ivr.customers.merchants import MerchantBill
from ivr.customers.models import new_id
from ivr.payments import holds
from ivr.payments.models import Payment as Made
from ivr.payments.states import State

_SHOWN: dict[State, PaymentStatus] = {
    State.HELD: "held",
    State.PAID: "paid",
    State.PART_REFUNDED: "part_refunded",
    State.REFUNDED: "refunded",
    State.REFUSED: "failed",
    State.VOIDED: "failed",
    State.CANCELLED: "failed",
    State.EXPIRED: "failed",
}
"""What a merchant is told of a state; why a payment failed is between the customer and her bank."""


@operation("GET", "/payments", "payments:read", sent=PaymentQuery, returns=Page[Payment])
def list_payments(call: Call, asked: PaymentQuery) -> Page[Payment]:
    """Payments of your bills, the newest first."""
    query = _mine(call)
    if asked.bill is not None:
        query = query.where(Made.bill_id == asked.bill)
    return page(call.session, query, (Made.created_at, Made.id), asked, shown)


@operation("GET", "/payments/{payment_id}", "payments:read", returns=Payment)
def get_payment(call: Call, _: None) -> Payment:
    """One payment."""
    return shown(find(call, call.path["payment_id"]))


@operation("POST", "/payments/{payment_id}/post", "payments:write", sent=Amount, returns=Payment, problems=(NotNow,))
def post_payment(call: Call, given: Amount) -> Payment:
    """Have what is held debited, or a part of it; the rest is let go of."""
    payment = find(call, call.path["payment_id"])
    holds.post(
        call.session,
        payment.id,
        given.amount_minor,
        call.desk.capabilities,
        key=f"api:{new_id()}",  # the request's own key has it done once
        who=call.who,
        why="asked for by the merchant",
        now=call.now,
    )
    return shown(payment)


@operation("POST", "/payments/{payment_id}/release", "payments:write", returns=Payment, problems=(NotNow,))
def release_payment(call: Call, _: None) -> Payment:
    """Have what is held given back; nothing is debited."""
    payment = find(call, call.path["payment_id"])
    why = "asked for by the merchant"
    holds.release(call.session, payment.id, key=f"api:{new_id()}", who=call.who, why=why, now=call.now)
    return shown(payment)


def find(call: Call, payment_id: str) -> Made:
    """A payment of the merchant's own bill. Raises NotFound."""
    found = call.session.scalar(_mine(call).where(Made.id == payment_id))
    if found is None:
        raise NotFound("there is no payment of a bill of yours with this id")
    payment: Made = found
    return payment


def _mine(call: Call) -> Select[Any]:
    mine = select(Made).join(MerchantBill, MerchantBill.id == Made.bill_id)
    return mine.where(MerchantBill.merchant_id == call.merchant.id)


def shown(row: Made) -> Payment:
    return Payment(
        id=row.id,
        bill=row.bill_id,
        amount_minor=row.debit_minor,
        currency=row.currency,
        status=_SHOWN.get(row.state, "under_way"),
        ship_to=row.ship_to,
        receipt_number=row.receipt_number,
        created_at=row.created_at,
    )
