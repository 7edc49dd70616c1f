"""``ivr address``: where a customer's goods may go."""

from __future__ import annotations

import click

from ivr.approval import addresses
from ivr.clock import utc_now
from ivr.customers.register import require_customer
from ivr.ops import desk


@click.group()
def command() -> None:
    """A customer's address book. On the telephone an address is chosen by its number, and named by its label."""


@command.command()
@click.argument("customer")
@click.argument("label")
@click.argument("text", metavar="ADDRESS")
def add(customer: str, label: str, text: str) -> None:
    """Add an address, e.g. ivr address add 1234566 home "1 Main Street, Springfield"."""
    now = utc_now()
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        address = addresses.add(session, customer_id, label, text, who=desk.who(), now=now)
    click.echo(f"address {address.number} of {customer}: {address.label}")


@command.command(name="list")
@click.argument("customer")
def list_(customer: str) -> None:
    """The address book."""
    with desk.transaction() as session:
        rows = [(a.number, a.label, a.text) for a in addresses.book(session, require_customer(session, customer).id)]
    desk.print_table(("number", "label", "address"), rows, empty="no addresses")


@command.command()
@click.argument("customer")
@click.argument("number", type=int)
def remove(customer: str, number: int) -> None:
    """Take an address out of the book."""
    now = utc_now()
    with desk.transaction() as session:
        address = addresses.remove(session, require_customer(session, customer).id, number, who=desk.who(), now=now)
    click.echo(f"address {number} of {customer} removed: {address.label}")
