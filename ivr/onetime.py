"""Tokens of one-time pages, ``/pay/KIND/TOKEN``, and the like: made from a row's id and a key outside the database,
and not stored."""

from __future__ import annotations

import hmac
import re

from ivr.keys import Keyring

PREFIX = "/pay"
_TOKEN = re.compile(r"[0-9a-f]{48}")


def url(keyring: Keyring, public_url: str, kind: str, row_id: str) -> str:
    """Where the page of this row is."""
    return f"{public_url.rstrip('/')}{PREFIX}/{kind}/{token(keyring, kind, row_id)}"


def token(keyring: Keyring, kind: str, row_id: str) -> str:
    """What opens this row, as a thing of this kind."""
    return _token(keyring.active("session")[1], kind, row_id)


def read(keyring: Keyring, kind: str, given: str) -> str | None:
    """The id of the row that this token is of; None when we did not make it for a page of this kind."""
    if not _TOKEN.fullmatch(given):
        return None
    made = [_token(key, kind, given[:16]) for key in keyring.all("session").values()]
    right = any(hmac.compare_digest(given, one) for one in made)
    return given[:16] if right else None


def _token(key: bytes, kind: str, row_id: str) -> str:
    return row_id + hmac.digest(key, f"page\x00{kind}\x00{row_id}".encode(), "sha256").hex()[:32]
