"""The gate before the debit: whether a call may pay a bill, and starting the payment, at once or to wait."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ivr.approval import addresses, requests, telling
from ivr.approval.explain import outcome, tell
from ivr.approval.judge import Judged, judge
from ivr.approval.policy import Factor
from ivr.customers import audit
from ivr.customers.bills import has_live_payment
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Bill
from ivr.log import scrub_value
from ivr.payments import service
from ivr.payments.models import Payment

TOLD_AGAIN_AFTER = timedelta(days=1)


class NotAllowed(service.PaymentError):
    """The payer's policy refuses the payment, or needs what this call did not give."""


def may_be_paid(
    session: Session, bill_id: str, address_id: str, *, factors: Collection[str], attested: bool, now: datetime
) -> bool:
    """Whether a call that can give these factors at most could pay the bill, if all agree who must.

    If not, the approvers are told that it was tried, once a day.
    """
    bill = session.get_one(Bill, bill_id)
    decision = _judge(session, bill, address_id, factors, attested, now).decision
    if decision.refused is None and not decision.factors:
        return True
    if audit.last(session, "payment.not_allowed", bill.id, since=now - TOLD_AGAIN_AFTER) is None:
        telling.tell_approvers(session, bill.customer_id, "ward.attempted", telling.about(bill), now)
        audit.record(session, "the service", "payment.not_allowed", bill.id, now)
    return False


def missing_factors(
    session: Session, bill_id: str, address_id: str, *, factors: Collection[str], attested: bool, now: datetime
) -> frozenset[Factor]:
    """What the call has still to give before the payment may be started."""
    return _judge(session, session.get_one(Bill, bill_id), address_id, factors, attested, now).decision.factors


def start(
    session: Session,
    *,
    bill_id: str,
    customer_id: str,
    card_id: str,
    idempotency_key: str,
    call_sid: str,
    factors: Collection[str],
    attestation: str | None,
    attested: bool,
    address_id: str = "",
    now: datetime,
    limit_minor: int | None = None,
    bank: str = "sandbox",
    test_bank: bool = True,
) -> Payment:
    """Start a payment whose payer confirmed it: it is debited, or waits for others, by her policy.

    The same key gives the payment started first. Raises NotAllowed and what ``service.start_payment`` raises.
    """
    if first := service.payment_by_key(session, idempotency_key):
        return first
    # One payment of a customer after the other, so that each counts what the others spend.
    lock_customer(session, customer_id)
    bill = session.get(Bill, bill_id, with_for_update=True)
    if first := service.payment_by_key(session, idempotency_key):  # by whoever held the lock before
        return first
    if bill is None or bill.customer_id != customer_id or has_live_payment(session, bill_id):
        raise service.BillNotOpen("there is no such open bill of this customer")
    judged = _judge(session, bill, address_id, factors, attested, now)
    decision = judged.decision
    if decision.refused or decision.factors:
        raise NotAllowed(outcome(decision))
    why = scrub_value(tell(judged.facts, judged.policy, decision))  # a merchant's name may look like a number
    evidence: dict[str, Any] = {
        "factors": list(factors), "attestation": attestation, "attested": attested, "why": why
    }  # fmt: skip
    payment = service.start_payment(
        session,
        bill_id=bill_id,
        customer_id=customer_id,
        card_id=card_id,
        idempotency_key=idempotency_key,
        call_sid=call_sid,
        evidence=evidence,
        now=now,
        limit_minor=limit_minor,
        ship_to=addresses.chosen(session, bill, address_id),
        awaiting=outcome(decision) if decision.approvals else None,
        bank=bank,
        test_bank=test_bank,
    )
    if decision.approvals:
        requests.open_request(session, payment, outcome(decision), now)
    return payment


def _judge(
    session: Session, bill: Bill, address_id: str, factors: Collection[str], attested: bool, now: datetime
) -> Judged:
    ship_to = addresses.chosen(session, bill, address_id)
    return judge(session, bill, factors=factors, attested=attested, ship_to=ship_to, at=now, now=now)
