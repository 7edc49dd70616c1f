"""``ivr voiceprint``: what is kept of voices; how long, how to give it to its person, and how to be rid of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from ivr.call import verdicts
from ivr.clock import utc_now
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.register import require_customer
from ivr.customers.retention import due, export, forget
from ivr.customers.retention import purge as purge_now
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.settings import settings


@click.group()
def command() -> None:
    """What is kept of voices. A CUSTOMER is named by the seven digits of the customer number."""


@command.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def purge(dry_run: bool) -> None:
    """Delete what is past its time: unused voiceprints, old fingerprints, and all whose consent was withdrawn.

    The times are IVR_VOICEPRINT_UNUSED_DAYS and IVR_UTTERANCE_DAYS. A worker does it daily.
    """
    now = utc_now()
    with desk.transaction() as session:
        found = due(session, now, settings())
        if not dry_run:
            purge_now(session, found, who=desk.who(), now=now)
    verb = "would be" if dry_run else "were"
    click.echo(f"{len(found.voiceprints)} voiceprints and {len(found.utterances)} fingerprints {verb} deleted")


@command.command(name="forget")
@click.argument("customer")
def forget_(customer: str) -> None:
    """Delete the voiceprint and the fingerprints of a customer, whose consent is thereby withdrawn.

    She can pay by card and PIN. What was decided in calls, without any voice in it, stays.
    """
    now = utc_now()
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        voiceprints, fingerprints = forget(session, customer_id, now)
        audit.record(
            session,
            desk.who(),
            "voiceprint.forgotten",
            customer_id,
            now,
            voiceprints=voiceprints,
            fingerprints=fingerprints,
        )
    click.echo(f"customer {customer}: {voiceprints} voiceprints and {fingerprints} fingerprints deleted")


@command.command(name="export")
@click.argument("customer")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new file, for its owner only.")
def export_(customer: str, out: Path) -> None:
    """Write all that is kept of a customer's voice to a file, as JSON, to give it to her."""
    now, keyring = utc_now(), Keyring.load(settings())
    with desk.transaction() as session:
        person = require_customer(session, customer)
        held = export(session, person, keyring) | {"verdicts": verdicts.of_customer(session, person.id)}
        text = json.dumps(held, indent=1)
        audit.record(session, desk.who(), "voiceprint.exported", person.id, now)
        _write_new(out, text)
    click.echo(f"customer {customer}: written to {out}, which only you can read")


def _write_new(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written as a new file: {error.strerror}") from None
