"""``ivr stop``: end the embedded Redis."""

from __future__ import annotations

import click

from ivr.settings import settings
from ivr.store import redis


@click.command()
def command() -> None:
    """End the embedded Redis of this data folder: calls in progress are lost. The next process starts it again."""
    click.echo("stopped" if redis.stop(settings()) else "none was running")
