"""``ivr approver``: guardians and supervisors, who must agree to others' payments."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from sqlalchemy import select

from ivr.approval import appointments
from ivr.approval.models import Appointment, Standing, Tell
from ivr.approval.policy import Role
from ivr.clock import utc_now
from ivr.customers.models import Customer
from ivr.customers.money import format_amount, parse_amount
from ivr.customers.register import require_customer
from ivr.ops import desk


@click.group()
def command() -> None:
    """Who must agree to whose payments. Customers are named by the seven digits of the customer number."""


@command.command()
@click.argument("ward")
@click.argument("approver")
@click.option("--role", type=click.Choice([r.value for r in Role]), default=Role.GUARDIAN.value, show_default=True)
@click.option("--label", required=True, help="What the approver calls the ward; in messages to the approver.")
@click.option("--backup", is_flag=True, help="Asked only when the others do not answer.")
@click.option("--ring", is_flag=True, help="Also rung up, outside quiet hours, when somebody waits.")
@click.option("--above", help="A supervisor of payments above this amount only, e.g. 50.00.")
@click.option("--currency", help="Of --above; payments in other currencies always wait.")
@click.option("--tell", type=click.Choice([t.value for t in Tell]), default=Tell.BOTH.value, show_default=True)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="YYYY-MM-DD: the day on which it ends.")
def add(
    ward: str,
    approver: str,
    role: str,
    label: str,
    backup: bool,
    ring: bool,
    above: str | None,
    currency: str | None,
    tell: str,
    until: datetime | None,
) -> None:
    """Name an approver, who is sent a link and accepts it with the PIN of a customer account of his own."""
    now = utc_now()
    if (above is None) != (currency is None):
        raise click.UsageError("--above and --currency go together")
    above_minor = parse_amount(above, currency) if above and currency else None
    with desk.transaction() as session:
        appointment = appointments.propose(
            session,
            Role(role),
            ward_id=require_customer(session, ward).id,
            approver_id=require_customer(session, approver).id,
            label=label,
            backup=backup,
            ring=ring,
            currency=currency,
            above_minor=above_minor,
            tell=Tell(tell),
            ends_at=until.replace(tzinfo=UTC) if until else None,
            who=desk.who(),
            now=now,
        )
    click.echo(f"appointment {appointment.id}: {approver} is {appointment.standing} as {role} of {ward}")


@command.command(name="list")
@click.argument("customer", required=False)
@click.option("--ended", is_flag=True, help="Ended ones too.")
def list_(customer: str | None, ended: bool) -> None:
    """Who looks after whom."""
    query = select(Appointment).order_by(Appointment.proposed_at, Appointment.id)
    with desk.transaction() as session:
        if customer:
            of = require_customer(session, customer).id
            query = query.where((Appointment.ward_id == of) | (Appointment.approver_id == of))
        if not ended:
            query = query.where(Appointment.standing != Standing.ENDED)
        rows = [
            (
                a.id,
                a.role,
                session.get_one(Customer, a.ward_id).number,
                session.get_one(Customer, a.approver_id).number,
                a.label,
                a.standing,
                format_amount(a.above_minor, a.currency or "") if a.above_minor is not None else "",
                "backup" if a.backup else "",
                desk.minute(a.ends_at),
            )
            for a in session.scalars(query)
        ]
    columns = ("id", "role", "ward", "approver", "label", "standing", "above", "", "ends")
    desk.print_table(columns, rows, empty="no guardians or supervisors")


@command.command()
@click.argument("appointment_id", metavar="APPOINTMENT")
def end(appointment_id: str) -> None:
    """End an appointment at the ward's request: one that was accepted stands for seven days more."""
    now = utc_now()
    with desk.transaction() as session:
        ended = appointments.end(session, appointment_id, by_approver=False, who=desk.who(), now=now)
    click.echo(f"appointment {ended.id} ends {desk.minute(ended.ends_at)}; both have been told")
