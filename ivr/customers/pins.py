"""Six-digit PINs: argon2id over an HMAC whose key lies outside the database."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.models import CallerId, Customer, Pin
from ivr.keys import Keyring

PIN_DIGITS = 6

# OWASP's smallest argon2id parameters: about 20 ms, so that a webhook may check a PIN. A million PINs fall to
# any parameters; what protects a stolen table is the HMAC key.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class TrivialPin(InvalidInput):
    """A PIN that is among the first that anybody would try."""


def set_pin(
    session: Session,
    customer_id: str,
    pin: str,
    keyring: Keyring,
    now: datetime,
    *,
    provisional_until: datetime | None = None,
    call_sid: str | None = None,
) -> None:
    """Set or replace the customer's PIN; ``call_sid`` is the call that sets it.

    Until ``provisional_until`` it may pay small amounts only (``voiceprints.is_provisional``). Raises
    TrivialPin; InvalidInput if it is not six digits.
    """
    if not _six_digits(pin):
        raise InvalidInput(f"a PIN has {PIN_DIGITS} digits")
    if is_guessable(session, customer_id, pin):
        raise TrivialPin("this PIN is too easy to guess")
    row = session.get(Pin, customer_id) or Pin(customer_id=customer_id)
    _store(row, pin, keyring)
    row.changed_at, row.provisional_until, row.call_sid = now, provisional_until, call_sid
    session.add(row)
    session.flush()


@dataclass(frozen=True)
class Compared:
    """What came of comparing digits with a stored hash. It says nothing of any other hash, such as that of a new PIN.

    Where many sign at once this is made before the transaction in which the attempt is counted: it takes 20 ms and
    more, and on SQLite every other writer would wait for it.
    """

    customer_id: str
    pin: str = field(repr=False)
    hash: str | None = field(repr=False)
    matches: bool


def compare(row: Pin | None, customer_id: str, pin: str, keyring: Keyring) -> Compared:
    """Compare the digits with the customer's row; as slow if she has none."""
    key = keyring.key("pin", row.key_id) if row else keyring.active("pin")[1]
    try:
        _HASHER.verify(row.hash if row else _no_pin(), _keyed(key, customer_id, pin))
    except VerifyMismatchError:
        return Compared(customer_id, pin, row.hash if row else None, False)
    return Compared(customer_id, pin, row.hash if row else None, row is not None and _six_digits(pin))


def check_pin(session: Session, customer_id: str, pin: str, keyring: Keyring, compared: Compared | None = None) -> bool:
    """Whether this is the customer's PIN; as slow if she has none. Hashes anew after a key rotation.

    What was ``compared`` before is compared anew unless it was these digits with the hash that is stored now.
    """
    row = session.get(Pin, customer_id)
    asked = (customer_id, pin, row.hash if row else None)
    if compared is None or (compared.customer_id, compared.pin, compared.hash) != asked:
        compared = compare(row, customer_id, pin, keyring)
    if row is None or not compared.matches:
        return False
    if row.key_id != keyring.active("pin")[0]:
        _store(row, pin, keyring)
        session.flush()
    return True


def has_pin(session: Session, customer_id: str) -> bool:
    return session.get(Pin, customer_id) is not None


def is_guessable(session: Session, customer_id: str, pin: str) -> bool:
    """Whether ``set_pin`` refuses these digits: trivial, or part of the customer's own numbers."""
    return is_trivial(pin) or any(pin in number for number in _numbers_of(session, customer_id))


def is_trivial(pin: str) -> bool:
    """Fewer than three different digits, a repeated block, a run up or down, or a date."""
    steps = {(int(b) - int(a)) % 10 for a, b in pairwise(pin)}
    repeated = pin == pin[:2] * 3 or pin == pin[:3] * 2
    return len(set(pin)) < 3 or repeated or steps in ({1}, {9}) or _is_date(pin)


def _is_date(pin: str) -> bool:
    """DDMMYY, MMDDYY or YYMMDD: birthdays are what people choose."""
    a, b, c = int(pin[:2]), int(pin[2:4]), int(pin[4:])
    return any(1 <= day <= 31 and 1 <= month <= 12 for day, month in ((a, b), (b, a), (c, b)))


def _numbers_of(session: Session, customer_id: str) -> list[str]:
    """Numbers that a stranger knows or can look up."""
    phones = session.scalars(select(CallerId.e164).where(CallerId.customer_id == customer_id))
    return [session.get_one(Customer, customer_id).number, *phones]


def _store(row: Pin, pin: str, keyring: Keyring) -> None:
    row.key_id, key = keyring.active("pin")
    row.hash = _HASHER.hash(_keyed(key, row.customer_id, pin))


def _six_digits(pin: str) -> bool:
    return len(pin) == PIN_DIGITS and pin.isascii() and pin.isdigit()


def _keyed(key: bytes, customer_id: str, pin: str) -> bytes:
    return hmac.digest(key, f"pin\x00{customer_id}\x00{pin}".encode(), "sha256")


@cache
def _no_pin() -> str:
    return _HASHER.hash(b"no PIN hashes to this")
