"""Secrets and signatures of the Standard Webhooks specification. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32
PREFIX = "whsec_"
TOLERANCE_S = 300
"""How far the clocks of two honest sides, and the way between them, may be apart."""
MESSAGE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class BadSignature(Exception):
    """A message is not signed with the secret, or not now. Which of the two is not told."""


def is_secret(text: str) -> bool:
    """Whether this is a secret as ``secret`` makes them: the prefix, and base64 of 24 to 64 bytes."""
    try:
        return text.startswith(PREFIX) and 24 <= len(_key(text)) <= 64
    except (binascii.Error, ValueError):
        return False


def secret(master: bytes, endpoint_id: str) -> str:
    """The secret of an endpoint, from a 32-byte master key, as the merchant is given it: ``whsec_`` and base64."""
    info = b"webhook endpoint " + endpoint_id.encode()
    return PREFIX + base64.b64encode(HKDF(SHA256(), SECRET_BYTES, None, info).derive(master)).decode()


def signed_headers(endpoint_secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers. The signature covers id, timestamp (seconds of Unix time, of this attempt) and body."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": _signature(endpoint_secret, message_id, str(timestamp_s), body),
    }


class Headers(Protocol):
    """Headers by name, whatever their case."""

    def get(self, name: str, default: str, /) -> str: ...


def verified(endpoint_secret: str, headers: Headers, body: bytes, now: datetime) -> str:
    """The id of a message that is signed with this secret, within TOLERANCE_S of now. Raises BadSignature.

    Of several signatures, separated by spaces, one must be right.
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not MESSAGE_ID.fullmatch(message_id) or not re.fullmatch("[0-9]{1,12}", timestamp):
        raise BadSignature("headers missing or malformed")
    right = _signature(endpoint_secret, message_id, timestamp, body).encode()
    given = headers.get("webhook-signature", "").encode().split(b" ")
    fresh = abs(now.timestamp() - int(timestamp)) <= TOLERANCE_S
    if not fresh or not any(hmac.compare_digest(right, one) for one in given):
        raise BadSignature("not signed by this secret, or too old")
    return message_id


def _signature(endpoint_secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(endpoint_secret), signed, hashlib.sha256)).decode()


def _key(endpoint_secret: str) -> bytes:
    return base64.b64decode(endpoint_secret.removeprefix(PREFIX), validate=True)
