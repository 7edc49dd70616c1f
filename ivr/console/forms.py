"""What the forms of all pages share: tokens against posts from elsewhere, in a signed cookie for each family."""

from __future__ import annotations

import hmac

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect

from ivr import onetime
from ivr.keys import Keyring

FAMILIES = ("/my", "/desk", onetime.PREFIX)
"""Prefixes of pages; one's cookie is not sent to the other."""


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
