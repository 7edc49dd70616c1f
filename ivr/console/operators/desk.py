"""What every view works with: the service's parts, who is signed in, and answering with a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, cast

from flask import Blueprint, Response, current_app, flash, g, make_response, redirect, render_template, url_for
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.orm import Session

from ivr.console.operators.models import Role
from ivr.console.operators.sessions import SignedIn
from ivr.console.people.words import Words
from ivr.customers import audit
from ivr.keys import Keyring
from ivr.log import scrub, scrub_value
from ivr.services import Services

PREFIX, EXTENSION = "/desk", "ivr.operators"
HERE = Path(__file__).parent

blueprint = Blueprint("desk", __name__, url_prefix=PREFIX, template_folder="templates", static_folder="static")


@dataclass(frozen=True)
class Desk:
    """Of one process."""

    services: Services
    keyring: Keyring
    clock: Callable[[], datetime]
    csrf: CSRFProtect
    secure: bool  # whether the pages are reached over https
    streams: BoundedSemaphore  # each live page holds a thread, which calls need


def desk() -> Desk:
    found: Desk = current_app.extensions[EXTENSION]
    return found


def now() -> datetime:
    return desk().clock()


@contextmanager
def reading() -> Iterator[Session]:
    with desk().services.database.snapshot() as session:
        yield session


@contextmanager
def writing() -> Iterator[Session]:
    with desk().services.database.transaction() as session:
        yield session


def operator() -> SignedIn:
    """Who is signed in; the guard lets nobody else come to a view that asks."""
    assert isinstance(g.operator, SignedIn)
    return g.operator


def noted(session: Session, what: str, subject: str, **details: Any) -> None:
    """Note in the audit trail what the signed-in operator looked up or did; in the same transaction."""
    audit.record(session, who(operator().name), what, subject, now(), **details)


def who(name: str) -> str:
    """An operator of the console, for the audit trail; those of the command line are its users."""
    return f"operator {name} (console)"


def words() -> Words:
    return cast(Words, g.words)


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A page in the reader's language; ``t`` are its words."""
    given = {
        "t": words(), "operator": g.get("operator"), "Role": Role, "scrub": scrub, "plain": plain, "last4": last4,
        **values,
    }  # fmt: skip
    return make_response(render_template(f"desk/{template}.html", **given), status)


def back(endpoint: str, *, said: str = "", error: str = "", **where: Any) -> Response:
    """On to a page by GET, which says first what came of the post: keys of words."""
    if said:
        flash(said, "said")
    if error:
        flash(error, "error")
    return cast(Response, redirect(url_for(f"desk.{endpoint}", **where), 303))


def plain(value: Any) -> str:
    """A record's details on a line, with everything masked that could be a card number."""
    given = scrub_value(value)
    if isinstance(given, dict):
        return ", ".join(f"{name}: {_json(one)}" for name, one in given.items())
    return _json(given)


def last4(address: str) -> str:
    """A telephone number or an e-mail address, of which nobody needs more to know it again."""
    if "@" in address:
        name, _, host = address.rpartition("@")
        return f"{name[:1]}•••@{host}"
    return f"•••• {address[-4:]}"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
