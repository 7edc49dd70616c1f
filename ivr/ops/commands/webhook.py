"""``ivr webhook``: where merchants are told what became of payments."""

from __future__ import annotations

import click
from sqlalchemy import case, func, select

from ivr.clock import utc_now
from ivr.customers import audit
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.settings import settings
from ivr.webhooks import outbox, register
from ivr.webhooks.deliver import endpoint_secret
from ivr.webhooks.models import WebhookDelivery, WebhookEndpoint


@click.group()
def command() -> None:
    """Where merchants are told what became of payments."""


@command.command()
@click.argument("url")
@click.option("--merchant", required=True, help="The name on the merchant's bills.")
def add(url: str, merchant: str) -> None:
    """Register an https URL, and print the secret that its signatures are checked with."""
    now, keyring = utc_now(), Keyring.load(settings())
    with desk.transaction() as session:
        endpoint = register.add_endpoint(
            session,
            keyring,
            merchant=merchant,
            url=url,
            now=now,
            allow_private=settings().webhooks_to_private,
        )
        audit.record(session, desk.who(), "webhook.added", endpoint.id, now, merchant=endpoint.merchant)
    click.echo(f"endpoint {endpoint.id} of {endpoint.merchant}")
    click.echo(f"secret {endpoint_secret(keyring, endpoint)}")


@command.command(name="list")
def list_() -> None:
    """All endpoints, with how many messages wait for them and how many were given up."""
    waits = case((WebhookDelivery.delivered_at.is_(None) & WebhookDelivery.given_up_at.is_(None), 1))
    given_up = case((WebhookDelivery.given_up_at.is_not(None), 1))
    with desk.transaction() as session:
        rows = session.execute(
            select(WebhookEndpoint, func.count(waits), func.count(given_up))
            .outerjoin(WebhookDelivery)
            .where(WebhookEndpoint.removed_at.is_(None))
            .group_by(WebhookEndpoint.id)
            .order_by(WebhookEndpoint.merchant, WebhookEndpoint.id)
        ).all()
    table = [(endpoint.id, endpoint.merchant, endpoint.url, *counts) for endpoint, *counts in rows]
    desk.print_table(("id", "merchant", "URL", "waiting", "given up"), table, empty="no webhook endpoints")


@command.command()
@click.argument("endpoint_id", metavar="ENDPOINT")
def secret(endpoint_id: str) -> None:
    """Print an endpoint's secret once more."""
    now, keyring = utc_now(), Keyring.load(settings())
    with desk.transaction() as session:
        endpoint = register.require_endpoint(session, endpoint_id)
        audit.record(session, desk.who(), "webhook.secret_shown", endpoint.id, now)
    click.echo(endpoint_secret(keyring, endpoint))


@command.command()
@click.argument("endpoint_id", metavar="ENDPOINT")
def remove(endpoint_id: str) -> None:
    """Tell nothing more to an endpoint; what waits for it is given up."""
    now = utc_now()
    with desk.transaction() as session:
        endpoint = register.require_endpoint(session, endpoint_id)
        endpoint.removed_at = now
        audit.record(session, desk.who(), "webhook.removed", endpoint.id, now)
    click.echo(f"endpoint {endpoint_id} removed")


@command.command()
@click.argument("of", metavar="PAYMENT")
@click.option("--endpoint", "endpoint_id", help="Only to this one.")
def replay(of: str, endpoint_id: str | None) -> None:
    """Send a payment's messages, or a purchase's, again, in order, with the ids they had; waiting ones at once."""
    now = utc_now()
    with desk.transaction() as session:
        count = outbox.replay(session, of, now, endpoint_id)
        if count:
            audit.record(session, desk.who(), "webhook.replayed", of, now, messages=count)
    if not count:
        raise click.ClickException(f"{of!r} has no messages to an endpoint that exists")
    click.echo(f"{count} {'message' if count == 1 else 'messages'} queued")
