"""Delivering one message: what a worker does with the job that the outbox queued."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import select

from ivr.jobs import Again, GiveUp, Held
from ivr.keys import Keyring
from ivr.settings import Settings
from ivr.webhooks import outbox
from ivr.webhooks.address import check_url, origin
from ivr.webhooks.models import WebhookDelivery, WebhookEndpoint
from ivr.webhooks.outbox import DELIVER_JOB
from ivr.webhooks.post import NotDelivered, post
from ivr.webhooks.signature import secret, signed_headers

__all__ = ["DELIVER_JOB", "deliver", "endpoint_secret", "wait_after"]

FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=8)
PATIENCE = timedelta(days=3)
"""How long a message is tried; then it is given up, and the next one about the same payment is sent."""
REST = timedelta(seconds=30)
"""How long a server that failed is left alone, so that its merchant's messages do not hold up the others'."""

log = structlog.get_logger(__name__)


def deliver(held: Held, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
    """Send the job's message, unless that was done or a replay has overtaken it. No transaction is open meanwhile.

    Raises Again when it was not taken, GiveUp when the time for it is over, LeaseLost. A worker that dies between
    the answer and its record sends the message twice, with the same id.
    """
    with held.transaction() as session:
        delivery = session.get_one(WebhookDelivery, held.payload["delivery_id"])
        if delivery.round != held.payload["round"] or delivery.delivered_at or delivery.given_up_at:
            return
        # key_share: the foreign keys of messages being written meanwhile do not wait for this lock
        endpoint = session.get_one(WebhookEndpoint, delivery.endpoint_id, with_for_update={"key_share": True})
        now = clock()
        resting = endpoint.resting_until is not None and endpoint.resting_until > now
        if endpoint.resting_until and not resting:
            endpoint.resting_until = now + REST  # this message tries whether the server is back, and no other
        registered = session.scalars(
            select(WebhookEndpoint.url).where(
                WebhookEndpoint.merchant == endpoint.merchant, WebhookEndpoint.removed_at.is_(None)
            )
        ).all()
    about = log.bind(delivery=delivery.id, endpoint=endpoint.id, kind=delivery.kind)
    about = about.bind(payment=delivery.payment_id, purchase=delivery.purchase_id)
    elapsed = now - datetime.fromisoformat(held.payload["since"])
    wait = wait_after(elapsed)
    if resting and endpoint.removed_at is None and elapsed + wait <= PATIENCE:
        assert endpoint.resting_until is not None
        raise Again(max(wait, endpoint.resting_until - now), "endpoint resting")
    try:
        if endpoint.removed_at is not None:
            raise NotDelivered("endpoint removed")
        body = delivery.body.encode()
        headers = signed_headers(
            endpoint_secret(Keyring.load(settings), endpoint), f"msg_{delivery.id}", int(now.timestamp()), body
        )
        origins = {origin(check_url(url)) for url in registered}
        post(endpoint.url, body, headers, origins=origins, allow_private=settings.webhooks_to_private)
    except NotDelivered as error:
        about.warning("webhook not delivered", reason=str(error), attempts=held.attempts)
        if elapsed + wait > PATIENCE or endpoint.removed_at is not None:
            about.error("webhook given up", reason=str(error))
            _finish(held, now, str(error))
            raise GiveUp(str(error)) from None
        with held.transaction() as session:
            session.get_one(WebhookEndpoint, endpoint.id).resting_until = clock() + REST
        raise Again(wait, str(error)[:64]) from None
    _finish(held, now, None)


def wait_after(elapsed: timedelta) -> timedelta:
    """How long to wait when a message has been tried for so long: five seconds, then twice that time, at most eight
    hours. Each attempt is thus made after thrice the time of the one before."""
    return min(LONGEST_WAIT, max(FIRST_WAIT, 2 * elapsed))


def endpoint_secret(keyring: Keyring, endpoint: WebhookEndpoint) -> str:
    """What the merchant checks signatures with."""
    return secret(keyring.key("session", endpoint.key_id), endpoint.id)


def _finish(held: Held, now: datetime, error: str | None) -> None:
    """Record the end of this round, and let the payment's next message go."""
    with held.transaction() as session:
        delivery = session.get_one(WebhookDelivery, held.payload["delivery_id"])
        outbox.hold(session, delivery)
        session.refresh(delivery)  # a replay may have come between
        if delivery.round != held.payload["round"]:
            return
        delivery.delivered_at = None if error else now
        delivery.given_up_at = now if error else None
        delivery.last_error = error
        session.get_one(WebhookEndpoint, delivery.endpoint_id).resting_until = now + REST if error else None
        session.flush()
        outbox.queue_next(session, delivery, now)
