"""The outbox: messages are written in the transaction of the move that they tell of, and sent afterwards.

Of a payment's messages to one endpoint only the first that waits has a job. Whoever finishes it queues the next,
under the lock of the payment's row, which every writer here holds; so they arrive in the order of the moves. Of a
purchase there is one message, when it ends without a payment; the lock is that of the purchase's row.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.customers.models import Bill
from ivr.payments.models import Payment
from ivr.purchases.models import Purchase
from ivr.webhooks.models import WebhookDelivery, WebhookEndpoint

DELIVER_JOB = "webhook.deliver"
Kind = Literal["payment.held", "payment.paid", "payment.refused", "payment.refunded"]
PurchaseKind = Literal["purchase.cancelled", "purchase.expired", "purchase.refused"]


def emit(
    session: Session, payment: Payment, kind: Kind, now: datetime, *, refunded_minor: int | None = None
) -> list[WebhookDelivery]:
    """Write a message to every endpoint of the payment's merchant. The caller holds the payment's row lock.

    ``refunded_minor`` is the amount of this refund. Nothing in a message tells why a payment was refused.
    """
    bill = session.get_one(Bill, payment.bill_id)
    written = []
    for endpoint in endpoints(session, bill.merchant):
        of_payment = (
            WebhookDelivery.payment_id == payment.id,
            WebhookDelivery.endpoint_id == endpoint.id,
        )
        sequence = (session.scalar(select(func.max(WebhookDelivery.sequence)).where(*of_payment)) or 0) + 1
        data = {
            "payment": payment.id,
            "sequence": sequence,
            "bill": bill.id,
            "amount_minor": payment.debit_minor,
            "currency": payment.currency,
        }
        if payment.ship_to is not None:
            data["ship_to"] = payment.ship_to
        if payment.receipt_number:
            data["receipt_number"] = payment.receipt_number
        if refunded_minor is not None:
            data["refunded_minor"] = refunded_minor
        written.append(_write(session, endpoint, kind, data, now, payment_id=payment.id, sequence=sequence))
    return written


def emit_ended(
    session: Session, purchase: Purchase, merchant: str, kind: PurchaseKind, now: datetime
) -> list[WebhookDelivery]:
    """Write that a purchase ended without a payment. The caller holds the purchase's row lock."""
    data = {
        "purchase": purchase.id,
        "customer": purchase.merchant_customer_id,
        "amount_minor": purchase.amount_minor,
        "currency": purchase.currency,
        "result": purchase.result,
    }
    there = endpoints(session, merchant)
    return [_write(session, to, kind, data, now, purchase_id=purchase.id, sequence=1) for to in there]


def _write(
    session: Session, endpoint: WebhookEndpoint, kind: str, data: dict[str, Any], now: datetime, **of: Any
) -> WebhookDelivery:
    message = {"type": kind, "timestamp": now.isoformat(), "data": data}
    body = json.dumps(message, separators=(",", ":"))
    delivery = WebhookDelivery(endpoint_id=endpoint.id, kind=kind, body=body, created_at=now, **of)
    session.add(delivery)
    session.flush()
    queue_next(session, delivery, now)
    return delivery


def endpoints(session: Session, merchant: str) -> list[WebhookEndpoint]:
    """Where a merchant wants to be told."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.merchant == merchant, WebhookEndpoint.removed_at.is_(None))
    return list(session.scalars(query.order_by(WebhookEndpoint.id)))


def hold(session: Session, delivery: WebhookDelivery) -> None:
    """Lock what the message is about, as every writer of its messages does."""
    if delivery.payment_id is not None:
        session.get_one(Payment, delivery.payment_id, with_for_update=True)
    else:
        session.get_one(Purchase, delivery.purchase_id, with_for_update=True)


def queue_next(session: Session, delivery: WebhookDelivery, now: datetime) -> None:
    """Queue the first message that waits of those that go where this one does and are about the same, unless its job
    is queued already."""
    waiting = session.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.payment_id == delivery.payment_id
            if delivery.payment_id is not None
            else WebhookDelivery.purchase_id == delivery.purchase_id,
            WebhookDelivery.endpoint_id == delivery.endpoint_id,
            WebhookDelivery.delivered_at.is_(None),
            WebhookDelivery.given_up_at.is_(None),
        )
        .order_by(WebhookDelivery.sequence)
        .limit(1)
    )
    if waiting:
        payload = {"delivery_id": waiting.id, "round": waiting.round, "since": now.isoformat()}
        jobs.put(session, DELIVER_JOB, payload, f"{DELIVER_JOB}:{waiting.id}:{waiting.round}", now)


def replay(session: Session, of: str, now: datetime, endpoint_id: str | None = None) -> int:
    """Send the messages of a payment, or of a purchase, again, in order, with the ids they had. How many there are.

    Also how to send at once what waits or was given up. Messages to removed endpoints stay unsent.
    """
    for kind in (Payment, Purchase):
        session.get(kind, of, with_for_update=True)
    query = select(WebhookDelivery).join(WebhookEndpoint).where(WebhookEndpoint.removed_at.is_(None))
    query = query.where(or_(WebhookDelivery.payment_id == of, WebhookDelivery.purchase_id == of))
    if endpoint_id:
        query = query.where(WebhookDelivery.endpoint_id == endpoint_id)
    found = session.scalars(query).all()
    for delivery in found:
        delivery.round += 1  # what a job of an earlier round does counts no more
        delivery.delivered_at = delivery.given_up_at = delivery.last_error = None
    session.flush()
    for to, delivery in sorted({delivery.endpoint_id: delivery for delivery in found}.items()):
        session.get_one(WebhookEndpoint, to).resting_until = None
        queue_next(session, delivery, now)
    return len(found)
