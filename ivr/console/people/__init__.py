"""Pages for guardians, supervisors and payers, under ``/my``: no JavaScript, in English and Chinese."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Flask

from ivr.clock import utc_now
from ivr.console import forms
from ivr.console.people import answers, appointed, desk, guard, me, sign_in, wards
from ivr.keys import Keyring
from ivr.services import Services

__all__ = ["install"]

_PARTS = (guard, sign_in, answers, wards, appointed, me)  # imported for what they add to the blueprint


def install(app: Flask, services: Services, keyring: Keyring, clock: Callable[[], datetime] = utc_now) -> None:
    """Add the pages."""
    secure = (services.settings.public_url or "").startswith("https://")
    csrf = forms.install(app, keyring, secure=secure)
    app.extensions[desk.EXTENSION] = desk.Desk(services, keyring, clock, csrf, secure)
    app.register_blueprint(desk.blueprint)
