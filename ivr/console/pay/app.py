"""The page on which a customer lets an app charge her: which card, and how much."""

from __future__ import annotations

from datetime import datetime

from flask import Response, abort, request
from sqlalchemy.orm import Session

from ivr.console.pay.desk import back, page
from ivr.console.pay.kinds import MOST_TRIES, OneTimePage
from ivr.console.people.desk import now, reading, writing
from ivr.console.people.limits_form import Unusable, amount
from ivr.customers import apps
from ivr.customers.apps import PAGE, App, AppBinding
from ivr.customers.cards import authorised_cards
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.models import Customer
from ivr.customers.money import check_currency

_LIMITS = ("limit", "day_limit", "yes_limit")


class AppPage(OneTimePage[AppBinding]):
    """Its link comes to her own contact: the PIN is enough."""

    name, asks_number, model = PAGE, False, AppBinding

    def meant(self, database: Session, row: AppBinding) -> Customer | None:
        referred = database.get_one(MerchantCustomer, row.merchant_customer_id)
        return database.get(Customer, referred.customer_id) if referred.customer_id else None

    def is_open(self, database: Session, row: AppBinding, moment: datetime) -> bool:
        waits = row.bound_at is None and row.unbound_at is None
        return waits and row.tries < MOST_TRIES and moment <= row.expires_at

    def show(self, database: Session, row: AppBinding, customer_id: str | None) -> Response:
        meant, is_open = self.meant(database, row), self.is_open(database, row, now())
        if customer_id is None or meant is None or customer_id != meant.id:
            return page("sign", open=is_open)
        app = database.get_one(App, row.app_id)
        names = {"app": app.name, "merchant": database.get_one(Merchant, app.merchant_id).name}
        if not is_open:
            return page("app_done", names=names, bound=row.is_bound)
        return page("app", names=names, cards=authorised_cards(database, customer_id, now().date()))

    def answer(self, row_id: str, customer_id: str | None) -> Response:
        if request.form.get("do") != "bind":
            abort(400)
        with reading() as database:
            row = database.get(AppBinding, row_id)
            if row is None:
                abort(404)
            meant = self.meant(database, row)
            if customer_id is None or meant is None or customer_id != meant.id:
                return back(error="error.sign_again")
            if not self.is_open(database, row, now()):
                return back()
        return back(error=_bind(row_id, customer_id))


def _bind(row_id: str, customer_id: str) -> str:
    """A key of words that say what cannot be used; empty when the app is bound."""
    form = {name: request.form.get(name, "").strip() for name in ("card", "currency", *_LIMITS)}
    currency = form["currency"].upper()
    try:
        check_currency(currency)
    except InvalidInput:
        return "error.currency"
    try:
        limits = {name: amount(form[name], currency) if form[name] else None for name in _LIMITS}
        with writing() as database:
            apps.bind(
                database,
                row_id,
                customer_id,
                form["card"],
                currency=currency,
                limit_minor=limits["limit"] or 0,
                day_limit_minor=limits["day_limit"],
                yes_limit_minor=limits["yes_limit"] or 0,
                now=now(),
            )
    except apps.NoVoice:
        return "error.voice"
    except apps.LinkSpent:  # sent twice
        return ""
    except (Unusable, InvalidInput):
        return "error.limits"
    return ""
