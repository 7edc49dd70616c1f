"""``ivr keys``: the file of keys that an operator keeps outside the database."""

from __future__ import annotations

from pathlib import Path

import click

from ivr.keys import make


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def command(path: Path) -> None:
    """Make a file of new random keys at PATH, for IVR_KEYS_FILE. What is there stays."""
    if not make(path):
        raise click.ClickException(f"{path} is there already; without its keys, cards and voiceprints are lost")
    click.echo(f"{path} made. Back it up apart from the database: nothing there can be used without it.")
