"""``ivr freeze``: stopping all payments of a customer."""

from __future__ import annotations

import click
from sqlalchemy import select

from ivr.approval import freezes, requests
from ivr.approval.models import Freeze
from ivr.clock import utc_now
from ivr.customers.models import Customer
from ivr.customers.register import require_customer
from ivr.ops import desk


@click.group()
def command() -> None:
    """Stop a customer's payments, or let her pay again. Guardians and supervisors stop them by saying "fraud"."""


@command.command(name="set")
@click.argument("customer")
def set_(customer: str) -> None:
    """Stop all payments; what was not sent to the bank yet is withdrawn."""
    now = utc_now()
    with desk.transaction() as session:
        requests.stop(session, require_customer(session, customer).id, who=desk.who(), now=now)
    click.echo(f"payments of {customer} are stopped")


@command.command()
@click.argument("customer")
def clear(customer: str) -> None:
    """Let the customer pay again, after you have spoken with her."""
    now = utc_now()
    with desk.transaction() as session:
        cleared = freezes.clear(session, require_customer(session, customer).id, who=desk.who(), now=now)
    click.echo(f"customer {customer} {'may pay again' if cleared else 'was not stopped'}")


@command.command(name="list")
def list_() -> None:
    """Whose payments are stopped."""
    query = select(Freeze, Customer.number).join(Customer, Customer.id == Freeze.customer_id)
    with desk.transaction() as session:
        found = session.execute(query.where(Freeze.cleared_at.is_(None)).order_by(Freeze.at))
        rows = [(number, desk.minute(freeze.at), freeze.who) for freeze, number in found]
    desk.print_table(("customer", "since", "by"), rows, empty="nobody's payments are stopped")
