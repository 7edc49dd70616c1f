"""``ivr twilio``: set a number up for our calls, and check all that they hang on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import requests
from rich.console import Console
from twilio.base.exceptions import TwilioException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from ivr.locales import LOCALES
from ivr.notifications.channels import quiet
from ivr.ops import desk
from ivr.ops.twilio import checks
from ivr.ops.twilio.number import Change, Field, changes, wanted
from ivr.ops.twilio.picture import picture as drawn
from ivr.settings import Settings, settings

TIMEOUT_S = 10


@click.group()
def command() -> None:
    """Set a Twilio number up for our calls, and check all that they hang on."""


@command.command()
@click.option("--number", required=True, help="The number, in full: +15035550123.")
@click.option("--locale", type=click.Choice(LOCALES), help="Language of callers we know nothing of, for this number.")
@click.option("--print", "only_print", is_flag=True, help="Ask Twilio nothing: print the values for its console.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="With --print: draw its page, filled in, as SVG."
)
@click.option("--yes", is_flag=True, help="Do not ask before changing.")
def configure(number: str, locale: str | None, only_print: bool, picture: Path | None, yes: bool) -> None:
    """Have a number's calls and messages come to IVR_PUBLIC_URL. Shows what differs, and asks."""
    given = settings()
    if not given.public_url or not given.public_url.startswith("https://"):
        raise click.UsageError("set IVR_PUBLIC_URL to the https:// address at which Twilio reaches this service")
    fields = wanted(given.public_url, locale)
    if picture and not only_print:
        raise click.UsageError("--picture goes with --print")
    if only_print:
        _print(number, fields)
        if picture:
            picture.write_text(drawn(number, fields))
            click.echo(f"\n{picture} shows where each goes; a browser opens it")
        return
    client = _client(given)
    try:
        found = client.incoming_phone_numbers.list(phone_number=number, limit=2)
        exact = [one for one in found if one.phone_number == number]
        if not exact:
            raise click.ClickException(
                f"account {given.account_sid} has no number {number}; buy one in the console, or check the account"
            )
        differ = changes(vars(exact[0]), fields)
        if not differ:
            click.echo(f"{number} is set up for {given.public_url}; nothing to change")
            return
        _show(number, differ)
        if not yes:
            click.confirm("Change these?", abort=True)
        exact[0].update(**{change.name: _typed(change) for change in differ})
        left = changes(vars(client.incoming_phone_numbers(str(exact[0].sid)).fetch()), fields)
    except TwilioException as error:
        raise click.ClickException(_why(error)) from None
    except requests.RequestException as error:
        raise click.ClickException(f"Twilio is out of reach ({type(error).__name__})") from None
    if left:
        _show(number, left)
        raise click.ClickException("Twilio took the change and still says otherwise; look at the number in its console")
    click.echo(f"{number} is set up for {given.public_url}. Try it: ivr twilio check --number {number}")


@command.command()
@click.option("--number", help="Whether this number is set up for us, too.")
def check(number: str | None) -> None:
    """Check all that calls hang on; each line says what to do. Exits 1 when something fails."""
    given = settings()
    failed = False
    console = Console(highlight=False)
    colours = {checks.State.OK: "green", checks.State.LOOK: "yellow", checks.State.FAIL: "red"}
    for found in checks.run(given, _client(given) if given.account_sid else None, number):
        failed |= found.state is checks.State.FAIL
        console.print(f"[{colours[found.state]}]{found.state.value:4}[/] {found.name:22}", end=" ")
        console.print(found.said, markup=False)
    if failed:
        raise click.exceptions.Exit(1)


def _client(given: Settings) -> Client:
    token = given.auth_token.get_secret_value()
    if not (given.account_sid and token):
        raise click.UsageError("set IVR_ACCOUNT_SID and IVR_AUTH_TOKEN, from the console: Account > API keys & tokens")
    return Client(given.account_sid, token, http_client=TwilioHttpClient(timeout=TIMEOUT_S, logger=quiet))


def _typed(change: Change) -> str | bool:
    return change.after == "True" if change.name == "voice_caller_id_lookup" else change.after


def _show(number: str, differ: Sequence[Change]) -> None:
    click.echo(f"{number} differs:")
    desk.print_table(
        ("field", "is", "will be"), [(c.name, c.before or "-", c.after or "-") for c in differ], empty="nothing"
    )


def _print(number: str, fields: tuple[Field, ...]) -> None:
    click.echo(
        f"In the Twilio console: Phone Numbers > Manage > Active numbers > {number} > Configure.\n"
        "Choose Webhook wherever a handler is asked for, and copy each value whole, with what follows its #.\n"
    )
    page = ""
    for field in fields:
        where, _, what = field.console.partition(" > ")
        if where != page:
            page = where
            click.echo(f"{page} Configuration")
        value = "Disabled" if field.value == "False" else field.value
        click.echo(f"  {what}\n    {value}")


def _why(error: TwilioException) -> str:
    # Of a list it names no status, but holds the answer.
    answers = (a.status_code for a in error.args if hasattr(a, "status_code"))
    status = getattr(error, "status", None) or next(answers, None)
    if status in (401, 403):
        return "Twilio does not take IVR_ACCOUNT_SID with IVR_AUTH_TOKEN: copy both anew from its console"
    return f"Twilio answered with an error: {getattr(error, 'code', None) or status}"
