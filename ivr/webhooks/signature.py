"""Secrets and signatures of the Standard Webhooks specification. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32
PREFIX = "whsec_"


def secret(master: bytes, endpoint_id: str) -> str:
    """The secret of an endpoint, from a 32-byte master key, as the merchant is given it: ``whsec_`` and base64."""
    info = b"webhook endpoint " + endpoint_id.encode()
    return PREFIX + base64.b64encode(HKDF(SHA256(), SECRET_BYTES, None, info).derive(master)).decode()


def signed_headers(endpoint_secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers. The signature covers id, timestamp (seconds of Unix time, of this attempt) and body."""
    key = base64.b64decode(endpoint_secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{signature}",
    }
