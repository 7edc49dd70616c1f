"""``ivr keys``: the keys that make a stolen database useless, in a file outside it."""

from __future__ import annotations

from pathlib import Path

import click

from ivr import keys
from ivr.clock import utc_now
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.keys import PURPOSES, Keyring
from ivr.ops import desk
from ivr.settings import settings

purpose_argument = click.argument("purpose", type=click.Choice(PURPOSES))


@click.group()
def command() -> None:
    """The keys that make a stolen database useless, in the file that IVR_KEYS_FILE names. docs/security.md."""


@command.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def make(path: Path) -> None:
    """Make a file of new random keys at PATH, for IVR_KEYS_FILE. What is there stays."""
    if not keys.make(path):
        raise click.ClickException(f"{path} is there already; without its keys, cards and voiceprints are lost")
    click.echo(f"{path} made. Back it up apart from the database: nothing there can be used without it.")


@command.command(name="list")
def list_() -> None:
    """Each key: what it protects, and how many rows of the database need it."""
    from ivr.ops.keys import PROTECTS, needed

    keyring = Keyring.load(settings())
    with desk.snapshot() as session:
        rows = needed(session, keyring, utc_now())
    table = []
    for purpose in PURPOSES:
        active, _ = keyring.active(purpose)
        for key_id in sorted(keyring.all(purpose).keys() | rows[purpose], key=lambda k: (k != active, k)):
            state = "in use" if key_id == active else "older" if key_id in keyring.all(purpose) else "MISSING"
            table.append((purpose, PROTECTS[purpose], key_id, state, rows[purpose][key_id]))
    desk.print_table(("purpose", "protects", "key", "", "rows"), table, empty="")


@command.command()
@purpose_argument
def rotate(purpose: str) -> None:
    """Make a new key, with which everything is hashed and sealed from now on. The older ones go on opening.

    Restart all processes together: one that runs on does not know the new key.
    """
    from ivr.ops.keys import THEN

    with desk.transaction() as session:  # reached before the file is changed: who tries again makes no further key
        key_id = keys.rotate(settings(), purpose)
        audit.record(session, desk.who(), "key.rotated", key_id, utc_now(), purpose=purpose)
    click.echo(f"new {purpose} key {key_id}. Back the file up, and restart all processes.")
    click.echo(f"What older keys made follows: {THEN[purpose]}.")


@command.command()
def reseal() -> None:
    """Seal everything with the keys in use that can be: voices and second factors."""
    from ivr.ops import keys as in_database

    now, keyring = utc_now(), Keyring.load(settings())
    with desk.transaction() as session:
        count = in_database.reseal(session, keyring)
        audit.record(session, desk.who(), "key.resealed", "all", now, rows=count)
        rows = in_database.needed(session, keyring, now)
    click.echo(f"{count} rows sealed anew")
    for purpose in PURPOSES:
        for key_id in sorted(keyring.all(purpose).keys() - {keyring.active(purpose)[0]}):
            needs = f"{rows[purpose][key_id]} rows need it" if rows[purpose][key_id] else "no row needs it any more"
            click.echo(f"older {purpose} key {key_id}: {needs}")


@command.command()
@purpose_argument
@click.argument("key_id")
def drop(purpose: str, key_id: str) -> None:
    """Take an older key out of the file. Refused while rows need it; a backup of the database may need it, too."""
    from ivr.ops.keys import THEN, needed

    now, keyring = utc_now(), Keyring.load(settings())
    with desk.transaction() as session:
        if rows := needed(session, keyring, now)[purpose][key_id]:
            raise InvalidInput(f"{rows} rows need the {purpose} key {key_id}. They follow: {THEN[purpose]}.")
        keys.drop(settings(), purpose, key_id)
        audit.record(session, desk.who(), "key.dropped", key_id, now, purpose=purpose)
    click.echo(f"{purpose} key {key_id} is gone from the file; backups of it are yours to delete")
