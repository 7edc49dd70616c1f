"""Errors as problem+json (RFC 9457): each a type with a code of its own, a status and a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """What a caller of the API did wrong, or must wait for. Nothing was changed."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(
        self, detail: str, headers: Mapping[str, str] | None = None, faults: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail, self.headers, self.faults = detail, headers, faults

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": f"urn:pay-by-voice:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        return document | ({"errors": self.faults} if self.faults else {})


class BadRequest(Problem):
    status, code, title = 400, "bad_request", "The request cannot be read"


class NoKey(Problem):
    status, code, title = 401, "no_valid_key", "No valid API key was shown"


class NoScope(Problem):
    status, code, title = 403, "no_scope", "The API key does not cover this"


class NotFound(Problem):
    status, code, title = 404, "not_found", "There is no such thing of yours"


class NotNow(Problem):
    status, code, title = 409, "conflict", "The thing is not in a state for this"


class KeyUsed(Problem):
    status, code, title = 409, "idempotency_key_used", "The idempotency key came with another request"


class TooLong(Problem):
    status, code, title = 413, "too_long", "The request is too long"


class WrongType(Problem):
    status, code, title = 415, "wrong_media_type", "The request is of another media type"


class Invalid(Problem):
    status, code, title = 422, "invalid", "The request is not valid"


class TooMany(Problem):
    status, code, title = 429, "too_many_requests", "Too many requests"


class Unavailable(Problem):
    status, code, title = 503, "unavailable", "Try again later"


ALWAYS: tuple[type[Problem], ...] = (NoKey, NoScope, TooMany, Unavailable)
SENDING: tuple[type[Problem], ...] = (BadRequest, TooLong, WrongType)
"""Where there is a body."""
