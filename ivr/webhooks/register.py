"""Registering where merchants are told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.models import new_id
from ivr.customers.text import clean_text
from ivr.keys import Keyring
from ivr.webhooks.address import AddressRefused, BadUrl, check_url, resolve
from ivr.webhooks.models import WebhookEndpoint
from ivr.webhooks.outbox import endpoints

MOST_ENDPOINTS = 10
"""Of one merchant."""


class EndpointUnknown(InvalidInput):
    """There is no such endpoint."""


def add_endpoint(
    session: Session, keyring: Keyring, *, merchant: str, url: str, now: datetime, allow_private: bool = False
) -> WebhookEndpoint:
    """An endpoint of the merchant whose bills bear this very name. Raises InvalidInput.

    The origin of its URL is thereby one that the merchant's webhooks may be redirected to.
    """
    merchant = clean_text(merchant, "a merchant's name", least=1, most=200)
    parts = check_url(url)
    try:
        resolve(parts, allow_private=allow_private)
    except AddressRefused as error:
        raise BadUrl(f"the host of the webhook's URL: {error}") from None
    there = endpoints(session, merchant)
    if len(there) >= MOST_ENDPOINTS:
        raise InvalidInput(f"a merchant may have {MOST_ENDPOINTS} webhook endpoints at most")
    if any(endpoint.url == parts.url for endpoint in there):
        raise InvalidInput("this merchant has an endpoint with this URL already")
    key_id, _ = keyring.active("session")
    endpoint = WebhookEndpoint(id=new_id(), merchant=merchant, url=parts.url, key_id=key_id, created_at=now)
    session.add(endpoint)
    session.flush()
    return endpoint


def require_endpoint(session: Session, endpoint_id: str) -> WebhookEndpoint:
    """The endpoint, unless it was removed. Raises EndpointUnknown."""
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None or endpoint.removed_at is not None:
        raise EndpointUnknown("there is no such webhook endpoint; `ivr webhook list` shows those there are")
    return endpoint
