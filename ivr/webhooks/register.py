"""Registering where merchants are told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session
from urllib3.util import Url

from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant, MerchantOrigin
from ivr.customers.models import new_id
from ivr.customers.text import clean_text
from ivr.keys import Keyring
from ivr.store.insert import insert_new
from ivr.webhooks.address import AddressRefused, BadUrl, check_url, origin, resolve
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


def add_endpoint_of(
    session: Session, keyring: Keyring, merchant: Merchant, url: str, *, now: datetime, allow_private: bool = False
) -> WebhookEndpoint:
    """An endpoint that the merchant itself asks for, at one of its registered origins. Raises InvalidInput."""
    check_origin(session, merchant, url)
    return add_endpoint(session, keyring, merchant=merchant.name, url=url, now=now, allow_private=allow_private)


def check_origin(session: Session, merchant: Merchant, url: str) -> str:
    """The URL as it is used. Raises BadUrl unless it is https, at an origin registered for the merchant."""
    parts = check_url(url)
    if session.get(MerchantOrigin, (merchant.id, _origin(parts))) is None:
        raise BadUrl("the URL's origin is not registered for you; ask the operator")
    return parts.url


def add_origin(
    session: Session, merchant: Merchant, url: str, *, now: datetime, allow_private: bool = False
) -> str:
    """Let the merchant's jump, result and webhook URLs be at the origin of this one. Raises BadUrl."""
    parts = check_url(url)
    try:
        resolve(parts, allow_private=allow_private)
    except AddressRefused as error:
        raise BadUrl(f"the host of the URL: {error}") from None
    insert_new(
        session, MerchantOrigin, {"merchant_id": merchant.id, "origin": _origin(parts), "created_at": now}
    )
    return _origin(parts)


def _origin(parts: Url) -> str:
    host, port = origin(parts)
    return f"https://{host}" if port == 443 else f"https://{host}:{port}"


def require_endpoint(session: Session, endpoint_id: str) -> WebhookEndpoint:
    """The endpoint, unless it was removed. Raises EndpointUnknown."""
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None or endpoint.removed_at is not None:
        raise EndpointUnknown("there is no such webhook endpoint; `ivr webhook list` shows those there are")
    return endpoint
