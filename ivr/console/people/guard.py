"""What comes before and after every view: who may come here, no post from elsewhere, headers, pages for errors."""

from __future__ import annotations

from flask import Response, abort, g, request
from werkzeug.exceptions import Forbidden, HTTPException

from ivr.console import forms
from ivr.console.people import sessions
from ivr.console.people.desk import back, blueprint, desk, now, page, reading
from ivr.console.people.words import Words, preferred

STATIC = "people.static"
OPEN = {STATIC, "people.start", "people.send_code", "people.code", "people.link", "people.sign_out", "people.nowhere"}
"""Needs no sign-in."""
BY_LINK = {"people.request_page": "request_id", "people.appointment": "appointment_id"}
"""What a one-time link signs in to: these pages, for the thing that it is about."""


class NotByLink(Forbidden):
    """Signed in by a link that is about something else."""


@blueprint.before_request
def let_in() -> Response | None:
    g.person = None
    g.words = Words(preferred(request.accept_languages, desk().services.settings.locale))
    if request.endpoint == STATIC:
        return None
    with reading() as session:
        g.person = sessions.current(session, request, now())
    if g.person:
        g.words = Words(g.person.locale)
    if not all(str(value).isprintable() for value in (request.view_args or {}).values()):
        abort(404)
    if request.method == "POST":
        forms.own_post(desk().csrf)
    if request.endpoint in OPEN:
        return None
    if g.person is None:
        return back("start", error="error.signed_out")
    if g.person.by_link:
        name = BY_LINK.get(str(request.endpoint), "")
        if not name or getattr(g.person, name) != (request.view_args or {}).get(name):
            raise NotByLink
    return None


@blueprint.after_request
def harden(response: Response) -> Response:
    return forms.harden(response, STATIC)


@blueprint.errorhandler(404)  # by number: before those that the application has for the API
@blueprint.errorhandler(413)
@blueprint.errorhandler(HTTPException)
def error(problem: HTTPException) -> Response:
    return forms.error_page(problem, page, "error.not_by_link" if isinstance(problem, NotByLink) else "")


@blueprint.route("/<path:_where>", methods=["GET", "POST"])
def nowhere(_where: str) -> Response:
    abort(404)
