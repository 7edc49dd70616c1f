"""``ivr policy``: what payments of a customer need, and why."""

from __future__ import annotations

import json
from pathlib import Path

import click
from sqlalchemy.orm import Session

from ivr.approval import appointments, policies
from ivr.approval.explain import explain
from ivr.approval.judge import judge
from ivr.approval.policy import Factor
from ivr.clock import utc_now
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Bill, BillStatus, Customer
from ivr.customers.money import parse_amount
from ivr.customers.register import require_customer
from ivr.ops import desk


@click.group()
def command() -> None:
    """Rules by amount, address, merchant, time and sums: docs/approvals.md has the format."""


@command.command()
@click.argument("customer")
def show(customer: str) -> None:
    """The policy in force as JSON, with what supervisors add to it."""
    now = utc_now()
    with desk.transaction() as session:
        found = require_customer(session, customer)
        version, own = policies.own(session, found.id)
        policy = policies.in_force(session, found, appointments.active(session, found.id, now))
    click.echo(json.dumps(policies.dump(policy), indent=2, ensure_ascii=False))
    click.echo(f"version {version} of {customer}'s own" if own else "shipped with the service", err=True)


@command.command(name="set")
@click.argument("customer")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def set_(customer: str, file: Path) -> None:
    """Give a customer a policy of her own, from a JSON file; in force at once, also for what waits."""
    policy, now = policies.parse(file.read_text()), utc_now()
    with desk.transaction() as session:
        found = require_customer(session, customer)
        version = policies.put(session, found.id, policy, who=desk.who(), now=now)
    click.echo(f"policy {policy.name!r} is version {version} of {customer}'s")


@command.command()
@click.argument("customer")
def reset(customer: str) -> None:
    """Go back to the policy that ships with the service."""
    now = utc_now()
    with desk.transaction() as session:
        policies.put(session, require_customer(session, customer).id, None, who=desk.who(), now=now)
    click.echo(f"{customer} has the shipped policy")


@command.command(name="explain")
@click.argument("customer")
@click.option("--bill", "bill_id", help="One of the customer's bills; or describe a payment:")
@click.option("--amount", help="E.g. 42.10.")
@click.option("--currency", default="USD", show_default=True)
@click.option("--merchant", default="a merchant", show_default=True)
@click.option("--kind", default="", help="The merchant's kind of trade.")
@click.option("--ship-to", help="The delivery address.")
@click.option("--attested/--not-attested", default=True, show_default=True)
@click.option(
    "--factor", "factors", multiple=True, type=click.Choice([f.value for f in Factor]), help="Given; repeatable."
)
def explain_(
    customer: str,
    bill_id: str | None,
    amount: str | None,
    currency: str,
    merchant: str,
    kind: str,
    ship_to: str | None,
    attested: bool,
    factors: tuple[str, ...],
) -> None:
    """Which rules decide about a payment, and why, in words. Nothing is changed."""
    if (bill_id is None) == (amount is None):
        raise click.UsageError("give --bill, or --amount and what else the payment would be")
    now = utc_now()
    with desk.snapshot() as session:
        found = require_customer(session, customer)
        if bill_id:
            bill = _bill(session, found, bill_id)
        else:
            assert amount
            bill = Bill(
                id="", customer_id=found.id, merchant=merchant, amount_minor=parse_amount(amount, currency),
                currency=currency, kind=kind.casefold(), ship_to=ship_to, status=BillStatus.OPEN, created_at=now,
            )  # fmt: skip
        judged = judge(
            session, bill, factors=factors, attested=attested, ship_to=bill.ship_to, at=now, now=now
        )
    for line in explain(judged.facts, judged.policy, judged.decision):
        click.echo(line)


def _bill(session: Session, customer: Customer, bill_id: str) -> Bill:
    bill = session.get(Bill, bill_id)
    if bill is None or bill.customer_id != customer.id:
        raise InvalidInput(f"there is no bill {bill_id!r}; `ivr bill list {customer.number}` shows those there are")
    return bill
