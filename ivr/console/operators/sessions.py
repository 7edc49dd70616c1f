"""Who is signed in: a random token in a cookie, of which the database knows a hash."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Request, Response
from sqlalchemy import delete, or_
from sqlalchemy.orm import Session

from ivr.console.operators.models import Operator, OperatorSession, Role

IDLE, LIFE = timedelta(minutes=30), timedelta(hours=12)
SEEN_EVERY = timedelta(minutes=1)  # not a row written for each page
COOKIE = "desk-session"


@dataclass(frozen=True)
class SignedIn:
    """An operator who is signed in."""

    id: str
    name: str
    role: Role


def start(session: Session, request: Request, response: Response, operator: Operator, now: datetime, *,
          secure: bool, path: str) -> None:  # fmt: skip
    """Sign an operator in, in this browser; what it held before is no longer valid."""
    end(session, request)
    over = or_(OperatorSession.seen_at <= now - IDLE, OperatorSession.created_at <= now - LIFE)
    session.execute(delete(OperatorSession).where(over))
    token = secrets.token_urlsafe(32)
    session.add(OperatorSession(id=_hash(token), operator_id=operator.id, created_at=now, seen_at=now))
    response.set_cookie(COOKIE, token, max_age=LIFE, path=path, secure=secure, httponly=True, samesite="Strict")


def current(session: Session, request: Request, now: datetime) -> tuple[SignedIn | None, bool]:
    """Who is signed in with this request's cookie, and whether it is time to note that she is there."""
    row = session.get(OperatorSession, _hash(request.cookies.get(COOKIE, "")))
    if row is None or now >= row.seen_at + IDLE or now >= row.created_at + LIFE:
        return None, False
    operator = session.get_one(Operator, row.operator_id)
    if operator.disabled_at is not None:
        return None, False
    return SignedIn(operator.id, operator.name, operator.role), now >= row.seen_at + SEEN_EVERY


def seen(session: Session, request: Request, now: datetime) -> None:
    """She is still there."""
    if row := session.get(OperatorSession, _hash(request.cookies.get(COOKIE, ""))):
        row.seen_at = now


def end(session: Session, request: Request) -> None:
    """Sign out."""
    session.execute(delete(OperatorSession).where(OperatorSession.id == _hash(request.cookies.get(COOKIE, ""))))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
