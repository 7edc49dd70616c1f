"""``ivr enrol``: voiceprints from recordings that the operator has, of one customer or of many."""

from __future__ import annotations

from pathlib import Path

import click

from ivr.clock import utc_now
from ivr.customers.register import require_customer
from ivr.customers.text import clean_text
from ivr.customers.voiceprints import CONSENT_TEXT_VERSION
from ivr.keys import Keyring
from ivr.ops import batch, desk, voices
from ivr.settings import settings


@click.command()
@click.argument("customer", required=False)
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--consent", help="How she agreed, e.g. 'signed form of 3 May'; it is kept.")
@click.option(
    "--text-version", default=CONSENT_TEXT_VERSION, show_default=True, help="Of what was agreed to."
)
@click.option("--add", is_flag=True, help="Add to the voiceprint she has, best from another call; one FILE will do.")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="Enrol many: a TSV file with the columns customer, file, consent; 8 kHz recordings.",
)
@click.option("--dry-run", is_flag=True, help="With --manifest: check everything, store nothing.")
@click.option("--replace", is_flag=True, help="With --manifest: also customers who are enrolled already.")
def command(
    customer: str | None,
    files: tuple[str, ...],
    consent: str | None,
    text_version: str,
    add: bool,
    manifest: Path | None,
    dry_run: bool,
    replace: bool,
) -> None:
    """Enrol a customer's voice from three recordings or more (WAV or FLAC, any rate) of one person."""
    if manifest:
        if customer or consent or add:
            raise click.UsageError("--manifest names customers, recordings and consents itself")
        _enrol_many(manifest, text_version, dry_run=dry_run, replace=replace)
    elif customer and files and consent and not (dry_run or replace):
        _enrol_one(customer, files, consent, text_version, add=add)
    else:
        raise click.UsageError("give CUSTOMER FILE... --consent TEXT, or --manifest FILE")


def _enrol_one(customer: str, files: tuple[str, ...], consent: str, text_version: str, *, add: bool) -> None:
    consent = clean_text(consent, "the consent", least=3, most=150)
    keyring = Keyring.load(settings())
    with desk.transaction() as session:
        require_customer(session, customer)
    recordings = voices.heard(files)
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        voiceprint = (
            voices.extended(session, customer_id, recordings, keyring) if add else voices.enrolled(recordings)
        )
        voices.store(session, customer_id, voiceprint, consent, text_version, keyring, recordings, utc_now())
    click.echo(f"customer {customer} is enrolled from {voiceprint.net_speech_s:.1f} s of speech")


def _enrol_many(manifest: Path, text_version: str, *, dry_run: bool, replace: bool) -> None:
    keyring = Keyring.load(settings())
    results = []
    for row in batch.read(manifest):
        with desk.transaction() as session:
            outcome = batch.enrol_row(session, row, text_version, keyring, utc_now(), dry_run=dry_run, replace=replace)
        results.append(outcome)
        click.echo(f"{row.customer}\t{outcome.what}\t{outcome.detail}")
    counts = ", ".join(f"{sum(r.what == what for r in results)} {what}" for what in batch.WHATS)
    click.echo(f"{counts}{' (dry run: nothing was stored)' if dry_run else ''}", err=True)
    if any(r.what == batch.REFUSED for r in results):
        raise SystemExit(1)
