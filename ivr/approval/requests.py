"""Payments that wait for somebody: asking, reminding, answering, running out. Each is decided once.

Whatever decides a request first locks its payer's row, so that of two answers, an answer and the end of its time, or
an answer and a freeze, one comes first, and the other learns how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval import appointments, freezes, links, ringing
from ivr.approval.appointments import Person
from ivr.approval.explain import outcome
from ivr.approval.judge import Judged, judge_again
from ivr.approval.models import Answer, ApprovalAnswer, ApprovalRequest, RequestState
from ivr.approval.policy import Role
from ivr.customers import audit
from ivr.customers.lookup import lock_customer
from ivr.customers.models import new_id
from ivr.jobs import Held
from ivr.payments import service
from ivr.payments.models import Payment
from ivr.payments.states import UNSENT, Event, State

TEND_JOB = "approval.tend"
REMIND_AFTER = timedelta(minutes=30)
ESCALATE_AFTER = timedelta(hours=1)
LIFE = timedelta(hours=12)
"""Well within the life of the payment's keys at the bank (``ivr.payments.debit.KEY_LIFE``)."""

NOT_APPROVED, NOT_IN_TIME = "not_approved", "not_in_time"
"""Reasons of a payment's end, for the payer to be told."""

_STEPS = (("remind", REMIND_AFTER), ("escalate", ESCALATE_AFTER), ("expire", LIFE))


class Result(StrEnum):
    """What an answer came to."""

    APPROVED = "approved"  # the payment goes to the bank
    MORE_NEEDED = "more_needed"  # kept; others must agree too
    REFUSED = "refused"
    FROZEN = "frozen"  # refused, and the payer's payments are stopped
    NOT_ALLOWED = "not_allowed"  # the payer's policy no longer allows this payment
    ALREADY_ANSWERED = "already_answered"
    ALREADY_DECIDED = "already_decided"
    EXPIRED = "expired"
    NOT_YOURS = "not_yours"  # there is no such request, or this person may not answer it


