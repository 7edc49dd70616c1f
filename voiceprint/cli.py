"""The command line ``voiceprint``: each command is a module of ``voiceprint.commands``, loaded only when it is run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from voiceprint.errors import VoiceprintError

COMMANDS = {
    "embed": "Turn recordings into embeddings.",
    "score": "Score a list of trials.",
    "report": "Error rates of scores, with intervals, plots and what they prove.",
    "calibrate": "Set a model's calibration and threshold by your own recordings.",
}


class LazyGroup(click.Group):
    """Commands by name; the help is printed without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"voiceprint.commands.{cmd_name}").command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """What can go wrong ends in one line and exit status 2, and leaves no half-written file."""
        try:
            return super().invoke(ctx)
        except VoiceprintError as error:
            raise Unusable(str(error)) from None


class Unusable(click.ClickException):
    """What was given cannot be used."""

    exit_code = 2


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Speaker verification over the telephone: embeddings, scores, calibration, reports."""


if __name__ == "__main__":
    main(prog_name="voiceprint")
