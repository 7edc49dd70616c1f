"""Ringing up an approver who wants to be: a few times a day, in no quiet hours, at a settled number.

The worker places the call; what is said in it is the call's own matter (``ivr.call.judging.approver``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval import appointments
from ivr.approval.models import ApprovalAnswer, ApprovalRequest, RequestState
from ivr.clock import utc_now
from ivr.customers import audit
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Audit
from ivr.jobs import Again, GiveUp, Held
from ivr.payments.models import Payment
from ivr.payments.states import State

RING_JOB = "approval.ring"
QUIET_FROM, QUIET_UNTIL = time(21), time(8)
RINGS_A_DAY = 3
RING_AGAIN_AFTER = timedelta(minutes=10)
RUNG = "approver.rung"

Dial = Callable[[str, str, str], None]
"""Rings a number about a request for an approver (ids): returns when the carrier has taken the call, or NotRung."""


class NotRung(Exception):
    """The carrier did not take the call; the message names no number."""


def plan(session: Session, request: ApprovalRequest, approver_id: str, now: datetime) -> None:
    """Have the worker ring this approver about the request."""
    payload = {"request_id": request.id, "approver_id": approver_id}
    jobs.put(session, RING_JOB, payload, f"{RING_JOB}:{request.id}:{approver_id}", now)


def ring(held: Held, dial: Dial | None, zone: str, clock: Callable[[], datetime] = utc_now) -> None:
    """Ring once, and come back until the approver has answered, the day's calls are made, or the request is over.

    A call is noted before it is placed, so that a worker that dies never rings more often than it may. Raises Again.
    """
    if dial is None:
        raise GiveUp("CallsNotConfigured")
    request_id, approver_id = held.payload["request_id"], held.payload["approver_id"]
    now = clock()
    with held.transaction() as session:
        lock_customer(session, approver_id)  # of two requests one after the other: one call at a time is counted
        number = whom(session, request_id, approver_id, now)
        wait = None if number is None else _must_wait(session, approver_id, now, zone)
        if number is not None and wait is None:
            audit.record(session, "the service", RUNG, approver_id, now, request=request_id)
    if number is None:
        return
    if wait is not None:
        raise Again(wait, "quiet", counted=False)
    try:
        dial(number, request_id, approver_id)
    except NotRung as error:
        raise Again(RING_AGAIN_AFTER, str(error)[:64]) from None
    raise Again(RING_AGAIN_AFTER, "rung", counted=False)


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


def _must_wait(session: Session, approver_id: str, now: datetime, zone: str) -> timedelta | None:
    """Until the quiet hours end, or the next day begins when the day's calls have been made."""
    local = now.astimezone(ZoneInfo(zone))
    morning = local.replace(hour=QUIET_UNTIL.hour, minute=0, second=0, microsecond=0)
    if local.time() < QUIET_UNTIL:
        return morning - local
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count()).select_from(Audit).where(Audit.subject == approver_id, Audit.what == RUNG)
    made = session.scalar(query.where(Audit.at >= midnight)) or 0
    if local.time() >= QUIET_FROM or made >= RINGS_A_DAY:
        return morning + timedelta(days=1) - local
    return None
