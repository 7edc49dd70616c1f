"""Who may sign in to the console: names, passwords, second factors, and what slows whoever guesses them."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ivr.console.operators.models import Operator, OperatorSession, Role
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.models import new_id
from ivr.keys import Keyring
from voiceprint.sealing import key_id_of, open_sealed, seal

ISSUER = "Pay by voice"
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 200
KEY = "pin"  # the keys of what people prove themselves with
STEPS = (-1, 0, 1)  # clocks may be half a minute off
FREE_FAILURES = 5
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(minutes=15)

_NAME = re.compile(r"[a-z][a-z0-9._-]{1,31}", re.ASCII)
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # OWASP's smallest, as for PINs


@dataclass(frozen=True, repr=False)
class Secret:
    """What an operator's authenticator is given, once."""

    uri: str


def add(session: Session, name: str, role: Role, password: str, keyring: Keyring, *, who: str, now: datetime) -> Secret:
    """A new operator. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("a name has 2 to 32 small letters, digits, dots and dashes, and begins with a letter")
    if find(session, name):
        raise InvalidInput(f"there is an operator {name} already")
    operator = Operator(id=new_id(), name=name, role=role, created_at=now)
    secret = _give(operator, password, keyring)
    session.add(operator)
    audit.record(session, who, "operator.added", operator.id, now, name=name, role=role.value)
    session.flush()
    return secret


def reset(session: Session, name: str, password: str, keyring: Keyring, *, who: str, now: datetime) -> Secret:
    """A new password and second factor, which let her in again at once. Raises InvalidInput."""
    operator = require(session, name)
    secret = _give(operator, password, keyring)
    operator.failures, operator.totp_step, operator.wait_until, operator.disabled_at = 0, 0, None, None
    _changed(session, operator, "operator.reset", who, now)
    return secret


def set_role(session: Session, name: str, role: Role, *, who: str, now: datetime) -> None:
    """Raises InvalidInput."""
    operator = require(session, name)
    operator.role = role
    _changed(session, operator, "operator.role", who, now, role=role.value)


def disable(session: Session, name: str, *, who: str, now: datetime) -> None:
    """She is signed out, and cannot sign in until she is reset. Raises InvalidInput."""
    operator = require(session, name)
    operator.disabled_at = operator.disabled_at or now
    _changed(session, operator, "operator.disabled", who, now)


def find(session: Session, name: str, *, lock: bool = False) -> Operator | None:
    query = select(Operator).where(Operator.name == name)
    return session.scalar(query.with_for_update() if lock else query)


def require(session: Session, name: str) -> Operator:
    operator = find(session, name, lock=True)
    if operator is None:
        raise InvalidInput(f"there is no operator {name}: ivr operator list")
    return operator


def prove(session: Session, name: str, password: str, code: str, keyring: Keyring, now: datetime) -> Operator | None:
    """The operator, if name, password and code are right and she need not wait; None tells nothing more.

    As slow for a name that nobody has. A failure is counted: commit in any case. While somebody waits nothing is
    counted, so that guessing does not lengthen the wait.
    """
    operator = find(session, name, lock=True)
    right = _password_is(operator, password)
    step = _step_of(operator, code, keyring, now) if operator else None
    if operator is None or operator.disabled_at or (operator.wait_until and now < operator.wait_until):
        return None
    if not right or step is None:
        operator.failures += 1
        operator.wait_until = now + wait if (wait := wait_after(operator.failures)) else None
        return None
    operator.failures, operator.wait_until, operator.totp_step, operator.signed_in_at = 0, None, step, now
    if key_id_of(operator.totp_sealed) != keyring.active(KEY)[0]:  # rotated
        _seal(operator, _open(operator, keyring), keyring)
    return operator


def reseal(session: Session, keyring: Keyring) -> int:
    """Seal with the key in use every second factor that an older one sealed; how many there were."""
    operators = session.scalars(select(Operator).with_for_update())
    older = [one for one in operators if key_id_of(one.totp_sealed) != keyring.active(KEY)[0]]
    for operator in older:
        _seal(operator, _open(operator, keyring), keyring)
    session.flush()
    return len(older)


def wait_after(failures: int) -> timedelta:
    """None before the fifth failure, then twice as long each time; never so long that guessing locks her out."""
    if failures < FREE_FAILURES:
        return timedelta(0)
    return min(FIRST_WAIT * (1 << min(failures - FREE_FAILURES, 10)), LONGEST_WAIT)


def _password_is(operator: Operator | None, password: str) -> bool:
    try:
        _HASHER.verify(operator.password_hash if operator else _nobodys(), password[:LONGEST_PASSWORD])
    except VerifyMismatchError:
        return False
    return operator is not None


def _step_of(operator: Operator, code: str, keyring: Keyring, now: datetime) -> int | None:
    """The half minute that the code is of; None when it is wrong, or not newer than the last one accepted."""
    totp = pyotp.TOTP(_open(operator, keyring))
    found = None
    for step in (totp.timecode(now) + off for off in STEPS):
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()) and step > operator.totp_step:
            found = step
    return found


def _give(operator: Operator, password: str, keyring: Keyring) -> Secret:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(f"a password has {SHORTEST_PASSWORD} characters or more")
    secret = pyotp.random_base32()
    operator.password_hash = _HASHER.hash(password)
    _seal(operator, secret, keyring)
    return Secret(pyotp.TOTP(secret).provisioning_uri(name=operator.name, issuer_name=ISSUER))


def _seal(operator: Operator, secret: str, keyring: Keyring) -> None:
    key_id, key = keyring.active(KEY)
    operator.totp_sealed = seal(key, key_id, secret.encode(), _context(operator))


def _open(operator: Operator, keyring: Keyring) -> str:
    return open_sealed(keyring.all(KEY), operator.totp_sealed, _context(operator)).decode()


def _context(operator: Operator) -> bytes:
    """A secret that is copied to another row does not open."""
    return f"operator:{operator.id}".encode()


def _changed(session: Session, operator: Operator, what: str, who: str, now: datetime, **details: str) -> None:
    session.execute(delete(OperatorSession).where(OperatorSession.operator_id == operator.id))
    audit.record(session, who, what, operator.id, now, name=operator.name, **details)
    session.flush()


@cache
def _nobodys() -> str:
    return _HASHER.hash("no password hashes to this")
