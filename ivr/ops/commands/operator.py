"""``ivr operator``: who may sign in to the console."""

from __future__ import annotations

import click
from sqlalchemy import select

from ivr.clock import utc_now
from ivr.console.operators import accounts
from ivr.console.operators.models import Operator, Role
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.settings import settings

_ROLE = click.Choice([role.value for role in Role])


@click.group()
def command() -> None:
    """Who may sign in to the console, under /desk. Viewers look, operators unlock customers, admins see operators."""


@command.command()
@click.argument("name")
@click.option("--role", type=_ROLE, default=Role.VIEWER.value, show_default=True)
def add(name: str, role: str) -> None:
    """Add an operator; asks for a password, and prints once what her authenticator needs."""
    password = _password()
    with desk.transaction() as session:
        keyring = Keyring.load(settings())
        secret = accounts.add(session, name, Role(role), password, keyring, who=desk.who(), now=utc_now())
    _hand_over(secret)


@command.command(name="list")
def list_() -> None:
    """All operators."""
    with desk.transaction() as session:
        rows = [
            (o.name, o.role, "disabled" if o.disabled_at else "", desk.minute(o.signed_in_at))
            for o in session.scalars(select(Operator).order_by(Operator.name))
        ]
    desk.print_table(("name", "role", "", "last signed in"), rows, empty="no operators yet: ivr operator add")


@command.command()
@click.argument("name")
@click.argument("role", type=_ROLE)
def role(name: str, role: str) -> None:
    """Give an operator another role; she is signed out."""
    with desk.transaction() as session:
        accounts.set_role(session, name, Role(role), who=desk.who(), now=utc_now())
    click.echo(f"{name} is {role}")


@command.command()
@click.argument("name")
def disable(name: str) -> None:
    """Sign an operator out and let her in no more, until `ivr operator reset`."""
    with desk.transaction() as session:
        accounts.disable(session, name, who=desk.who(), now=utc_now())
    click.echo(f"{name} cannot sign in")


@command.command()
@click.argument("name")
def reset(name: str) -> None:
    """A new password and a new second factor, for whoever lost hers or is to be let in again."""
    password = _password()
    with desk.transaction() as session:
        secret = accounts.reset(session, name, password, Keyring.load(settings()), who=desk.who(), now=utc_now())
    _hand_over(secret)


def _password() -> str:
    given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return given


def _hand_over(secret: accounts.Secret) -> None:
    click.echo("For the authenticator (as a QR code or by hand); it is shown this once:", err=True)
    click.echo(secret.uri)
