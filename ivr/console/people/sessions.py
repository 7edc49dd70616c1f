"""Who is signed in: a random token in a cookie, of which the database knows a hash; and the browser, likewise."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Request, Response
from sqlalchemy.orm import Session

from ivr.approval.models import Link, PageSession
from ivr.customers.models import Customer

LIFE = timedelta(minutes=30)
DEVICE_LIFE = timedelta(days=400)  # the longest that browsers keep a cookie
SESSION, DEVICE = "my-session", "my-device"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Person:
    """A customer who is signed in."""

    customer_id: str
    number: str
    locale: str
    device: str
    request_id: str | None = None  # signed in by a link: all that she may see
    appointment_id: str | None = None

    @property
    def by_link(self) -> bool:
        return bool(self.request_id or self.appointment_id)


def start(
    session: Session, request: Request, response: Response, customer_id: str, link_id: str | None, now: datetime, *,
    secure: bool, path: str
) -> None:  # fmt: skip
    """Sign a customer in, in this browser; what it held before is no longer valid."""
    end(session, request, now)
    token, browser = secrets.token_urlsafe(32), request.cookies.get(DEVICE, "")
    if not _TOKEN.fullmatch(browser):
        browser = secrets.token_urlsafe(32)
    row = PageSession(
        id=_hash(token),
        customer_id=customer_id,
        device=_hash(browser),
        link_id=link_id,
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(row)
    session.flush()
    for name, value, life in ((SESSION, token, LIFE), (DEVICE, browser, DEVICE_LIFE)):
        response.set_cookie(name, value, max_age=life, path=path, secure=secure, httponly=True, samesite="Strict")


def current(session: Session, request: Request, now: datetime) -> Person | None:
    """Who is signed in with this request's cookie."""
    row = session.get(PageSession, _hash(request.cookies.get(SESSION, "")))
    if row is None or now >= row.expires_at:
        return None
    customer = session.get_one(Customer, row.customer_id)
    link = session.get_one(Link, row.link_id) if row.link_id else None
    return Person(
        customer.id,
        customer.number,
        customer.locale,
        row.device,
        request_id=link.request_id if link else None,
        appointment_id=link.appointment_id if link else None,
    )


def end(session: Session, request: Request, now: datetime) -> None:
    """Sign out. The row stays: who ever used a browser is remembered."""
    row = session.get(PageSession, _hash(request.cookies.get(SESSION, "")))
    if row is not None and now < row.expires_at:
        row.expires_at = now
        session.flush()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
