"""What is shown of payments that wait, or waited, for somebody: gathered for one approver."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ivr.approval import addresses, appointments, requests, verify
from ivr.approval.explain import Told, tell
from ivr.approval.models import Answer, Appointment, ApprovalAnswer, ApprovalRequest, RequestState
from ivr.approval.policy import Destination, Role
from ivr.customers.models import Bill
from ivr.payments.models import Payment

MOST_SHOWN = 50
_GONE = "—"


@dataclass(frozen=True)
class Said:
    """One approver's answer."""

    mine: bool
    role: Role
    answer: Answer
    verified_by: tuple[str, ...]  # with what, and where
    at: datetime


@dataclass(frozen=True)
class Shown:
    """One request."""

    id: str
    label: str  # what this approver calls the payer
    amount_minor: int
    currency: str
    merchant: str
    description: str
    ship_to: str | None
    destination: Destination
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    state: str  # a RequestState, or "not_allowed": refused, and by nobody
    answers: tuple[Said, ...]
    why: tuple[Told, ...]  # while it is open
    hindrance: str  # a key of words: why this approver cannot answer now; empty when she can
    may_add_address: bool

    @property
    def mine(self) -> Said | None:
        return next((answer for answer in self.answers if answer.mine), None)


def one(session: Session, request_id: str, approver_id: str, device: str, now: datetime) -> Shown | None:
    """A request of a payer whom this person looks after, or that she answered; None for all others."""
    request = session.get(ApprovalRequest, request_id)
    if request is None:
        return None
    answered = session.get(ApprovalAnswer, (request_id, approver_id)) is not None
    between = appointments.between(session, approver_id, request.ward_id, now)
    if not (answered or between):
        return None
    return _shown(session, request, approver_id, device, between, now)


def waiting(session: Session, approver_id: str, device: str, now: datetime) -> list[Shown]:
    """What she may answer now, the oldest first."""
    found = requests.waiting(session, approver_id, now)
    return [
        _shown(session, r, approver_id, device, appointments.between(session, approver_id, r.ward_id, now), now)
        for r in found[:MOST_SHOWN]
    ]


def history(session: Session, approver_id: str, device: str, now: datetime) -> list[Shown]:
    """What was decided, or what she has answered, the newest first."""
    wards = {a.ward_id for a in appointments.wards(session, approver_id, now)}
    answered = select(ApprovalAnswer.request_id).where(ApprovalAnswer.approver_id == approver_id)
    over = or_(ApprovalRequest.state != RequestState.OPEN, ApprovalRequest.expires_at <= now)
    query = (
        select(ApprovalRequest)
        .where(or_(ApprovalRequest.ward_id.in_(wards) & over, ApprovalRequest.id.in_(answered)))
        .order_by(ApprovalRequest.created_at.desc(), ApprovalRequest.id)
        .limit(MOST_SHOWN)
    )
    return [
        _shown(session, r, approver_id, device, appointments.between(session, approver_id, r.ward_id, now), now)
        for r in session.scalars(query).all()
    ]


def _shown(
    session: Session,
    request: ApprovalRequest,
    approver_id: str,
    device: str,
    between: list[Appointment],
    now: datetime,
) -> Shown:
    payment = session.get_one(Payment, request.payment_id)
    bill = session.get_one(Bill, payment.bill_id)
    given = session.scalars(
        select(ApprovalAnswer).where(ApprovalAnswer.request_id == request.id).order_by(ApprovalAnswer.at)
    )
    answers = tuple(
        Said(a.approver_id == approver_id, a.role, a.answer, tuple(a.verified_by.split(", ")), a.at) for a in given
    )
    state = _state(request, answers, now)
    destination = addresses.destination(session, request.ward_id, payment.ship_to)
    why: tuple[Told, ...] = ()
    if state == RequestState.OPEN:
        judged = requests.judged(session, request, now)
        why = tuple(tell(judged.facts, judged.policy, judged.decision))
    return Shown(
        id=request.id,
        label=between[0].label if between else _GONE,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        merchant=bill.merchant,
        description=bill.description,
        ship_to=payment.ship_to,
        destination=destination,
        created_at=request.created_at,
        expires_at=request.expires_at,
        decided_at=request.decided_at,
        state=state,
        answers=answers,
        why=why,
        hindrance=_hindrance(session, request, approver_id, device, between),
        may_add_address=destination is Destination.UNKNOWN and any(a.role is Role.GUARDIAN for a in between),
    )


def _state(request: ApprovalRequest, answers: tuple[Said, ...], now: datetime) -> str:
    if request.state is RequestState.OPEN and now >= request.expires_at:
        return RequestState.EXPIRED.value
    if request.state is RequestState.REFUSED and all(a.answer is Answer.APPROVE for a in answers):
        return "not_allowed"
    return request.state.value


def _hindrance(
    session: Session, request: ApprovalRequest, approver_id: str, device: str, between: list[Appointment]
) -> str:
    if not between:
        return "result.not_yours"
    if appointments.conflict(session, request.ward_id, approver_id):
        return "error.same_contact"
    if verify.shares_device(session, device, request.ward_id):
        return "error.shared_device"
    return ""
