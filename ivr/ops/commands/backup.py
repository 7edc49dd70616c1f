"""``ivr backup``: all that must be kept, but the keys."""

from __future__ import annotations

from pathlib import Path

import click

from ivr.clock import utc_now
from ivr.customers import audit
from ivr.ops import backup, desk
from ivr.ops.keys import named
from ivr.settings import settings
from ivr.store.db import Database


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Copy the database and the prompts of apps to the new FOLDER, with checksums, while the service runs.

    The keys file is not in it, by design: keep it apart. Of PostgreSQL, pg_dump makes the copy.
    """
    now = utc_now()
    with desk.transaction() as session:
        keys = named(session, now)
        audit.record(session, desk.who(), "backup.made", folder.name, now)
    size = backup.make(settings(), Database(settings().sqlalchemy_url()), keys, folder, now)
    click.echo(f"{folder}: {size / 1e6:.1f} MB, readable by you only. The keys are not in it: keep them apart.")
