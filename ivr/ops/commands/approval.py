"""``ivr approval``: payments that wait for somebody to agree."""

from __future__ import annotations

import click
from sqlalchemy import select

from ivr.approval.models import ApprovalAnswer, ApprovalRequest, RequestState
from ivr.customers.models import Customer
from ivr.customers.money import format_amount
from ivr.ops import desk
from ivr.payments.models import Payment


@click.group()
def command() -> None:
    """Payments that wait for a guardian or a supervisor. Only they answer: here nobody does it for them."""


@command.command(name="list")
@click.option("--all", "every", is_flag=True, help="Decided ones too.")
def list_(every: bool) -> None:
    """What waits, and for what."""
    query = (
        select(ApprovalRequest, Payment, Customer.number)
        .join(Payment, Payment.id == ApprovalRequest.payment_id)
        .join(Customer, Customer.id == ApprovalRequest.ward_id)
        .order_by(ApprovalRequest.created_at, ApprovalRequest.id)
    )
    if not every:
        query = query.where(ApprovalRequest.state == RequestState.OPEN)
    with desk.transaction() as session:
        rows = []
        for request, payment, number in session.execute(query).all():
            answers = session.scalars(select(ApprovalAnswer).where(ApprovalAnswer.request_id == request.id))
            said = ", ".join(f"{a.role}: {a.answer} ({desk.minute(a.at)})" for a in answers)
            amount = format_amount(payment.amount_minor, payment.currency)
            until = desk.minute(request.decided_at or request.expires_at)
            rows.append((payment.id, number, amount, request.state, request.why, said, until))
    columns = ("payment", "customer", "amount", "state", "why", "answers", "decided, or ends")
    desk.print_table(columns, rows, empty="nothing waits for anybody")
