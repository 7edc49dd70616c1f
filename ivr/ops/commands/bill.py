"""``ivr bill``: what customers owe."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from sqlalchemy import select

from ivr.clock import utc_now
from ivr.customers import audit, bills
from ivr.customers.models import Bill, BillStatus
from ivr.customers.money import format_amount, parse_amount
from ivr.customers.register import require_customer
from ivr.ops import desk


@click.group()
def command() -> None:
    """What customers owe."""


@command.command()
@click.argument("customer")
@click.option("--amount", required=True, help="In the currency's usual form, e.g. 42.10.")
@click.option("--currency", required=True, help="ISO 4217, e.g. USD.")
@click.option("--merchant", required=True, help="Spoken to the caller.")
@click.option("--description", default="", help="Not spoken.")
@click.option("--kind", default="", help="The merchant's kind of trade, for policies.")
@click.option("--ship-to", help="The address that goods go to.")
@click.option(
    "--due", type=click.DateTime(["%Y-%m-%d"]), help="YYYY-MM-DD; the bill due first is read first."
)
@click.option(
    "--hold", is_flag=True, help="Only hold the amount when it is paid; `ivr payments post` debits it, or a part."
)
def add(
    customer: str,
    amount: str,
    currency: str,
    merchant: str,
    description: str,
    kind: str,
    ship_to: str | None,
    due: datetime | None,
    hold: bool,
) -> None:
    """Add an open bill and print its id."""
    now = utc_now()
    amount_minor = parse_amount(amount, currency)
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        bill = bills.create_bill(
            session,
            customer_id,
            merchant=merchant,
            amount_minor=amount_minor,
            currency=currency,
            description=description,
            kind=kind,
            ship_to=ship_to,
            due_at=due.replace(tzinfo=UTC) if due else None,
            hold_only=hold,
            now=now,
        )
        audit.record(session, desk.who(), "bill.created", customer_id, now, bill=bill.id)
    click.echo(f"bill {bill.id}: {format_amount(bill.amount_minor, bill.currency)} to {bill.merchant}")


@command.command(name="list")
@click.argument("customer")
def list_(customer: str) -> None:
    """A customer's bills, paid and cancelled ones too."""
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        found = session.scalars(
            select(Bill).where(Bill.customer_id == customer_id).order_by(Bill.created_at, Bill.id)
        ).all()
        due = {bill.id for bill in bills.open_bills(session, customer_id)}
    rows = [
        (
            bill.id,
            format_amount(bill.amount_minor, bill.currency),
            bill.merchant,
            bill.description,
            desk.day(bill.due_at),
            "being paid" if bill.status is BillStatus.OPEN and bill.id not in due else bill.status,
        )
        for bill in found
    ]
    desk.print_table(("id", "amount", "merchant", "description", "due", "status"), rows, empty="no bills")


@command.command()
@click.argument("bill_id", metavar="BILL")
def cancel(bill_id: str) -> None:
    """Withdraw an open bill."""
    now = utc_now()
    with desk.transaction() as session:
        bill = bills.cancel_bill(session, bill_id)
        audit.record(session, desk.who(), "bill.cancelled", bill.customer_id, now, bill=bill.id)
    click.echo(f"bill {bill.id} cancelled")
