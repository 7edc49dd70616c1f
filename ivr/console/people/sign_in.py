"""Signing in: by a code sent to a settled contact, or by a one-time link and the PIN."""

from __future__ import annotations

import re

from flask import Response, request, session
from sqlalchemy.orm import Session

from ivr.approval import links, sign_in, verify
from ivr.approval.models import Link
from ivr.console.people import limits, sessions
from ivr.console.people.desk import PREFIX, back, blueprint, desk, now, page, writing
from ivr.customers import audit, pins
from ivr.customers.lookup import customer_by_number

_NUMBER = re.compile(r"\d{7}", re.ASCII)
_NOBODY = "0" * 16


@blueprint.get("/")
def start() -> Response:
    return page("start")


@blueprint.post("/")
def send_code() -> Response:
    """The same answer, for the same work, whether there is such a customer or not."""
    number = re.sub(r"[\s-]", "", request.form.get("number", ""))
    if not _NUMBER.fullmatch(number):
        return back("start", error="error.number")
    limits.by_address("code", limits.CODES_AN_ADDRESS_AN_HOUR)
    limits.by_customer("code", number, limits.CODES_A_CUSTOMER_AN_HOUR, limits.HOUR_S)
    limits.by_customer("code", number, limits.CODES_A_CUSTOMER_A_DAY, limits.DAY_S)
    with writing() as database:
        sign_in.ask_code(database, number, now())
    session["number"] = number
    return back("code")


@blueprint.route("/code", methods=["GET", "POST"])
def code() -> Response:
    number = session.get("number")
    if number is None:
        return back("start")
    if request.method == "GET":
        return page("code")
    limits.by_address("guess", limits.GUESSES_AN_ADDRESS_AN_HOUR)
    given, response = re.sub(r"\s", "", request.form.get("code", "")), back("requests_page")
    with writing() as database:
        customer = customer_by_number(database, number)
        right = links.use_code(database, customer.id if customer else _NOBODY, given, desk().keyring, now())
        if customer and right:
            _sign_in(response, database, customer.id, None)
            return response
        # In either case a row: that there is such a customer is not told by the time it takes.
        audit.record(database, "page", "page.code_wrong", customer.id if customer else _NOBODY, now())
    return back("code", error="error.code")


@blueprint.route("/l/<token>", methods=["GET", "POST"])
def link(token: str) -> Response:
    """Opening a link changes nothing, and tells nothing: not even whether it is one."""
    if request.method != "POST":
        return page("link")
    limits.by_address("link", limits.LINKS_AN_ADDRESS_AN_HOUR)
    with writing() as database:
        found = links.open_link(database, token, desk().keyring, now(), lock=True)
        if found is not None and _by_pin(database, found):
            found.used_at = now()
            if found.request_id:
                response = back("request_page", request_id=found.request_id)
            else:
                response = back("appointment", appointment_id=str(found.appointment_id))
            _sign_in(response, database, found.approver_id, found.id)
            return response
        if found is None:  # takes as long as a wrong PIN
            pins.check_pin(database, _NOBODY, request.form.get("pin", ""), desk().keyring)
    return page("link", 403, error="error.link")


@blueprint.post("/out")
def sign_out() -> Response:
    with writing() as database:
        sessions.end(database, request, now())
    session.clear()
    response = back("start", said="said.signed_out")
    response.delete_cookie(sessions.SESSION, path=PREFIX)
    return response


def _by_pin(database: Session, found: Link) -> bool:
    given = request.form.get("pin", "")
    right = verify.by_pin(database, found.approver_id, given, desk().keyring, "link", now())
    found.tries += not right
    return right


def _sign_in(response: Response, database: Session, customer_id: str, link_id: str | None) -> None:
    session.clear()  # a new token for the forms of whoever signs in
    sessions.start(database, request, response, customer_id, link_id, now(), secure=desk().secure, path=PREFIX)
    audit.record(database, f"customer {customer_id}", "page.signed_in", customer_id, now(), link=link_id)
