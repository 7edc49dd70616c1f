"""One-time pages under ``/pay``, on which a customer signs by her PIN: a purchase, a card. No JavaScript.

They use the desk, the looks and the forms' tokens of the pages under ``/my`` (``ivr.console.people``). A page of
another kind is a ``OneTimePage`` in ``KINDS``, and its templates.
"""

from __future__ import annotations

from flask import Flask

from ivr.console.pay import desk, views
from ivr.payments.bank import Bank

__all__ = ["install"]

_PARTS = (views,)  # imported for what they add to the blueprint


def install(app: Flask, bank: Bank) -> None:
    """Add the pages; those of ``ivr.console.people`` come first."""
    app.extensions[desk.EXTENSION] = bank
    app.register_blueprint(desk.blueprint)
