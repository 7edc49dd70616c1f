"""What the views of the one-time pages work with, besides what they share with the pages under ``/my``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from flask import Blueprint, Response, current_app, flash, g, make_response, redirect, render_template, request

from ivr.console.people.words import Words
from ivr.onetime import PREFIX
from ivr.payments.bank import Bank

EXTENSION = "ivr.pay"
HERE = Path(__file__).parent

blueprint = Blueprint("pay", __name__, url_prefix=PREFIX, template_folder="templates")


def bank() -> Bank:
    """Never asked while a transaction is open."""
    found: Bank = current_app.extensions[EXTENSION]
    return found


def words() -> Words:
    return cast(Words, g.words)


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A page in the language that the browser asks for; ``t`` are its words."""
    return make_response(render_template(f"pay/{template}.html", t=words(), person=None, **values), status)


def back(*, error: str = "") -> Response:
    """To the same page by GET, which says first what was wrong: a key of words."""
    if error:
        flash(error, "error")
    return cast(Response, redirect(request.path, 303))