def open_request(session: Session, payment: Payment, why: str, now: datetime) -> ApprovalRequest:
    """Ask those who must agree, and see to reminders, others, and the end of the time."""
    request = ApprovalRequest(
        id=new_id(),
        payment_id=payment.id,
        ward_id=payment.customer_id,
        state=RequestState.OPEN,
        why=why[:500],
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(request)
    session.flush()
    for step, after in _STEPS:
        payload = {"request_id": request.id, "step": step}
        jobs.put(session, TEND_JOB, payload, f"{TEND_JOB}:{request.id}:{step}", now + after)
    _ask(session, request, [p for p in _missing(session, request, now) if not p.backup], "approval.ask", now)
    return request


def waiting(session: Session, approver_id: str, now: datetime) -> list[ApprovalRequest]:
    """The open requests that this person may answer and has not, the oldest first."""
    ward_ids = {a.ward_id for a in appointments.wards(session, approver_id, now)}
    answered = select(ApprovalAnswer.request_id).where(ApprovalAnswer.approver_id == approver_id)
    query = select(ApprovalRequest).join(Payment, Payment.id == ApprovalRequest.payment_id)
    query = query.where(
        Payment.state == State.AWAITING,
        ApprovalRequest.ward_id.in_(ward_ids),
        ApprovalRequest.state == RequestState.OPEN,
        ApprovalRequest.expires_at > now,
        ApprovalRequest.id.not_in(answered),
    )
    return list(session.scalars(query.order_by(ApprovalRequest.created_at, ApprovalRequest.id)))


def answer(
    session: Session, request_id: str, approver_id: str, given: Answer, *, verified_by: str, now: datetime
) -> Result:
    """An approver, who has proved who she is by ``verified_by``, answers. The first answer of each counts."""
    request = _locked(session, request_id)
    may = request and appointments.between(session, approver_id, request.ward_id, now)
    if request is None or not may or appointments.conflict(session, request.ward_id, approver_id):
        return Result.NOT_YOURS
    if request.state is RequestState.OPEN and now >= request.expires_at:
        _expire(session, request, now)
    who = f"customer {approver_id}"
    answered = session.get(ApprovalAnswer, (request_id, approver_id)) is not None
    if given is Answer.FRAUD and (answered or request.state is not RequestState.OPEN):
        # Too late to answer this one, but not to stop what is not at the bank yet, nor what comes next.
        audit.record(session, who, f"approval.{given}", request.payment_id, now, by=verified_by)
        stop(session, request.ward_id, who=who, now=now)
        return Result.FROZEN
    if request.state is RequestState.EXPIRED:
        return Result.EXPIRED
    if answered:
        return Result.ALREADY_ANSWERED
    if request.state is not RequestState.OPEN:
        return Result.ALREADY_DECIDED
    session.add(
        ApprovalAnswer(
            request_id=request_id,
            approver_id=approver_id,
            role=may[0].role,
            answer=given,
            verified_by=verified_by,
            at=now,
        )
    )
    session.flush()
    audit.record(session, who, f"approval.{given}", request.payment_id, now, by=verified_by)
    if given is Answer.APPROVE:
        return _weigh(session, request, now, who)
    _end(session, request, RequestState.REFUSED, Event.DECLINE, NOT_APPROVED, f"{may[0].role} said {given}", now, who)
    if given is Answer.REFUSE:
        return Result.REFUSED
    stop(session, request.ward_id, who=who, now=now)
    return Result.FROZEN


def judged(session: Session, request: ApprovalRequest, now: datetime) -> Judged:
    """What the payment still needs, with those who agreed so far, by the policy and the appointments as they are."""
    by = dict.fromkeys(Role, _agreed(session, request))
    return judge_again(session, session.get_one(Payment, request.payment_id), by, now)


def stop(session: Session, customer_id: str, *, who: str, now: datetime) -> None:
    """Freeze the customer, and withdraw all that was not sent to the bank yet."""
    freezes.freeze(session, customer_id, who=who, now=now)
    unsent = select(Payment).where(Payment.customer_id == customer_id, Payment.state.in_(UNSENT))
    for payment in session.scalars(unsent.order_by(Payment.id).with_for_update()).all():
        request = session.scalar(select(ApprovalRequest).where(ApprovalRequest.payment_id == payment.id))
        if request is not None and request.state is RequestState.OPEN:
            _decide(session, request, RequestState.CANCELLED, now)
        withdrawn = service.Move(payment.id, Event.CANCEL, "payments were stopped", decline_reason=NOT_APPROVED)
        service.record_move(session, withdrawn, who=who, now=now)


def tend(held: Held) -> None:
    """What the time brings to a request: a reminder, others who are asked, its end. A job of the worker."""
    now = datetime.now(UTC)
    with held.transaction() as session:
        step_of_request(session, held.payload["request_id"], held.payload["step"], now)


def step_of_request(session: Session, request_id: str, step: str, now: datetime) -> None:
    """Remind, ask the backups, or end the request, if it is still open."""
    request = _locked(session, request_id)
    if request is None or request.state is not RequestState.OPEN:
        return
    if _weigh(session, request, now, "the clock") is not Result.MORE_NEEDED:
        return  # those who agreed have become enough, or the payment was ended otherwise
    if step == "expire" or now >= request.expires_at:
        _expire(session, request, now)
    else:
        asked = [p for p in _missing(session, request, now) if step == "escalate" or not p.backup]
        _ask(session, request, asked, "approval.remind", now)


def _agreed(session: Session, request: ApprovalRequest) -> frozenset[str]:
    """Who agreed so far."""
    agreed = (ApprovalAnswer.request_id == request.id, ApprovalAnswer.answer == Answer.APPROVE)
    return frozenset(session.scalars(select(ApprovalAnswer.approver_id).where(*agreed)))


def _weigh(session: Session, request: ApprovalRequest, now: datetime, who: str) -> Result:
    """Whether those who agreed are enough, by the policy and the appointments as they are now."""
    payment = session.get_one(Payment, request.payment_id, with_for_update=True)
    if payment.state is not State.AWAITING:  # ended by an operator
        _decide(session, request, RequestState.CANCELLED, now)
        return Result.ALREADY_DECIDED
    decision = judged(session, request, now).decision
    if decision.refused or decision.factors:
        why = outcome(decision)
        _end(session, request, RequestState.REFUSED, Event.DECLINE, "not_allowed", why, now, who)
        return Result.NOT_ALLOWED
    if decision.approvals:
        request.why = outcome(decision)
        session.flush()
        return Result.MORE_NEEDED
    if not _agreed(session, request):
        return Result.MORE_NEEDED  # nobody need agree any more, as an approver left: nobody has, either
    _decide(session, request, RequestState.APPROVED, now)
    agreed_on = service.Move(payment.id, Event.APPROVE, "those who must have agreed")
    service.record_move(session, agreed_on, who=who, now=now)
    service.queue_debit(session, payment, "approved", now)
    return Result.APPROVED


def _expire(session: Session, request: ApprovalRequest, now: datetime) -> None:
    _end(session, request, RequestState.EXPIRED, Event.EXPIRE, NOT_IN_TIME, "nobody agreed in time", now, "the clock")


def _end(
    session: Session,
    request: ApprovalRequest,
    state: RequestState,
    event: Event,
    reason: str,
    why: str,
    now: datetime,
    who: str,
) -> None:
    _decide(session, request, state, now)
    payment = session.get_one(Payment, request.payment_id, with_for_update=True)
    if payment.state is State.AWAITING:
        moved = service.Move(payment.id, event, why[:200], decline_reason=reason)
        service.record_move(session, moved, who=who, now=now)


def _decide(session: Session, request: ApprovalRequest, state: RequestState, now: datetime) -> None:
    request.state, request.decided_at = state, now
    session.flush()


def _locked(session: Session, request_id: str) -> ApprovalRequest | None:
    """The request as it is now, its payer's row locked and then its own: one order everywhere."""
    found = session.get(ApprovalRequest, request_id)
    if found is None:
        return None
    lock_customer(session, found.ward_id)
    return session.get(ApprovalRequest, request_id, with_for_update=True)


def _missing(session: Session, request: ApprovalRequest, now: datetime) -> list[Person]:
    """Those who have not answered and whose role's agreement is missing; each person once."""
    missing = judged(session, request, now).decision.approvals
    query = select(ApprovalAnswer.approver_id).where(ApprovalAnswer.request_id == request.id)
    answered = set(session.scalars(query))
    appointed = [a for a in appointments.active(session, request.ward_id, now) if a.role in missing]
    return [person for person in appointments.persons(appointed) if person.id not in answered]


def _ask(session: Session, request: ApprovalRequest, asked: Sequence[Person], template: str, now: datetime) -> None:
    """A link to every settled contact of each; the message names neither payer nor merchant."""
    for person in asked:
        for contact in appointments.settled_contacts(session, person.id, now):
            links.send_link(session, contact, template, request_id=request.id, now=now)
        if person.ring:
            ringing.plan(session, request, person.id, now)
