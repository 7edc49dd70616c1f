"""What Stripe tells us, ``POST /bank/stripe/events``, and where its pages send customers back to.

An event is never believed, only heeded: the job of its payment runs now and asks Stripe how the payment stands. A
forged, repeated or late one can therefore do nothing but have us look.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from flask import Blueprint, abort, current_app, request
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.clock import utc_now
from ivr.payments.banks import RETURN_PATH
from ivr.payments.models import Payment
from ivr.payments.processor import execute
from ivr.payments.service import DEBIT_JOB
from ivr.payments.states import FINAL

TOLERANCE_S = 300
"""How old a signature may be."""
_EVENT_ID = re.compile(r"evt_\w{1,100}", re.ASCII)

blueprint = Blueprint("stripe_events", __name__)


class BadEvent(Exception):
    """Not signed by Stripe, too old, or no event."""


@dataclass(frozen=True)
class Wake:
    """Have a worker look at a payment now."""

    name: ClassVar[str] = "wake"
    payment_id: str

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        payment = session.get(Payment, self.payment_id)
        if payment is not None and payment.state not in FINAL:
            jobs.wake(session, f"{DEBIT_JOB}:{payment.id}", now)
        return {}


def read(body: bytes, header: str | None, secret: str) -> tuple[str, str | None]:
    """The event's id, and the id of the payment it is about, if it is about one of ours. Raises BadEvent."""
    import stripe  # only where Stripe is the bank: it takes a while to load

    try:
        stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE_S)
        event = json.loads(body)
        event_id, about = event["id"], event["data"]["object"]
    except (stripe.SignatureVerificationError, ValueError, KeyError, TypeError):
        raise BadEvent("no event signed by Stripe") from None
    if not isinstance(event_id, str) or not _EVENT_ID.fullmatch(event_id) or not isinstance(about, dict):
        raise BadEvent("no event")
    reference = (about.get("metadata") or {}).get("payment")
    return event_id, reference if isinstance(reference, str) else None


@blueprint.post("/bank/stripe/events")
def events() -> tuple[str, int]:
    services = current_app.extensions["ivr"]
    secret = services.settings.stripe_webhook_secret.get_secret_value()
    if services.settings.bank != "stripe" or not secret:
        abort(404)
    try:
        event_id, payment_id = read(request.get_data(), request.headers.get("Stripe-Signature"), secret)
    except BadEvent:
        abort(400)
    if payment_id is not None:
        with services.database.transaction() as session:
            execute(session, Wake(payment_id), key=f"stripe:{event_id}", who="stripe", now=utc_now())
    return "", 204


@blueprint.get(RETURN_PATH)
def returned() -> str:
    return "You can close this page: a message tells you how your payment went. 您可以关闭此页面,付款结果另有通知。"
