"""Payments by state, the trail of one, and those that wait for somebody to agree."""

from __future__ import annotations

from flask import Response, abort, request
from sqlalchemy import select

from ivr.approval.models import ApprovalAnswer, ApprovalRequest, RequestState
from ivr.console.operators.desk import blueprint, noted, page, reading, writing
from ivr.customers.models import Bill, Card, Customer
from ivr.ledger.models import LedgerEntry
from ivr.payments.models import Payment, PaymentEvent, Refund, Transfer
from ivr.payments.states import State

MOST_SHOWN = 100


@blueprint.get("/payments")
def payments() -> Response:
    state = request.args.get("state", "")
    query = select(Payment, Bill.merchant).join(Bill, Bill.id == Payment.bill_id).order_by(Payment.created_at.desc())
    if state in list(State):
        query = query.where(Payment.state == State(state))
    with reading() as session:
        rows = session.execute(query.limit(MOST_SHOWN)).all()
    return page("payments", rows=rows, states=list(State), state=state, most=MOST_SHOWN)


@blueprint.get("/payments/<payment_id>")
def payment(payment_id: str) -> Response:
    with writing() as session:
        found = session.get(Payment, payment_id)
        if found is None:
            abort(404)
        noted(session, "payment.viewed", found.customer_id, payment=found.id)
        of_it = {model: _of(model, found.id) for model in (PaymentEvent, Transfer, Refund, LedgerEntry)}
        asked = session.scalar(select(ApprovalRequest).where(ApprovalRequest.payment_id == found.id))
        answers = select(ApprovalAnswer, Customer.number).join(Customer, Customer.id == ApprovalAnswer.approver_id)
        return page(
            "payment",
            payment=found,
            bill=session.get_one(Bill, found.bill_id),
            card=session.get_one(Card, found.card_id),
            customer=session.get_one(Customer, found.customer_id),
            events=session.scalars(of_it[PaymentEvent].order_by(PaymentEvent.id)).all(),
            transfers=session.scalars(of_it[Transfer].order_by(Transfer.id)).all(),
            refunds=session.scalars(of_it[Refund].order_by(Refund.created_at)).all(),
            entries=session.scalars(of_it[LedgerEntry].order_by(LedgerEntry.id)).all(),
            asked=asked,
            answers=session.execute(answers.where(ApprovalAnswer.request_id == asked.id)).all() if asked else [],
        )


@blueprint.get("/approvals")
def approvals() -> Response:
    query = (
        select(ApprovalRequest, Payment, Bill.merchant)
        .join(Payment, Payment.id == ApprovalRequest.payment_id)
        .join(Bill, Bill.id == Payment.bill_id)
        .where(ApprovalRequest.state == RequestState.OPEN)
        .order_by(ApprovalRequest.expires_at)
        .limit(MOST_SHOWN)
    )
    with reading() as session:
        rows = session.execute(query).all()
    return page("approvals", rows=rows, most=MOST_SHOWN)


def _of(model, payment_id: str):  # type: ignore[no-untyped-def]
    return select(model).where(model.payment_id == payment_id)
