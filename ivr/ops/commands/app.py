"""``ivr app``: merchants' apps, who lets them charge, and what they play before they ask."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from sqlalchemy import select

from ivr.api.voice import prompts_folder
from ivr.clock import utc_now
from ivr.customers import apps, audit, merchants
from ivr.customers.apps import App, AppBinding
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant
from ivr.customers.models import Customer
from ivr.customers.money import format_amount
from ivr.ops import desk
from ivr.settings import settings
from ivr.speech.audio import AudioError, read_audio

PROMPT_KINDS = (".wav", ".flac", ".ogg")


@click.group()
def command() -> None:
    """Merchants' apps that customers may let charge them."""


@command.command()
@click.argument("merchant")
@click.argument("name")
def add(merchant: str, name: str) -> None:
    """Add an app of a merchant's under a name that is fit to be spoken, and print its id."""
    with desk.transaction() as session:
        found = merchants.require_merchant(session, merchant)
        app = apps.add_app(session, found, name, who=desk.who(), now=utc_now())
    click.echo(f"app {app.id}: {app.name} of {found.name}")


@command.command(name="list")
def list_() -> None:
    """All apps."""
    with desk.transaction() as session:
        query = select(App, Merchant.name).join(Merchant).order_by(Merchant.name, App.name)
        rows = [
            (app.id, merchant, app.name, app.prompt_file or "", "closed" if app.closed_at else "")
            for app, merchant in session.execute(query)
        ]
    desk.print_table(("id", "merchant", "name", "prompt", ""), rows, empty="no apps")


@command.command()
@click.argument("app_id", metavar="APP")
def close(app_id: str) -> None:
    """Let an app charge nobody any more."""
    now = utc_now()
    with desk.transaction() as session:
        app = apps.require_app(session, app_id)
        app.closed_at = now
        audit.record(session, desk.who(), "app.closed", app.id, now)
    click.echo(f"app {app.name} closed")


@command.command()
@click.argument("app_id", metavar="APP")
@click.argument("file", type=click.Path(path_type=Path))
def prompt(app_id: str, file: Path) -> None:
    """Set the recording (WAV, FLAC or Ogg) that the app plays before it asks; it is copied into the data folder.

    Where several machines serve, run this on each, or share the folder.
    """
    kind = file.suffix.lower()
    if kind not in PROMPT_KINDS:
        raise InvalidInput(f"a prompt is a file of {', '.join(PROMPT_KINDS)}")
    try:
        read_audio(file)
    except AudioError as error:
        raise InvalidInput(str(error)) from None
    now = utc_now()
    with desk.transaction() as session:
        app = apps.require_app(session, app_id)
        folder = prompts_folder(settings().data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / f"{app.id}{kind}")
        app.prompt_file = f"{app.id}{kind}"
        audit.record(session, desk.who(), "app.prompt", app.id, now)
    click.echo(f"{app.name} plays {file.name} first")


@command.command()
@click.argument("app_id", metavar="APP")
def bindings(app_id: str) -> None:
    """Who lets an app charge, and within which limits."""
    with desk.transaction() as session:
        query = (
            select(AppBinding, Customer.number)
            .join(Customer, Customer.id == AppBinding.customer_id)
            .where(AppBinding.app_id == app_id)
            .order_by(AppBinding.bound_at)
        )
        rows = [
            (
                one.id,
                number,
                format_amount(one.limit_minor or 0, one.currency or ""),
                desk.minute(one.bound_at),
                desk.minute(one.unbound_at),
            )
            for one, number in session.execute(query)
        ]
    desk.print_table(("id", "customer", "limit", "bound", "unbound"), rows, empty="nobody")


@command.command()
@click.option("--url", default="http://127.0.0.1:8400", show_default=True, help="Where the service is.")
@click.option("--key", envvar="APP_DEMO_KEY", required=True, help="An API key, or in APP_DEMO_KEY.")
@click.option("--app", "app_id", required=True, help="The app, which the customer has bound.")
@click.option("--customer", required=True, help="Your reference to her: the id that POST /v1/customers gave.")
@click.option("--port", default=8410, show_default=True)
def demo(url: str, key: str, app_id: str, customer: str, port: int) -> None:
    """Serve the reference app: a page that buys, and that charges by voice, with the merchant's server behind it."""
    from ivr.api.reference import create_app

    create_app(url, key, app_id, customer).run("127.0.0.1", port)


@command.command()
@click.argument("binding_id", metavar="BINDING")
def unbind(binding_id: str) -> None:
    """Let the app of a binding charge its customer no more."""
    with desk.transaction() as session:
        found = session.get(AppBinding, binding_id)
        if found is None:
            raise InvalidInput(f"there is no binding {binding_id!r}; `ivr app bindings APP` shows those there are")
        apps.unbind(session, found, who=desk.who(), now=utc_now())
    click.echo(f"binding {binding_id} ended")
