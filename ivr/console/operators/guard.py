"""What comes before and after every view: who may come here, no post from elsewhere, headers, pages for errors."""

from __future__ import annotations

from flask import Response, abort, g, request
from werkzeug.exceptions import HTTPException

from ivr.console import forms
from ivr.console.operators import sessions
from ivr.console.operators.desk import HERE, back, blueprint, desk, now, page, reading, writing
from ivr.console.operators.models import Role
from ivr.console.people.words import Words, preferred

HEADERS = {
    "Content-Security-Policy": forms.HEADERS["Content-Security-Policy"] + "; script-src 'self'; connect-src 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATIC, EVENTS = "desk.static", "desk.events"
OPEN = {STATIC, "desk.sign_in", "desk.sign_out", "desk.nowhere"}
"""Needs no sign-in."""
NEEDS = {
    "desk.calls": Role.VIEWER,
    "desk.call": Role.VIEWER,
    EVENTS: Role.VIEWER,
    "desk.payments": Role.VIEWER,
    "desk.payment": Role.VIEWER,
    "desk.approvals": Role.VIEWER,
    "desk.customers": Role.VIEWER,
    "desk.customer": Role.VIEWER,
    "desk.unlock": Role.OPERATOR,
    "desk.models": Role.VIEWER,
    "desk.plot": Role.VIEWER,
    "desk.ledger": Role.VIEWER,
    "desk.health": Role.VIEWER,
    "desk.operators": Role.ADMIN,
    "desk.disable": Role.ADMIN,
}
"""Who may come where; where nobody is named, nobody may."""


@blueprint.before_request
def let_in() -> Response | None:
    g.operator = None
    g.words = Words(preferred(request.accept_languages, desk().services.settings.locale), HERE)
    if request.endpoint == STATIC:
        return None
    with reading() as session:
        g.operator, unseen = sessions.current(session, request, now())
    if not all(str(value).isprintable() for value in (request.view_args or {}).values()):
        abort(404)
    if request.method == "POST":
        forms.own_post(desk().csrf)
    if request.endpoint in OPEN:
        return None
    if g.operator is None:
        if request.endpoint == EVENTS:
            abort(401)
        return back("sign_in", error="error.signed_out")
    if not g.operator.role.may(NEEDS[str(request.endpoint)]):
        abort(403)
    if unseen and request.endpoint != EVENTS:  # an open page that lives by itself is nobody who is there
        with writing() as session:
            sessions.seen(session, request, now())
    return None


@blueprint.after_request
def harden(response: Response) -> Response:
    forms.harden(response, STATIC).headers.update(HEADERS)
    return response


@blueprint.errorhandler(404)  # by number: before those that the application has for the API
@blueprint.errorhandler(413)
@blueprint.errorhandler(HTTPException)
def error(problem: HTTPException) -> Response:
    return forms.error_page(problem, page)


@blueprint.route("/<path:_where>", methods=["GET", "POST"])
def nowhere(_where: str) -> Response:
    abort(404)
