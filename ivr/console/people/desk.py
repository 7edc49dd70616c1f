"""What every view works with: the service's parts, who is signed in, her language, and answering with a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from flask import Blueprint, Response, current_app, flash, g, make_response, redirect, render_template, request, url_for
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.orm import Session

from ivr.approval import verify
from ivr.console.people.sessions import Person
from ivr.console.people.words import Words
from ivr.keys import Keyring
from ivr.services import Services

PREFIX, EXTENSION = "/my", "ivr.people"

blueprint = Blueprint("people", __name__, url_prefix=PREFIX, template_folder="templates", static_folder="static")


@dataclass(frozen=True)
class Desk:
    """Of one process."""

    services: Services
    keyring: Keyring
    clock: Callable[[], datetime]
    csrf: CSRFProtect
    secure: bool  # whether the pages are reached over https


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


@contextmanager
def store() -> Iterator[Session]:
    """To write when something is posted, to read else."""
    with writing() if request.method == "POST" else reading() as session:
        yield session


def person() -> Person:
    """Who is signed in; the guard lets nobody else come to a view that asks."""
    assert isinstance(g.person, Person)
    return g.person


def who() -> str:
    """The signed-in person, for the audit trail."""
    return f"customer {person().customer_id}"


def words() -> Words:
    return cast(Words, g.words)


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A page in the reader's language; ``t`` are its words."""
    given = {"t": words(), "person": g.get("person"), **values}
    return make_response(render_template(f"people/{template}.html", **given), status)


def back(endpoint: str, *, said: str = "", error: str = "", **where: Any) -> Response:
    """On to a page by GET, which says first what came of the post: keys of words."""
    if said:
        flash(said, "said")
    if error:
        flash(error, "error")
    return cast(Response, redirect(url_for(f"people.{endpoint}", **where), 303))


def refusal(session: Session, ward_id: str | None = None) -> str:
    """Why the post in hand is not the signed-in person's own will: a key of words; empty when her PIN proves it.

    A wrong PIN is counted: commit in any case. ``ward_id``: whose payments it is about; what was ever signed in
    to from the ward's own browser is not taken for another's will.
    """
    who = person()
    if ward_id is not None and ward_id != who.customer_id and verify.shares_device(session, who.device, ward_id):
        return "error.shared_device"
    pin = request.form.get("pin", "")
    if not verify.by_pin(session, who.customer_id, pin, desk().keyring, "page", now()):
        return "error.pin"
    return ""
