"""``ivr merchant``: whom customers pay, what their bills may be called, and the keys of their programs."""

from __future__ import annotations

import click
from sqlalchemy import select

from ivr.api import keys
from ivr.api.models import ApiKey
from ivr.clock import utc_now
from ivr.customers import audit, merchants
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant, MerchantOrigin, MerchantText
from ivr.ops import desk
from ivr.purchases import pages
from ivr.settings import settings
from ivr.webhooks import register


@click.group()
def command() -> None:
    """Merchants, what their bills may be called, and the keys of their programs."""


@command.command()
@click.argument("name")
@click.option("--kind", default="", help="The kind of trade, for policies.")
def add(name: str, kind: str) -> None:
    """Add a merchant under a name that is fit to be spoken, and print its id."""
    with desk.transaction() as session:
        merchant = merchants.add_merchant(session, name, kind=kind, who=desk.who(), now=utc_now())
    click.echo(f"merchant {merchant.id}: {merchant.name}")


@command.command(name="list")
def list_() -> None:
    """All merchants, and where their URLs may lead."""
    with desk.transaction() as session:
        found = session.scalars(select(Merchant).order_by(Merchant.name)).all()
        rows = []
        for one in found:
            origins = session.scalars(select(MerchantOrigin.origin).where(MerchantOrigin.merchant_id == one.id))
            rows.append((one.id, one.name, one.kind, " ".join(sorted(origins)), "closed" if one.closed_at else ""))
    desk.print_table(("id", "name", "kind", "origins", ""), rows, empty="no merchants")


@command.command()
@click.argument("merchant")
def close(merchant: str) -> None:
    """Let none of a merchant's keys be used any more. Its bills stay as they are."""
    now = utc_now()
    with desk.transaction() as session:
        found = merchants.require_merchant(session, merchant)
        found.closed_at = now
        audit.record(session, desk.who(), "merchant.closed", found.id, now)
    click.echo(f"merchant {found.name} closed")


@command.command()
@click.argument("merchant")
@click.argument("url")
def origin(merchant: str, url: str) -> None:
    """Let a merchant's jump, result and webhook URLs lead to the origin of URL."""
    now = utc_now()
    with desk.transaction() as session:
        found = merchants.require_merchant(session, merchant)
        added = register.add_origin(session, found, url, now=now, allow_private=settings().webhooks_to_private)
        audit.record(session, desk.who(), "merchant.origin", found.id, now, origin=added)
    click.echo(f"{found.name}: {added}")


@command.command()
@click.argument("merchant")
@click.argument("kind", required=False)
@click.argument("page", required=False)
def page(merchant: str, kind: str | None, page: str | None) -> None:
    """Choose where purchases of a KIND of product are confirmed, or show where.

    PAGE is goods, service, or a URL of the merchant's own page, at a registered origin, that leads to ours.
    """
    if kind and not page:
        raise click.UsageError("give the page too: goods, service or a URL")
    with desk.transaction() as session:
        found = merchants.require_merchant(session, merchant)
        if kind and page:
            made = pages.set_page(session, found, kind, page)
            audit.record(session, desk.who(), "merchant.page", found.id, utc_now(), kind=made.kind)
        rows = [(one.kind, one.page) for one in pages.pages_of(session, found)]
    desk.print_table(("kind", "page"), rows, empty="goods where an address is given, service elsewhere")


@command.command()
@click.argument("merchant")
@click.option("--scope", "scopes", multiple=True, help="May be given several times; default: all.")
@click.option("--label", default="key", show_default=True, help="What it is for.")
def key(merchant: str, scopes: tuple[str, ...], label: str) -> None:
    """Issue an API key, and print it, for this once."""
    now = utc_now()
    with desk.transaction() as session:
        found = merchants.require_merchant(session, merchant)
        made, shown = keys.issue(session, found, label, scopes or keys.SCOPES, who=desk.who(), now=now)
    click.echo(f"key {made.id} of {found.name}; it is shown only now:\n{shown}")


@command.command(name="keys")
@click.argument("merchant")
def keys_(merchant: str) -> None:
    """A merchant's API keys."""
    with desk.transaction() as session:
        found = merchants.require_merchant(session, merchant)
        query = select(ApiKey).where(ApiKey.merchant_id == found.id).order_by(ApiKey.created_at)
        rows = [
            (k.id, k.label, " ".join(k.scopes), desk.minute(k.created_at), desk.minute(k.revoked_at))
            for k in session.scalars(query)
        ]
    desk.print_table(("id", "label", "scopes", "issued", "revoked"), rows, empty="no keys")


@command.command()
@click.argument("key_id", metavar="KEY")
def revoke(key_id: str) -> None:
    """Take an API key back, at once and for good."""
    with desk.transaction() as session:
        keys.revoke(session, key_id, who=desk.who(), now=utc_now())
    click.echo(f"key {key_id} revoked")


@command.command()
@click.option("--merchant", help="Only of this one.")
def texts(merchant: str | None) -> None:
    """What merchants want to call their bills; `approve` and `refuse` decide."""
    with desk.transaction() as session:
        query = select(MerchantText, Merchant.name).join(Merchant).order_by(Merchant.name, MerchantText.created_at)
        if merchant:
            query = query.where(Merchant.id == merchants.require_merchant(session, merchant).id)
        rows = [(t.id, name, t.text, _status(t)) for t, name in session.execute(query)]
    desk.print_table(("id", "merchant", "text", "status"), rows, empty="no texts")


@command.command()
@click.argument("text_id", metavar="TEXT")
def approve(text_id: str) -> None:
    """Let a merchant's bills have this description."""
    _decide(text_id, approved=True)


@command.command()
@click.argument("text_id", metavar="TEXT")
def refuse(text_id: str) -> None:
    """Let no further bill have this description."""
    _decide(text_id, approved=False)


def _decide(text_id: str, *, approved: bool) -> None:
    now = utc_now()
    with desk.transaction() as session:
        text = session.get(MerchantText, text_id)
        if text is None:
            raise InvalidInput(f"there is no text {text_id!r}; `ivr merchant texts` shows those there are")
        text.approved_at, text.refused_at = (now, None) if approved else (text.approved_at, now)
        audit.record(session, desk.who(), f"text.{'approved' if approved else 'refused'}", text.id, now)
    click.echo(f"{text.text!r} {'approved' if approved else 'refused'}")


def _status(text: MerchantText) -> str:
    return "refused" if text.refused_at else "approved" if text.approved_at else "proposed"
