"""The operations of version 1, a file for each kind of thing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from ivr.api import openapi, voice
from ivr.api.limits import RateLimit
from ivr.api.operations import EXTENSION, Desk, api_desk, blueprint, http_error
from ivr.api.v1 import app_charges, apps, bills, cards, customers, payments, purchases, refunds, texts, webhooks
from ivr.clock import utc_now
from ivr.keys import Keyring
from ivr.payments.bank import Bank
from ivr.services import Services

__all__ = ["install"]

# Imported for the operations that they add.
_PARTS = (customers, cards, texts, bills, payments, refunds, purchases, webhooks, apps, app_charges)


def install(
    app: Flask, services: Services, keyring: Keyring, bank: Bank, clock: Callable[[], datetime] = utc_now
) -> None:
    """Add the API to an application."""
    settings = services.settings
    limit = RateLimit(services.calls.redis, settings.api_requests_a_minute)
    app.extensions[EXTENSION] = Desk(services, keyring, clock, limit, bank.capabilities)
    app.register_blueprint(blueprint)
    voice.install(app, bank)
    app.register_error_handler(HTTPException, http_error)  # of no status: that would go before the pages' own


@blueprint.get("/openapi.json")
def described() -> Response:
    """The description of all this; anybody may read it."""
    return jsonify(openapi.description(api_desk().services.settings.public_url))
