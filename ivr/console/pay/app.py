"""The page on which a customer lets an app charge her: which card, how much, and her PIN.

Opening the link changes nothing, and shows nothing of her: not even which cards she has, whose last four digits she
types. The PIN in the post stands for a form token: who can make a browser post it knows it.
"""

from __future__ import annotations

import re
import tomllib
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import cast

from flask import Blueprint, Flask, Response, current_app, make_response, render_template, request
from sqlalchemy.orm import Session

from ivr.approval import verify
from ivr.clock import utc_now
from ivr.console.people.guard import HEADERS
from ivr.console.people.limits_form import Unusable, amount
from ivr.console.people.words import Words, preferred
from ivr.customers import apps, pins
from ivr.customers.apps import App, AppBinding
from ivr.customers.cards import authorised_cards
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.models import Customer
from ivr.customers.money import check_currency
from ivr.keys import Keyring
from ivr.services import Services

EXTENSION = "ivr.pay.app"
POSTS_AN_ADDRESS_AN_HOUR = 30
_NOBODY = "0" * 16
_FIELDS = ("last4", "currency", "limit", "day_limit", "yes_limit")

blueprint = Blueprint("pay_app", __name__, url_prefix="/pay/app", template_folder="templates")


@cache
def _texts(locale: str) -> dict[str, str]:
    words: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("app.toml").read_text(encoding="utf-8"))
    return words[locale]


class AppWords(Words):
    """The words of this page, and those that all pages share."""

    def __call__(self, key: str, **values: object) -> str:
        own = _texts(self.locale).get(key)
        return own.format(**values) if own is not None else super().__call__(key, **values)


class _Wrong(Exception):
    """What was filled in cannot be used; the argument is the key of the text that says so."""


def install(app: Flask, services: Services, keyring: Keyring) -> None:
    app.extensions[EXTENSION] = (services, keyring)
    app.register_blueprint(blueprint)


@blueprint.after_request
def harden(response: Response) -> Response:
    response.headers.update(HEADERS)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.route("/<token>", methods=["GET", "POST"])
def app_page(token: str) -> Response:
    services, keyring = cast(tuple[Services, Keyring], current_app.extensions[EXTENSION])
    now = utc_now()
    if request.method == "GET":
        with services.database.snapshot() as session:
            found = apps.open_link(session, token, keyring, now)
            return _page(session, found) if found else _page(session, None, 404)
    if not services.calls.within(f"pay:app:{request.remote_addr}", POSTS_AN_ADDRESS_AN_HOUR, 3600):
        with services.database.snapshot() as session:
            return _page(session, None, 429)
    with services.database.transaction() as session:
        found = apps.open_link(session, token, keyring, now, lock=True)
        if found is None:
            pins.check_pin(session, _NOBODY, request.form.get("pin", ""), keyring)  # as slow as a wrong PIN
            return _page(session, None, 404)
        referred = session.get_one(MerchantCustomer, found.merchant_customer_id)
        customer_id = referred.customer_id or _NOBODY
        if not verify.by_pin(session, customer_id, request.form.get("pin", ""), keyring, "app link", now):
            found.tries += 1
            return _page(session, found, 403, "error.pin")
        try:
            _sign(session, found, customer_id, now)
        except _Wrong as wrong:
            return _page(session, found, 422, str(wrong))
        return _page(session, found, done=True)


def _sign(session: Session, found: AppBinding, customer_id: str, now: datetime) -> None:
    """Raises _Wrong."""
    form = {name: request.form.get(name, "").strip() for name in _FIELDS}
    currency = form["currency"].upper()
    last4 = form["last4"]
    cards = [card for card in authorised_cards(session, customer_id, now.date()) if card.last4 == last4]
    if not re.fullmatch(r"[0-9]{4}", last4) or len(cards) != 1:
        raise _Wrong("error.card")
    try:
        check_currency(currency)
    except InvalidInput:
        raise _Wrong("error.currency") from None
    try:
        limits = {name: amount(form[name], currency) if form[name] else None for name in _FIELDS[2:]}
        with session.begin_nested():
            apps.bind(
                session,
                found.id,
                customer_id,
                cards[0].id,
                currency=currency,
                limit_minor=limits["limit"] or 0,
                day_limit_minor=limits["day_limit"],
                yes_limit_minor=limits["yes_limit"] or 0,
                now=now,
            )
    except apps.NoVoice:
        raise _Wrong("error.voice") from None
    except (Unusable, InvalidInput):
        raise _Wrong("error.limits") from None


def _page(
    session: Session, found: AppBinding | None, status: int = 200, error: str = "", *, done: bool = False
) -> Response:
    services, _ = cast(tuple[Services, Keyring], current_app.extensions[EXTENSION])
    locale = preferred(request.accept_languages, services.settings.locale)
    names = {"app": "", "merchant": ""}
    if found is not None:
        app = session.get_one(App, found.app_id)
        names = {"app": app.name, "merchant": session.get_one(Merchant, app.merchant_id).name}
        referred = session.get_one(MerchantCustomer, found.merchant_customer_id)
        if referred.customer_id:
            locale = session.get_one(Customer, referred.customer_id).locale
    given = {name: request.form.get(name, "") for name in _FIELDS}
    shown = render_template(
        "pay/app.html",
        t=AppWords(locale),
        person=None,
        names=names,
        found=found,
        done=done,
        errors=[error] if error else [],
        given=given,
    )
    return make_response(shown, status)
