"""``ivr restore``: a backup, into an empty database."""

from __future__ import annotations

from pathlib import Path

import click

from ivr.clock import utc_now
from ivr.customers import audit
from ivr.ops import backup, desk
from ivr.settings import settings
from ivr.store.db import Database


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--check", is_flag=True, help="Only say whether the backup is whole.")
def command(folder: Path, check: bool) -> None:
    """Put the backup in FOLDER into the database of the settings, which must be empty, and bring it up to date.

    The service must not run yet, and the keys file must be in its place. A damaged backup is refused.
    """
    if check:
        made = backup.check(folder)
        click.echo(f"{folder} is whole: of {made['made_at']}, schema {made['schema']}")
        return
    made = backup.restore(settings(), Database(settings().sqlalchemy_url()), folder)
    with desk.transaction() as session:
        audit.record(session, desk.who(), "backup.restored", folder.name, utc_now(), made_at=made["made_at"])
    click.echo(f"restored as of {made['made_at']}. What the bank did since: ivr payments verify")
