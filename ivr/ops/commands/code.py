"""``ivr code``: an enrolment code for a customer."""

from __future__ import annotations

import click

from ivr.clock import utc_now
from ivr.customers import audit
from ivr.customers.enrolment import VALID_FOR, issue_code
from ivr.customers.register import require_customer
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.settings import settings


@click.command()
@click.argument("customer")
def command(customer: str) -> None:
    """Issue an enrolment code: give it to the customer over a channel that you both trust already.

    It is printed once, works once, and takes the place of an earlier one.
    """
    now = utc_now()
    keyring = Keyring.load(settings())
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        code = issue_code(session, customer_id, keyring, now)
        audit.record(session, desk.who(), "code.issued", customer_id, now)
    click.echo(code)
    click.echo(f"valid until {desk.minute(now + VALID_FOR)}", err=True)
