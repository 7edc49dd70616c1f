"""Pages for guardians, supervisors and payers, under ``/my``: no JavaScript, in English and Chinese."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect

from ivr import onetime
from ivr.clock import utc_now
from ivr.console.people import answers, appointed, desk, guard, me, sign_in, wards
from ivr.keys import Keyring
from ivr.services import Services

__all__ = ["install"]

_PARTS = (guard, sign_in, answers, wards, appointed, me)  # imported for what they add to the blueprint


class _CookieOfItsPages(SecureCookieSessionInterface):
    """The forms of these pages and of those that customers pay on have a cookie each."""

    def get_cookie_path(self, app: Flask) -> str:
        return onetime.PREFIX if request.path.startswith(f"{onetime.PREFIX}/") else desk.PREFIX


def install(app: Flask, services: Services, keyring: Keyring, clock: Callable[[], datetime] = utc_now) -> None:
    """Add the pages. The key that signs forms' tokens is made from the session key, and stored nowhere."""
    secure = (services.settings.public_url or "").startswith("https://")
    active, _ = keyring.active("session")
    signing = {key_id: hmac.digest(key, b"pages", "sha256").hex() for key_id, key in keyring.all("session").items()}
    app.secret_key = signing.pop(active)
    app.config.update(
        SECRET_KEY_FALLBACKS=list(signing.values()),
        SESSION_COOKIE_NAME="my-form",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=secure,
        WTF_CSRF_CHECK_DEFAULT=False,  # these pages only: the carrier's and banks' posts are signed
        WTF_CSRF_SSL_STRICT=False,  # it asks for a Referer, which our pages have browsers not send
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.session_interface = _CookieOfItsPages()
    csrf = CSRFProtect(app)
    app.extensions[desk.EXTENSION] = desk.Desk(services, keyring, clock, csrf, secure)
    app.register_blueprint(desk.blueprint)
