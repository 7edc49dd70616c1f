"""Where a merchant is told, at an origin that the operator has registered for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound
from ivr.api.shapes import MadeWebhook, NewWebhook, Page, PageQuery, Webhook
from ivr.customers import audit
from ivr.webhooks import register
from ivr.webhooks.deliver import endpoint_secret
from ivr.webhooks.models import WebhookEndpoint


def _secret(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    endpoint = call.session.get_one(WebhookEndpoint, document["id"])
    return document | {"secret": endpoint_secret(call.desk.keyring, endpoint)}


@operation(
    "POST", "/webhooks", "webhooks:write", sent=NewWebhook, returns=MadeWebhook, status=201,
    links=("get_webhook", "remove_webhook"), reveal=_secret,
)  # fmt: skip
def create_webhook(call: Call, given: NewWebhook) -> Webhook:
    """Be told at a URL."""
    made = register.add_endpoint_of(
        call.session,
        call.desk.keyring,
        call.merchant,
        given.url,
        now=call.now,
        allow_private=call.desk.services.settings.webhooks_to_private,
    )
    audit.record(call.session, call.who, "webhook.added", made.id, call.now)
    return shown(made)


@operation("GET", "/webhooks", "webhooks:read", sent=PageQuery, returns=Page[Webhook])
def list_webhooks(call: Call, asked: PageQuery) -> Page[Webhook]:
    """Your endpoints, the newest first."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.merchant == call.merchant.name, WebhookEndpoint.removed_at.is_(None)
    )
    return page(call.session, query, (WebhookEndpoint.created_at, WebhookEndpoint.id), asked, shown)


@operation("GET", "/webhooks/{webhook_id}", "webhooks:read", returns=Webhook)
def get_webhook(call: Call, _: None) -> Webhook:
    """One of your endpoints."""
    return shown(_find(call))


@operation("DELETE", "/webhooks/{webhook_id}", "webhooks:write", problems=(NotFound,))
def remove_webhook(call: Call, _: None) -> None:
    """Be told there no more."""
    endpoint = _find(call)
    endpoint.removed_at = call.now
    audit.record(call.session, call.who, "webhook.removed", endpoint.id, call.now)


def _find(call: Call) -> WebhookEndpoint:
    found = call.session.get(WebhookEndpoint, call.path["webhook_id"])
    if found is None or found.merchant != call.merchant.name or found.removed_at is not None:
        raise NotFound("you have no webhook endpoint with this id")
    return found


def shown(row: WebhookEndpoint) -> Webhook:
    return Webhook(id=row.id, url=row.url, created_at=row.created_at)
