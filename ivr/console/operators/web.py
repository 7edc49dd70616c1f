"""Adds the operators' console to an application."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from threading import BoundedSemaphore

from flask import Flask

from ivr.clock import utc_now
from ivr.console import forms
from ivr.console.operators import calls, customers, desk, guard, live, payments, service, sign_in
from ivr.keys import Keyring
from ivr.services import Services

_PARTS = (guard, sign_in, calls, live, payments, customers, service)  # imported for what they add to the blueprint


def install(app: Flask, services: Services, keyring: Keyring, clock: Callable[[], datetime] = utc_now) -> None:
    """Add the pages."""
    secure = (services.settings.public_url or "").startswith("https://")
    csrf = forms.install(app, keyring, secure=secure)
    streams = BoundedSemaphore(live.MOST_STREAMS)
    app.extensions[desk.EXTENSION] = desk.Desk(services, keyring, clock, csrf, secure, streams)
    app.register_blueprint(desk.blueprint)
