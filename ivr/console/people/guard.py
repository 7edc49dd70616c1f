"""What comes before and after every view: who may come here, no post from elsewhere, headers, pages for errors."""

from __future__ import annotations

import structlog
from flask import Response, abort, g, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import Forbidden, HTTPException, InternalServerError

from ivr.console.people import sessions
from ivr.console.people.desk import back, blueprint, desk, now, page, reading
from ivr.console.people.words import Words, preferred

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",  # a link's token is in its address
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
STATIC = "people.static"
OPEN = {STATIC, "people.start", "people.send_code", "people.code", "people.link", "people.sign_out", "people.nowhere"}
"""Needs no sign-in."""
BY_LINK = {"people.request_page": "request_id", "people.appointment": "appointment_id"}
"""What a one-time link signs in to: these pages, for the thing that it is about."""

log = structlog.get_logger(__name__)


class FromElsewhere(Forbidden):
    """Another site had the browser post this."""


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
        own_post()
    if request.endpoint in OPEN:
        return None
    if g.person is None:
        return back("start", error="error.signed_out")
    if g.person.by_link:
        name = BY_LINK.get(str(request.endpoint), "")
        if not name or getattr(g.person, name) != (request.view_args or {}).get(name):
            raise NotByLink
    return None


def own_post() -> None:
    """Refuse what another site posts: browsers say so, and only our own forms hold the token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise FromElsewhere
    desk().csrf.protect()


@blueprint.after_request
def harden(response: Response) -> Response:
    response.headers.update(HEADERS)
    kept = "max-age=3600" if request.endpoint == STATIC and response.status_code == 200 else "no-store"
    response.headers["Cache-Control"] = kept
    return response


@blueprint.errorhandler(404)  # by number: before those that the application has for the API
@blueprint.errorhandler(413)
@blueprint.errorhandler(HTTPException)
def error(problem: HTTPException) -> Response:
    """An error is a page that says what to do."""
    if isinstance(problem, InternalServerError):
        log.error("page failed", endpoint=request.endpoint)  # Flask has logged the traceback
    key = _ERRORS.get(type(problem)) or f"error.{problem.code}"
    return page("error", problem.code or 500, key=key if g.words.has(key) else "error.500")


_ERRORS: dict[type[HTTPException], str] = {
    CSRFError: "error.form",
    FromElsewhere: "error.elsewhere",
    NotByLink: "error.not_by_link",
}


@blueprint.route("/<path:_where>", methods=["GET", "POST"])
def nowhere(_where: str) -> Response:
    abort(404)
