"""Ringing up an approver who wants to be, about a payment that waits for her.

The worker places the call; what is said in it is the call's own matter (``ivr.call.judging.approver``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval import appointments
from ivr.approval.models import ApprovalAnswer, ApprovalRequest, RequestState
from ivr.clock import utc_now
from ivr.customers import rings
from ivr.customers.rings import Dial, Kind, Ring
from ivr.jobs import Held
from ivr.payments.models import Payment
from ivr.payments.states import State

RING_JOB = "approval.ring"
PAGE = "approver"
APPROVER_CALLS = Kind(rung="approver.rung", apart=timedelta(minutes=10))


def plan(session: Session, request: ApprovalRequest, approver_id: str, now: datetime) -> None:
    """Have the worker ring this approver about the request."""
    payload = {"request_id": request.id, "approver_id": approver_id}
    jobs.put(session, RING_JOB, payload, f"{RING_JOB}:{request.id}:{approver_id}", now)


def ring(held: Held, dial: Dial | None, zone: str, clock: Callable[[], datetime] = utc_now) -> None:
    """Ring, until the approver has answered or the request is over. Raises Again."""
    request_id, approver_id = held.payload["request_id"], held.payload["approver_id"]
    now = clock()

    def wanted(session: Session) -> Ring | None:
        number = whom(session, request_id, approver_id, now)
        about = {"request": request_id, "approver": approver_id}
        return Ring(approver_id, number, PAGE, about) if number else None

    rings.ring(held, dial, APPROVER_CALLS, wanted, now=now, zone=zone)


def whom(session: Session, request_id: str, approver_id: str, now: datetime) -> str | None:
    """The number to ring; None when there is nothing to ask any more, or no number that is not the payer's."""
    request = session.get(ApprovalRequest, request_id)
    if request is None or request.state is not RequestState.OPEN or now >= request.expires_at:
        return None
    if session.get_one(Payment, request.payment_id).state is not State.AWAITING:
        return None
    if session.get(ApprovalAnswer, (request_id, approver_id)) is not None:
        return None
    if not appointments.between(session, approver_id, request.ward_id, now):
        return None
    if appointments.conflict(session, request.ward_id, approver_id):
        return None
    return next(iter(appointments.settled_numbers(session, approver_id, now)), None)
