"""The command line ``ivr``: each command is a module of ``ivr.ops.commands``, loaded only when it is run."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from ivr.log import scrub

COMMANDS = {
    "serve": "Serve calls on this machine, with a worker beside.",
    "twilio": "Set a Twilio number up, and check all that calls hang on.",
    "keys": "The keys outside the database: make, list, rotate, drop.",
    "backup": "Copy all that must be kept, but the keys, to a folder.",
    "restore": "Put a backup into an empty database.",
    "worker": "Run what nobody waits for: debits, messages, timers.",
    "operator": "Who may sign in to the console.",
    "customer": "Who may call and pay.",
    "card": "Cards that customers have authorised to be debited.",
    "account": "Purchase accounts, through which customers buy.",
    "bill": "What customers owe.",
    "approver": "Guardians and supervisors, who must agree to others' payments.",
    "policy": "What payments of a customer need, and why.",
    "address": "Where a customer's goods may go.",
    "approval": "Payments that wait for somebody to agree.",
    "freeze": "Stop all payments of a customer.",
    "payments": "Holds, refunds, what needs a person, settlement, checks.",
    "merchant": "Whom customers pay: names, texts, API keys.",
    "app": "Merchants' apps that customers may let charge them.",
    "webhook": "Where merchants are told what became of payments.",
    "ledger": "The consortium ledger: node, members, proofs.",
    "code": "Issue an enrolment code.",
    "enrol": "Enrol a customer's voice from recordings.",
    "voiceprint": "What is kept of voices: purge, forget, export.",
    "watchlist": "Voices of known impostors.",
    "load": "Many recorded callers at once: what they wait, what it costs.",
    "call": "Play recorded callers into a running service, as the carrier would.",
    "fixture": "Record what scenarios play, by a WAV or one's own telephone.",
    "transcribe": "Print the digits heard in recordings.",
    "demo": "Play the scenes of the demo.",
    "stop": "End the embedded Redis, and with it the calls in progress.",
}


class LazyGroup(click.Group):
    """Commands by name; the help is printed without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if find_spec(f"ivr.ops.commands.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"ivr.ops.commands.{cmd_name}").command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Expected errors end in one line: 2 for input that cannot be used, 1 for what was out of reach."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            shown = error if isinstance(error, click.ClickException) else _expected(error)
            if shown is None:
                raise
            raise _scrubbed(shown) from None


class Unusable(click.ClickException):
    """What was given cannot be used; nothing was changed."""

    exit_code = 2


def _scrubbed(error: click.ClickException) -> click.ClickException:
    """The same, without a card number that was typed where another thing belongs."""
    message = scrub(error.format_message())
    if message == error.format_message():
        return error
    context = error.ctx if isinstance(error, click.UsageError) else None
    return click.UsageError(message, context) if error.exit_code == 2 else click.ClickException(message)


def _expected(error: Exception) -> click.ClickException | None:
    """None for a fault of ours, which shows its traceback."""
    from sqlalchemy.exc import OperationalError

    from ivr.customers.errors import InvalidInput
    from ivr.keys import KeysUnusable
    from ivr.payments.bank import BankError
    from ivr.payments.banks import BankSettingsWrong
    from ivr.store.redis import RedisUnavailable

    if isinstance(error, InvalidInput | BankSettingsWrong):
        return Unusable(str(error))
    if isinstance(error, OperationalError):
        return click.ClickException(f"the database is out of reach or unusable: {error.orig}")
    if isinstance(error, BankError):
        return click.ClickException(f"the bank of IVR_BANK gave no usable answer: {error}")
    return click.ClickException(str(error)) if isinstance(error, KeysUnusable | RedisUnavailable) else None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Pay by voice: a service with which a person pays by speaking on the telephone.

    Settings come from the environment (IVR_...) or a .env file.
    """


if __name__ == "__main__":
    main(prog_name="ivr")
