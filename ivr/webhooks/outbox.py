"""The outbox: messages are written in the transaction of the move that they tell of, and sent afterwards.

Of a payment's messages to one endpoint only the first that waits has a job. Whoever finishes it queues the next,
under the lock of the payment's row, which every writer here holds; so they arrive in the order of the moves.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.customers.models import Bill
from ivr.payments.models import Payment
from ivr.webhooks.models import WebhookDelivery, WebhookEndpoint

DELIVER_JOB = "webhook.deliver"
Kind = Literal["payment.held", "payment.paid", "payment.refused", "payment.refunded"]


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
        message = {"type": kind, "timestamp": now.isoformat(), "data": data}
        delivery = WebhookDelivery(
            endpoint_id=endpoint.id,
            payment_id=payment.id,
            sequence=sequence,
            kind=kind,
            body=json.dumps(message, separators=(",", ":")),
            created_at=now,
        )
        session.add(delivery)
        session.flush()
        queue_next(session, payment.id, endpoint.id, now)
        written.append(delivery)
    return written


def endpoints(session: Session, merchant: str) -> list[WebhookEndpoint]:
    """Where a merchant wants to be told."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.merchant == merchant, WebhookEndpoint.removed_at.is_(None))
    return list(session.scalars(query.order_by(WebhookEndpoint.id)))


def queue_next(session: Session, payment_id: str, endpoint_id: str, now: datetime) -> None:
    """Queue the first message that waits, unless its job is queued already."""
    waiting = session.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.payment_id == payment_id,
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.delivered_at.is_(None),
            WebhookDelivery.given_up_at.is_(None),
        )
        .order_by(WebhookDelivery.sequence)
        .limit(1)
    )
    if waiting:
        payload = {"delivery_id": waiting.id, "round": waiting.round, "since": now.isoformat()}
        jobs.put(session, DELIVER_JOB, payload, f"{DELIVER_JOB}:{waiting.id}:{waiting.round}", now)


def replay(session: Session, payment_id: str, now: datetime, endpoint_id: str | None = None) -> int:
    """Send a payment's messages again, in order, with the ids they had. How many there are.

    Also how to send at once what waits or was given up. Messages to removed endpoints stay unsent.
    """
    session.get(Payment, payment_id, with_for_update=True)
    query = select(WebhookDelivery).join(WebhookEndpoint).where(WebhookEndpoint.removed_at.is_(None))
    query = query.where(WebhookDelivery.payment_id == payment_id)
    if endpoint_id:
        query = query.where(WebhookDelivery.endpoint_id == endpoint_id)
    found = session.scalars(query).all()
    for delivery in found:
        delivery.round += 1  # what a job of an earlier round does counts no more
        delivery.delivered_at = delivery.given_up_at = delivery.last_error = None
    session.flush()
    for to in sorted({delivery.endpoint_id for delivery in found}):
        session.get_one(WebhookEndpoint, to).resting_until = None
        queue_next(session, payment_id, to, now)
    return len(found)
