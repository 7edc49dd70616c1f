"""``ivr customer``: who may call and pay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval import freezes
from ivr.approval.appointments import active
from ivr.call import bill_calls
from ivr.clock import utc_now
from ivr.customers import audit, budget
from ivr.customers.bills import open_bills
from ivr.customers.cards import authorised_cards
from ivr.customers.models import Customer, FailureBudget
from ivr.customers.money import format_amount
from ivr.customers.pins import has_pin
from ivr.customers.register import add_customer, require_customer
from ivr.customers.voiceprints import is_provisional, model_of_voiceprint
from ivr.locales import LOCALES
from ivr.ops import desk, voices


@click.group()
def command() -> None:
    """Who may call and pay. A CUSTOMER is named by the seven digits of the customer number."""


@command.command()
@click.option("--phone", "phones", multiple=True, required=True, help="Calls from it select her; repeatable.")
@click.option("--locale", default="en", show_default=True, help=f"One of {', '.join(LOCALES)}.")
@click.option("--test", is_flag=True, help="May be debited at the sandbox bank, and only there.")
@click.option("--minor", is_flag=True, help="Pays only under the eyes of a guardian.")
@click.option("--email", "emails", multiple=True, help="Is told of changes; repeatable.")
@click.option("--sms", multiple=True, help="Is told of changes; repeatable.")
def add(
    phones: tuple[str, ...], locale: str, test: bool, minor: bool, emails: tuple[str, ...], sms: tuple[str, ...]
) -> None:
    """Add a customer and print the customer number."""
    now = utc_now()
    with desk.transaction() as session:
        customer = add_customer(
            session, phones=phones, locale=locale, test=test, minor=minor, sms=sms, emails=emails, now=now
        )
        audit.record(session, desk.who(), "customer.added", customer.id, now, test=test)
    click.echo(f"customer {customer.number}")


@command.command(name="list")
def list_() -> None:
    """All customers."""
    with desk.transaction() as session:
        rows = [
            (c.number, ", ".join(i.e164 for i in c.caller_ids), c.locale, "test" if c.test else "")
            for c in session.scalars(select(Customer).order_by(Customer.created_at, Customer.number))
        ]
    desk.print_table(("number", "calls from", "locale", ""), rows, empty="no customers yet: ivr customer add")


@command.command()
@click.argument("number")
def show(number: str) -> None:
    """What is on file for a customer."""
    with desk.transaction() as session:
        rows = list(_on_file(session, require_customer(session, number), utc_now()))
    desk.print_table(("", f"customer {number}"), rows, empty="")


@command.command()
@click.argument("number")
def reset(number: str) -> None:
    """Set the failure budget to zero: a customer who was locked out may call again at once."""
    now = utc_now()
    with desk.transaction() as session:
        customer = require_customer(session, number)
        budget.reset(session, customer.id)
        audit.record(session, desk.who(), "budget.reset", customer.id, now)
    click.echo(f"customer {number} may call again")


@command.command()
@click.argument("number")
@click.argument("answer", type=click.Choice(["on", "off"]))
@click.option("--channel", help='With on: how she agreed, as in "on paper, 3 May".')
def rung(number: str, answer: str, channel: str | None) -> None:
    """Note that a customer agrees to be rung up about bills, or does not want it any more."""
    now = utc_now()
    if answer == "on" and not channel:
        raise click.UsageError("say with --channel how she agreed")
    with desk.transaction() as session:
        customer = require_customer(session, number)
        if answer == "on":
            bill_calls.agree(session, customer.id, who=desk.who(), channel=str(channel), now=now)
        else:
            bill_calls.withdraw(session, customer.id, who=desk.who(), now=now)
    click.echo(f"customer {number} {'may' if answer == 'on' else 'will not'} be rung up about bills")


def _on_file(session: Session, customer: Customer, now: datetime) -> Iterator[tuple[str, str]]:
    yield "locale", customer.locale
    yield "kind", "test: sandbox bank only" if customer.test else "real"
    if customer.minor:
        yield "age", "minor: pays only under the eyes of a guardian"
    if freezes.is_frozen(session, customer.id):
        yield "payments", f"stopped: `ivr freeze clear {customer.number}`"
    for appointment in active(session, customer.id, now):
        yield appointment.role, session.get_one(Customer, appointment.approver_id).number
    yield "since", desk.minute(customer.created_at)
    yield "calls from", "\n".join(caller.e164 for caller in customer.caller_ids)
    yield "is told at", "\n".join(f"{c.kind} {c.address}" for c in customer.contacts)
    cards = authorised_cards(session, customer.id, now.date())
    yield "cards", "\n".join(f"{c.brand} •••• {c.last4}" for c in cards)
    bills = open_bills(session, customer.id)
    yield "open bills", "\n".join(f"{format_amount(b.amount_minor, b.currency)} {b.merchant}" for b in bills)
    yield "voiceprint", _voiceprint(model_of_voiceprint(session, customer.id))
    yield "PIN", "set" if has_pin(session, customer.id) else "none"
    if bill_calls.may_be_rung(session, customer.id):
        yield "is rung up", "about bills"
    if is_provisional(session, customer.id, now):
        yield "provisional", "small payments only: voiceprint or PIN is new"
    yield "failures", _failures(session, customer, now)


def _voiceprint(model_id: str | None) -> str:
    if model_id is None:
        return "none"
    if model_id == voices.model_in_force():
        return "enrolled"
    return f"enrol again: it is of another model, {model_id}"


def _failures(session: Session, customer: Customer, now: datetime) -> str:
    kinds = (("", True), ("calls without attestation: ", False))
    rows = [(kind, session.get(FailureBudget, (customer.id, attested))) for kind, attested in kinds]
    return "\n".join(kind + _counted(row, now) for kind, row in rows if row and row.total) or "none"


def _counted(row: FailureBudget, now: datetime) -> str:
    counted = f"{row.in_a_row} in a row, {row.total} of {budget.MOST_IN_ALL} in all"
    if not budget.is_spent(row, now):
        return counted
    until = "reset by an operator" if row.total >= budget.MOST_IN_ALL else desk.minute(row.locked_until)
    return f"{counted}; locked until {until}"
