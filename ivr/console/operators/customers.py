"""One customer, found by the customer number and never by a card: what is on file, and unlocking her."""

from __future__ import annotations

import re

from flask import Response, abort, request
from sqlalchemy import select

from ivr.approval import appointments, explain, policies
from ivr.approval.models import Freeze
from ivr.console.operators.desk import back, blueprint, noted, now, page, words, writing
from ivr.customers import budget
from ivr.customers.lookup import customer_by_number
from ivr.customers.models import Audit, Bill, Card, Consent, Customer, Failure, FailureBudget
from ivr.customers.pins import has_pin
from ivr.customers.voiceprints import voiceprint_of
from ivr.payments.models import Payment

MOST_SHOWN = 50
NOBODY = "0" * 16


@blueprint.route("/customers", methods=["GET", "POST"])
def customers() -> Response:
    """A form that posts: what somebody types by mistake is in no address, and is not shown again."""
    if request.method == "GET":
        return page("customers")
    number = re.sub(r"[\s-]", "", request.form.get("number", ""))
    with writing() as session:
        found = customer_by_number(session, number)
        if found is None:
            noted(session, "customer.not_found", NOBODY)
            return page("customers", 404, errors=["error.customer"])
        return back("customer", customer_id=found.id)


@blueprint.get("/customers/<customer_id>")
def customer(customer_id: str) -> Response:
    with writing() as session:
        found = session.get(Customer, customer_id)
        if found is None:
            abort(404)
        noted(session, "customer.viewed", found.id)
        session.flush()
        appointed = appointments.active(session, found.id, now())
        policy = policies.in_force(session, found, appointed)
        version, own = policies.own(session, found.id)
        payments = (
            select(Payment, Bill.merchant)
            .join(Bill, Bill.id == Payment.bill_id)
            .where(Payment.customer_id == found.id)
            .order_by(Payment.created_at.desc())
        )
        budgets = [b for a in (True, False) if (b := session.get(FailureBudget, (found.id, a))) and b.total]
        return page(
            "customer",
            customer=found,
            cards=session.scalars(select(Card).where(Card.customer_id == found.id).order_by(Card.authorised_at)).all(),
            consents=session.scalars(
                select(Consent).where(Consent.customer_id == found.id).order_by(Consent.given_at)
            ).all(),
            voiceprint=voiceprint_of(session, found.id),
            has_pin=has_pin(session, found.id),
            budgets=[(b, budget.is_spent(b, now())) for b in budgets],
            most=budget.MOST_IN_ALL,
            failures=session.scalars(
                select(Failure).where(Failure.customer_id == found.id).order_by(Failure.at.desc()).limit(MOST_SHOWN)
            ).all(),
            freezes=session.scalars(select(Freeze).where(Freeze.customer_id == found.id).order_by(Freeze.at)).all(),
            appointed=[(a, session.get_one(Customer, a.approver_id)) for a in appointed],
            policy=policy,
            version=version if own else None,
            rules=list(explain.rules(policy, words().locale)),
            payments=session.execute(payments.limit(MOST_SHOWN)).all(),
            trail=session.scalars(
                select(Audit).where(Audit.subject == found.id).order_by(Audit.at.desc()).limit(MOST_SHOWN)
            ).all(),
        )


@blueprint.post("/customers/<customer_id>/unlock")
def unlock(customer_id: str) -> Response:
    """She may call again at once; as `ivr customer reset` does."""
    with writing() as session:
        if session.get(Customer, customer_id) is None:
            abort(404)
        budget.reset(session, customer_id)
        noted(session, "budget.reset", customer_id)
    return back("customer", customer_id=customer_id, said="said.unlocked")
