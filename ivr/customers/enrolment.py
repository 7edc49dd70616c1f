"""Enrolment codes authenticate an enrolment: the customer gets one over a channel she already trusts."""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.models import EnrolmentCode, new_id
from ivr.keys import Keyring

CODE_DIGITS = 8
VALID_FOR = timedelta(hours=24)
MOST_TRIES = 5


def issue_code(session: Session, customer_id: str, keyring: Keyring, now: datetime) -> str:
    """A new single-use code; the one before it is void. Show it once: only a keyed hash is kept."""
    code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    row = _row(session, customer_id) or EnrolmentCode(id=new_id(), customer_id=customer_id)
    row.key_id, key = keyring.active("pin")
    row.code_hash = _hash(key, customer_id, code)
    row.expires_at, row.tries, row.used_at = now + VALID_FOR, 0, None
    session.add(row)
    session.flush()
    return code


def check_code(session: Session, customer_id: str, code: str, keyring: Keyring, now: datetime) -> bool:
    """Whether the code would be accepted, without using it up. A wrong one counts as one of five tries."""
    return _accepted(session, customer_id, code, keyring, now) is not None


def use_code(session: Session, customer_id: str, code: str, keyring: Keyring, now: datetime) -> bool:
    """Accept the code, once: of two calls that use it at the same time, one is told False."""
    row = _accepted(session, customer_id, code, keyring, now)
    if row is None:
        return False
    row.used_at = now
    session.flush()
    return True


def _accepted(
    session: Session, customer_id: str, code: str, keyring: Keyring, now: datetime
) -> EnrolmentCode | None:
    row = _row(session, customer_id)
    key = keyring.key("pin", row.key_id) if row else keyring.active("pin")[1]
    digest = _hash(
        key, customer_id, code
    )  # made whether or not there is a code, so that the time tells nothing
    if row is None or row.used_at is not None or now >= row.expires_at or row.tries >= MOST_TRIES:
        return None
    if hmac.compare_digest(digest, row.code_hash):
        return row
    row.tries += 1
    session.flush()
    return None


def _row(session: Session, customer_id: str) -> EnrolmentCode | None:
    """The customer's code, its row locked until the transaction ends."""
    query = select(EnrolmentCode).where(EnrolmentCode.customer_id == customer_id)
    return session.scalar(query.with_for_update().execution_options(populate_existing=True))


def _hash(key: bytes, customer_id: str, code: str) -> bytes:
    return hmac.digest(key, f"enrolment-code\x00{customer_id}\x00{code}".encode(), "sha256")
