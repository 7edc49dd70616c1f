"""Signing in with name, password and a code of the second factor, all at once; whatever is wrong, one answer."""

from __future__ import annotations

import re

from flask import Response, request, session
from werkzeug.exceptions import TooManyRequests

from ivr.console.operators import accounts, sessions
from ivr.console.operators.desk import PREFIX, back, blueprint, desk, now, page, who, writing
from ivr.console.people.limits import address
from ivr.customers import audit

TRIES_AN_ADDRESS_AN_HOUR, HOUR_S = 40, 3600
NOBODY = "0" * 16


@blueprint.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> Response:
    if request.method == "GET":
        return page("sign_in")
    if not desk().services.calls.within(f"desk:sign-in:{address()}", TRIES_AN_ADDRESS_AN_HOUR, HOUR_S):
        raise TooManyRequests
    name, code = request.form.get("name", "").strip().lower(), re.sub(r"\s", "", request.form.get("code", ""))
    response = back("calls")
    with writing() as database:
        found = accounts.prove(database, name, request.form.get("password", ""), code, desk().keyring, now())
        if found is not None:
            session.clear()  # a new token for the forms of whoever signs in
            sessions.start(database, request, response, found, now(), secure=desk().secure, path=PREFIX)
            audit.record(database, who(found.name), "console.signed_in", found.id, now())
            return response
        # In either case a row: that there is such an operator is not told by the time it takes.
        known = accounts.find(database, name)
        audit.record(database, "console", "console.not_signed_in", known.id if known else NOBODY, now())
    return page("sign_in", 403, errors=["error.sign_in"])


@blueprint.post("/sign-out")
def sign_out() -> Response:
    with writing() as database:
        sessions.end(database, request)
    session.clear()
    response = back("sign_in", said="said.signed_out")
    response.delete_cookie(sessions.COOKIE, path=PREFIX)
    return response
