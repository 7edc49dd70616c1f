"""What all pages share: headers, pages for errors, and no posts from elsewhere, by tokens in a signed cookie for each
family of pages."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import structlog
from flask import Flask, Response, g, request
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import Forbidden, HTTPException, InternalServerError

from ivr import onetime
from ivr.keys import Keyring

FAMILIES = ("/my", "/desk", onetime.PREFIX)
"""Prefixes of pages; one's cookie is not sent to the other."""


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",  # a link's token is in its address
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}

log = structlog.get_logger(__name__)


class FromElsewhere(Forbidden):
    """Another site had the browser post this."""


_ERRORS: dict[type[HTTPException], str] = {CSRFError: "error.form", FromElsewhere: "error.elsewhere"}


class _Cookies(SecureCookieSessionInterface):
    def get_cookie_name(self, app: Flask) -> str:
        return f"{self.get_cookie_path(app)[1:]}-form"

    def get_cookie_path(self, app: Flask) -> str:
        return next((prefix for prefix in FAMILIES if request.path.startswith(f"{prefix}/")), FAMILIES[0])


def install(app: Flask, keyring: Keyring, *, secure: bool) -> CSRFProtect:
    """Once an application. The key that signs is made from the session key, and stored nowhere."""
    if "csrf" in app.extensions:
        found: CSRFProtect = app.extensions["csrf"]
        return found
    active, _ = keyring.active("session")
    signing = {key_id: hmac.digest(key, b"pages", "sha256").hex() for key_id, key in keyring.all("session").items()}
    app.secret_key = signing.pop(active)
    app.session_interface = _Cookies()
    app.config.update(
        SECRET_KEY_FALLBACKS=list(signing.values()),
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=secure,
        WTF_CSRF_CHECK_DEFAULT=False,  # these pages only: the carrier's and banks' posts are signed
        WTF_CSRF_SSL_STRICT=False,  # it asks for a Referer, which our pages have browsers not send
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    return CSRFProtect(app)


def own_post(csrf: CSRFProtect) -> None:
    """Refuse what another site posts: browsers say so, and only our own forms hold the token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise FromElsewhere
    csrf.protect()


def harden(response: Response, static: str = "") -> Response:
    """Headers of every page; only what ``static``, an endpoint, serves may be kept."""
    response.headers.update(HEADERS)
    kept = "max-age=3600" if static and request.endpoint == static and response.status_code == 200 else "no-store"
    response.headers["Cache-Control"] = kept
    return response


def error_page(problem: HTTPException, page: Callable[..., Response], key: str = "") -> Response:
    """An error is a page that says what to do, by ``key`` of its family's words where there is one."""
    if isinstance(problem, InternalServerError):
        log.error("page failed", endpoint=request.endpoint)  # Flask has logged the traceback
    key = key or _ERRORS.get(type(problem), f"error.{problem.code}")
    return page("error", problem.code or 500, key=key if g.words.has(key) else "error.500")
