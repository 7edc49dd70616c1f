"""The one view of the one-time pages, and what comes before and after it."""

from __future__ import annotations

import hmac
import re
from typing import Any

from flask import Response, abort, g, request
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from ivr import onetime
from ivr.approval import verify
from ivr.console import forms
from ivr.console.pay.app import AppPage
from ivr.console.pay.card import CardPage
from ivr.console.pay.desk import HERE, back, blueprint, page
from ivr.console.pay.kinds import MOST_TRIES, OneTimePage, prove, proved
from ivr.console.pay.purchase import PurchasePage
from ivr.console.people import limits
from ivr.console.people.desk import desk, now, reading, writing
from ivr.console.people.words import Words, preferred
from ivr.customers import pins
from ivr.customers.models import Customer, Pin
from ivr.customers.pins import Compared

KINDS: dict[str, OneTimePage[Any]] = {kind.name: kind for kind in (PurchasePage(), CardPage(), AppPage())}
SIGNATURES_AN_ADDRESS_AN_HOUR = 60
_NOBODY = "0" * 16


@blueprint.route("/<kind>/<token>", methods=["GET", "POST"])
def one_time(kind: str, token: str) -> Response:
    found = KINDS.get(kind)
    row_id = onetime.read(desk().keyring, kind, token) if found else None
    if found is None or row_id is None:
        abort(404)
    if request.method == "GET":
        with reading() as database:
            row = database.get(found.model, row_id)
            return found.show(database, row, proved(found, row_id)) if row else abort(404)
    if request.form.get("do") == "sign":
        return _sign(found, row_id)
    return found.answer(row_id, proved(found, row_id))


def _sign(kind: OneTimePage[Any], row_id: str) -> Response:
    """Whoever is not meant, or errs, learns only that it did not work; nor does she by the time it takes."""
    limits.by_address("pay", SIGNATURES_AN_ADDRESS_AN_HOUR)
    pin = request.form.get("pin", "")
    with reading() as database:
        row = database.get(kind.model, row_id)
        if row is None:
            abort(404)
        if not kind.is_open(database, row, now()):
            return back()
        claimed = _claimed(kind, database, row)
        customer_id = claimed.id if claimed else _NOBODY
        stored = database.get(Pin, customer_id)
    compared = pins.compare(stored, customer_id, pin, desk().keyring)  # in no transaction: nobody waits for it
    with writing() as database:
        row = database.get(kind.model, row_id, with_for_update=True)
        if row is None:
            abort(404)
        if not kind.is_open(database, row, now()):
            return back()
        if _is_right(kind, database, row, compared):
            return back()
        row.tries += 1
        if row.tries >= MOST_TRIES:
            kind.failed(database, row)
    return back(error="error.sign")


def _claimed(kind: OneTimePage[Any], database: Session, row: Any) -> Customer | None:
    """Who is meant, if it is she whose number was given."""
    meant, number = kind.meant(database, row), re.sub(r"[\s-]", "", request.form.get("number", ""))
    if meant is None or (kind.asks_number and not hmac.compare_digest(number.encode(), meant.number.encode())):
        return None
    return meant


def _is_right(kind: OneTimePage[Any], database: Session, row: Any, compared: Compared) -> bool:
    customer, where = _claimed(kind, database, row), f"pay {kind.name}"
    if customer is None or not verify.by_pin(
        database, customer.id, compared.pin, desk().keyring, where, now(),
        attested=not kind.asks_number, compared=compared,
    ):  # fmt: skip
        return False
    kind.signed(database, row, customer)
    prove(kind, row, customer.id)
    return True


@blueprint.before_request
def let_in() -> None:
    g.words = Words(preferred(request.accept_languages, desk().services.settings.locale), HERE)
    if request.method == "POST":
        forms.own_post(desk().csrf)


@blueprint.after_request
def harden(response: Response) -> Response:
    return forms.harden(response)


@blueprint.errorhandler(HTTPException)
def error(problem: HTTPException) -> Response:
    return forms.error_page(problem, page)


@blueprint.route("/<path:_where>", methods=["GET", "POST"])
def nowhere(_where: str) -> Response:
    abort(404)
