"""Pages under ``/pay`` to which a one-time link leads a customer, from a message or from a merchant."""

from __future__ import annotations

from flask import Flask

from ivr.console.pay import app as app_page
from ivr.keys import Keyring
from ivr.services import Services

__all__ = ["install"]


def install(app: Flask, services: Services, keyring: Keyring) -> None:
    """Add the pages to an application that has those of people."""
    app_page.install(app, services, keyring)
