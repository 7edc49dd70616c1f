"""``ivr watchlist``: voices of known impostors, who are refused whoever they claim to be."""

from __future__ import annotations

import click

from ivr.clock import utc_now
from ivr.customers import audit, watchlist
from ivr.keys import Keyring
from ivr.ops import desk, voices
from ivr.settings import settings


@click.group()
def command() -> None:
    """Voices of known impostors. A caller who sounds more like one of them than like the customer is refused."""


@command.command()
@click.argument("label")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--legal-basis", required=True, help="What allows this voice to be kept, e.g. 'GDPR 9(2)(f), case 71/26'."
)
def add(label: str, files: tuple[str, ...], legal_basis: str) -> None:
    """Add a voice from three recordings or more of one impostor; LABEL names the case, not the person."""
    now, keyring = utc_now(), Keyring.load(settings())
    voiceprint = voices.enrolled(voices.heard(files))
    with desk.transaction() as session:
        entry = watchlist.add_entry(
            session, voiceprint, label=label, legal_basis=legal_basis, keyring=keyring, now=now
        )
        audit.record(session, desk.who(), "watchlist.added", entry.id, now, legal_basis=entry.legal_basis)
    click.echo(f"entry {entry.id} added")


@command.command(name="list")
def list_() -> None:
    """All entries, and in how many turns each was heard."""
    in_force = voices.model_in_force()
    with desk.transaction() as session:
        rows = [
            (
                entry.id,
                entry.label,
                entry.legal_basis,
                desk.minute(entry.created_at),
                heard if entry.model_id == in_force else "never: of another model, add it again",
            )
            for entry, heard in watchlist.entries(session)
        ]
    desk.print_table(("entry", "label", "legal basis", "since", "heard"), rows, empty="the watch list is empty")


@command.command()
@click.argument("entry")
def remove(entry: str) -> None:
    """Delete an entry and its voice."""
    now = utc_now()
    with desk.transaction() as session:
        watchlist.remove_entry(session, entry)
        audit.record(session, desk.who(), "watchlist.removed", entry, now)
    click.echo(f"entry {entry} removed")
