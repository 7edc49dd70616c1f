"""What one payment needs now: its facts and evidence, gathered, and the payer's policy asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr.approval import addresses, appointments, freezes, policies
from ivr.approval.policy import Decision, Evidence, Factor, Facts, Policy, Role, decide, local_time
from ivr.customers.models import Bill, Customer
from ivr.payments.models import Payment
from ivr.payments.states import DEBITED, FAILED


@dataclass(frozen=True)
class Judged:
    """What was decided, of which facts, by which policy."""

    facts: Facts
    policy: Policy
    decision: Decision


def judge(
    session: Session,
    bill: Bill,
    *,
    factors: Iterable[str],
    attested: bool,
    ship_to: str | None,
    approved: Mapping[Role, frozenset[str]] | None = None,
    payment: Payment | None = None,
    at: datetime,
    now: datetime,
) -> Judged:
    """What paying this bill needs, by the policy in force ``now``, besides what was given.

    ``at``: when the payer confirmed; ``payment``: the bill's own, which is not counted among those made before.
    """
    customer = session.get_one(Customer, bill.customer_id)
    appointed = appointments.active(session, customer.id, now)
    given = frozenset(Factor(f) for f in factors) | ({Factor.ATTESTATION} if attested else set())
    policy = policies.in_force(session, customer, appointed)
    facts = Facts(
        amount_minor=bill.amount_minor,
        currency=bill.currency,
        merchant=bill.merchant,
        at=at,
        kind=bill.kind,
        new_payee=_is_new_payee(session, bill),
        destination=addresses.destination(session, customer.id, ship_to),
        attested=attested,
        voice=Factor.VOICE in given,
        **_spent(session, bill, policy, at, payment),
    )
    evidence = Evidence(
        factors=given,
        approved=approved or {},
        appointed={role: frozenset(a.approver_id for a in appointed if a.role is role) for role in Role},
        backups={role: frozenset(a.approver_id for a in appointed if a.role is role and a.backup) for role in Role},
    )
    decision = decide(facts, evidence, policy)
    if freezes.is_frozen(session, customer.id):
        decision = Decision(decision.tier, refused="payments of this customer are frozen", rules=decision.rules)
    return Judged(facts, policy, decision)


def judge_again(session: Session, payment: Payment, approved: Mapping[Role, frozenset[str]], now: datetime) -> Judged:
    """What a payment that waits needs now: the policy, the appointments and the address book may have changed."""
    return judge(
        session,
        session.get_one(Bill, payment.bill_id),
        factors=payment.evidence["factors"],
        attested=bool(payment.evidence.get("attested")),
        ship_to=payment.ship_to,
        approved=approved,
        payment=payment,
        at=payment.created_at,
        now=now,
    )


def _is_new_payee(session: Session, bill: Bill) -> bool:
    paid = (
        select(Payment.id)
        .join(Bill, Bill.id == Payment.bill_id)
        .where(Payment.customer_id == bill.customer_id, Bill.merchant == bill.merchant, Payment.state.in_(DEBITED))
        .limit(1)
    )
    return session.scalar(paid) is None


def _spent(session: Session, bill: Bill, policy: Policy, at: datetime, payment: Payment | None) -> dict[str, int]:
    """What was spent, or is about to be, on the same day and in the same month of the policy's calendar."""
    local = local_time(at, policy)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    sums = {}
    month = day.replace(day=1)
    for name, since, until in (
        ("spent_today_minor", day, day + timedelta(days=1)),
        ("spent_month_minor", month, (month + timedelta(days=32)).replace(day=1)),
    ):
        query = select(func.coalesce(func.sum(Payment.amount_minor), 0)).where(
            Payment.customer_id == bill.customer_id,
            Payment.currency == bill.currency,
            Payment.created_at >= since,
            Payment.created_at < until,
            Payment.state.not_in(FAILED),
        )
        if payment is not None:
            query = query.where(Payment.id != payment.id)
        sums[name] = int(session.scalar(query) or 0)
    return sums
