"""One-time links and codes. Neither is stored: both are made from a row's id and a key outside the database.

A link is bound to one approver, one contact and one thing to answer. Opening it changes nothing; the first right
PIN posted to it uses it up.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ivr import onetime
from ivr.approval.models import Link, SignInCode
from ivr.customers.models import Contact, new_id
from ivr.customers.notices import notify_at
from ivr.keys import Keyring

_TOKEN = re.compile(r"[0-9a-f]{48}")
LINK_LIFE = timedelta(minutes=30)
CODE_LIFE = timedelta(minutes=10)
MOST_TRIES = 5
CODE_DIGITS = 6


class NoPublicUrl(Exception):
    """Where our pages are reached is not configured."""


def send_link(
    session: Session,
    contact: Contact,
    template: str,
    *,
    request_id: str | None = None,
    appointment_id: str | None = None,
    now: datetime,
) -> Link:
    """A new link to one contact, in a notice whose text asks for ``{link}``."""
    link = Link(
        id=new_id(),
        approver_id=contact.customer_id,
        contact_id=contact.id,
        request_id=request_id,
        appointment_id=appointment_id,
        expires_at=now + LINK_LIFE,
    )
    session.add(link)
    session.flush()
    notify_at(session, contact, template, {"link_id": link.id}, now)
    return link


def open_link(session: Session, token: str, keyring: Keyring, now: datetime, *, lock: bool = False) -> Link | None:
    """The link that this token is of, while it can be used."""
    if not _TOKEN.fullmatch(token):
        return None
    link = session.get(Link, token[:16], with_for_update=lock)
    made = [_token(key, token[:16]) for key in keyring.all("session").values()]
    right = any(hmac.compare_digest(token.encode(), one.encode()) for one in made)
    if not right or link is None or link.used_at is not None or link.tries >= MOST_TRIES or now > link.expires_at:
        return None
    return link


def new_code(session: Session, customer_id: str, contacts: list[Contact], now: datetime) -> None:
    """A new code to sign in with, sent to these contacts; earlier ones are void."""
    code = SignInCode(customer_id=customer_id, id=new_id(), expires_at=now + CODE_LIFE, tries=0)
    session.merge(code)
    session.flush()
    for contact in contacts:
        notify_at(session, contact, "page.code", {"code_id": code.id}, now)


def use_code(session: Session, customer_id: str, given: str, keyring: Keyring, now: datetime) -> bool:
    """Whether this is the customer's code; a right one is used up, and after ``MOST_TRIES`` wrong ones so is it."""
    code = session.get(SignInCode, customer_id, with_for_update=True)
    if code is None or now > code.expires_at or code.tries >= MOST_TRIES:
        return False
    code.tries += 1
    made = [_code(key, code.id) for key in keyring.all("session").values()]
    right = any(hmac.compare_digest(given.encode(), one.encode()) for one in made)
    if right:
        session.delete(code)
    session.flush()
    return right


def reveal(values: Mapping[str, Any], keyring: Keyring, public_url: str | None) -> dict[str, Any]:
    """The values of a notice with the link or code that its row only names, for the moment of sending.

    Raises NoPublicUrl.
    """
    shown = dict(values)
    _, key = keyring.active("session")
    if link_id := shown.pop("link_id", None):
        if not public_url:
            raise NoPublicUrl("IVR_PUBLIC_URL is not set: no link can be sent")
        shown["link"] = f"{public_url.rstrip('/')}/my/l/{_token(key, link_id)}"
    if page := shown.pop("page", None):
        if not public_url:
            raise NoPublicUrl("IVR_PUBLIC_URL is not set: no link can be sent")
        shown["link"] = onetime.url(keyring, public_url, *page)
    if code_id := shown.pop("code_id", None):
        shown["code"] = _code(key, code_id)
    return shown


def _token(key: bytes, link_id: str) -> str:
    return link_id + hmac.digest(key, f"link\x00{link_id}".encode(), "sha256").hex()[:32]


def _code(key: bytes, code_id: str) -> str:
    number = int.from_bytes(hmac.digest(key, f"code\x00{code_id}".encode(), "sha256")[:8], "big")
    return f"{number % 10**CODE_DIGITS:0{CODE_DIGITS}d}"
