"""Enrolment codes authenticate an enrolment: the customer gets one over a channel she already trusts."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import TypeGuard

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
    row.expires_at, row.tries, row.used_at, row.used_by = now + VALID_FOR, 0, None, None
    session.add(row)
    session.flush()
    return code


def check_code(session: Session, customer_id: str, code: str, keyring: Keyring, now: datetime) -> bool:
    """Whether the code would be accepted, without using it up. A wrong one counts as one of five tries."""
    return which_customer(session, [customer_id], code, keyring, now) is not None


def which_customer(
    session: Session,
    customer_ids: Iterable[str],
    code: str,
    keyring: Keyring,
    now: datetime,
    *,
    may_try: Collection[str] | None = None,
) -> str | None:
    """Whose code this is, of all who share a telephone, without using it up.

    Only a code that is right for none of them counts as one of five tries, for each, or for those of ``may_try``.
    """
    rows = {who: _row(session, who) for who in sorted(set(customer_ids))}  # one order, so that none deadlock
    # All are compared, whether or not there is a code, so that the time tells nothing.
    right = [who for who, row in rows.items() if _is_right(row, who, code, keyring) and _is_valid(row, now)]
    if right:
        return right[0]
    for who, row in rows.items():
        if (may_try is None or who in may_try) and _is_valid(row, now):
            row.tries += 1
    session.flush()
    return None


def use_code(
    session: Session,
    customer_id: str,
    code: str,
    keyring: Keyring,
    now: datetime,
    call_sid: str | None = None,
) -> bool:
    """Accept the code, once: of two calls that use it at the same time, one is told False.

    The call that used it is told True again when its request is repeated.
    """
    row = _row(session, customer_id)
    if row and row.used_at and call_sid and row.used_by == call_sid:
        return _is_right(row, customer_id, code, keyring)
    if row is None or which_customer(session, [customer_id], code, keyring, now) is None:
        return False
    row.used_at, row.used_by = now, call_sid
    session.flush()
    return True


def _is_valid(row: EnrolmentCode | None, now: datetime) -> TypeGuard[EnrolmentCode]:
    return row is not None and row.used_at is None and now < row.expires_at and row.tries < MOST_TRIES


def _is_right(row: EnrolmentCode | None, customer_id: str, code: str, keyring: Keyring) -> bool:
    # Of a code that nobody can use any more, the key may be gone.
    key = keyring.all("pin").get(row.key_id if row else "", keyring.active("pin")[1])
    return hmac.compare_digest(_hash(key, customer_id, code), row.code_hash if row else bytes(32))


def _row(session: Session, customer_id: str) -> EnrolmentCode | None:
    """The customer's code, its row locked until the transaction ends."""
    query = select(EnrolmentCode).where(EnrolmentCode.customer_id == customer_id)
    return session.scalar(query.with_for_update())


def _hash(key: bytes, customer_id: str, code: str) -> bytes:
    return hmac.digest(key, f"enrolment-code\x00{customer_id}\x00{code}".encode(), "sha256")
