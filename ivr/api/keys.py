"""API keys: scoped, shown once, kept as a hash, revocable."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime

from sqlalchemy.orm import Session

from ivr.api.models import ApiKey
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant
from ivr.customers.models import new_id
from ivr.customers.text import clean_text

SCOPES = (
    "customers:read",
    "customers:write",
    "cards:read",
    "cards:write",
    "bills:read",
    "bills:write",
    "payments:read",
    "payments:write",
    "refunds:write",
    "webhooks:read",
    "webhooks:write",
    "purchases:read",
    "purchases:write",
    "apps:read",
    "apps:write",
)
# The secret is letters and digits of 32 random bytes: too many to guess, so a plain hash keeps it.
_KEY = re.compile(r"pbv_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


def issue(
    session: Session, merchant: Merchant, label: str, scopes: Collection[str], *, who: str, now: datetime
) -> tuple[ApiKey, str]:
    """A new key and, for this once, what to send. Raises InvalidInput."""
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise InvalidInput(f"no scope {', '.join(sorted(unknown)) or 'was given'}; there are {', '.join(SCOPES)}")
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id(),
        merchant_id=merchant.id,
        label=clean_text(label, "a label", least=1, most=80),
        scopes=sorted(set(scopes)),
        secret_hash=_hash(secret),
        created_at=now,
    )
    session.add(key)
    session.flush()
    audit.record(session, who, "api_key.issued", key.id, now, merchant=merchant.id, scopes=key.scopes)
    return key, f"pbv_{key.id}_{secret}"


def check(session: Session, shown: str) -> tuple[ApiKey, Merchant] | None:
    """The key that was shown, with its merchant, while both are valid."""
    parts = _KEY.fullmatch(shown)
    key = session.get(ApiKey, parts[1]) if parts else None
    if parts is None or key is None or key.revoked_at is not None:
        return None
    if not hmac.compare_digest(key.secret_hash, _hash(parts[2])):
        return None
    merchant = session.get_one(Merchant, key.merchant_id)
    return None if merchant.closed_at is not None else (key, merchant)


def revoke(session: Session, key_id: str, *, who: str, now: datetime) -> ApiKey:
    """Take a key back, for good. Raises InvalidInput."""
    key = session.get(ApiKey, key_id, with_for_update=True)
    if key is None:
        raise InvalidInput(f"there is no API key {key_id!r}; `ivr merchant keys MERCHANT` shows those there are")
    if key.revoked_at is None:
        key.revoked_at = now
        audit.record(session, who, "api_key.revoked", key.id, now)
    return key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
