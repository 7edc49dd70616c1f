"""Is this request the carrier's? Checks X-Twilio-Signature on webhooks and on websocket handshakes.

Twilio signs the URL that it was told and the form. Which URL that is, only we can know: the public URL setting
says so; without it, what the trusted proxies forward, or the request itself.
"""

from __future__ import annotations

from flask import Request
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from ivr.settings import Settings


def public_url(request: Request, settings: Settings) -> str:
    """The request's URL as the carrier knows it, without its fragment."""
    base = (settings.public_url or request.host_url).rstrip("/")
    query = f"?{request.query_string.decode()}" if request.query_string else ""
    return f"{base}{request.path}{query}"


def is_from_carrier(request: Request, settings: Settings) -> bool:
    """Whether the signature fits. False without a signature, and while no token is configured."""
    token, signature = settings.auth_token.get_secret_value(), request.headers.get("X-Twilio-Signature")
    if not token or not signature:
        return False
    url = public_url(request, settings)
    candidates = [url]
    if request.headers.get("Upgrade", "").lower() == "websocket":
        secure = url.replace("http", "ws", 1)  # https -> wss; both with and without a trailing slash are seen
        candidates = [u for base in (secure, url) for u in (base, f"{base}/")]
    validator = RequestValidator(token)
    return any(validator.validate(candidate, request.form, signature) for candidate in candidates)
