"""The sandbox bank over HTTP: JSON in, JSON out, errors as ``{"error": {"code", "message"}}``.

=============================== ====================================== ================================
POST /accounts                  pan, name, balance_minor               token, brand, last4
POST /tokens                    pan, exp_year, exp_month               token, brand, last4
GET  /tokens/TOKEN                                                     token, brand, last4
POST /authorisations            token, amount_minor, currency,         the authorisation
                                reference, merchant
POST /authorisations/ID/capture amount_minor (default: the whole)      the authorisation
POST /authorisations/ID/void                                           the authorisation
POST /authorisations/ID/refund  amount_minor                           the refund
GET  /authorisations?key=KEY                                           the authorisation, or 404
GET  /authorisations/ID                                                the authorisation, or 404
GET  /references/REFERENCE                                             the authorisation, or 404
GET  /statement?after=NEXT                                             lines, and the next page
GET  /customers/ID              (no key)                               a page on which the customer agrees
GET  /_books                                                           accounts, authorisations, captures, refunds,
                                                                       notices
POST /_control                  latency_ms, answer_delay_ms, fail,     what is in force
                                lose, decline, hold_s, unasked
=============================== ====================================== ================================

The POSTs on authorisations need an ``Idempotency-Key``. ``/_control`` replaces everything that was in force:
``latency_ms`` waits before a request is booked, ``answer_delay_ms`` after it; ``{"fail": {"authorise": 2}}``
answers 503 twice and books nothing; ``lose`` books first and answers 503 then;
``{"decline": {"authorise": "blocked"}}`` declines every authorisation; ``hold_s`` is how long what is authorised
from now on is held; with ``unasked`` the bank posts it by itself. Operations: tokenise, authorise, capture, void,
refund, look_up.

With ``--confirm-at URL`` nothing is posted before that URL confirmed it: see ``confirming``.
"""

from __future__ import annotations

import hmac
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from flask import Flask, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ivr.payments.bank import DeclineReason
from ivr.payments.sandbox.books import (
    AUTHORISATION_LIFE,
    DEFAULT_BALANCE_MINOR,
    BookError,
    Books,
    Row,
    agree,
    authorise,
    capture,
    error_body,
    refund,
    void,
)
from ivr.payments.sandbox.confirming import Confirming

Operation = Literal["tokenise", "authorise", "capture", "void", "refund", "look_up"]
LONGEST_KEY = 128
_DelayMs = Annotated[int, Field(ge=0, le=60_000)]
_Amount = Annotated[int, Field(gt=0, le=10**15)]


class _Request(BaseModel):
    # Errors must not repeat what was sent: it may be a card number.
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class NewAccount(_Request):
    pan: str = Field(repr=False)
    name: str = ""
    balance_minor: int = Field(DEFAULT_BALANCE_MINOR, ge=0, le=10**15)


class CardDetails(_Request):
    pan: str = Field(repr=False)
    exp_year: int = Field(ge=2000, le=2100)
    exp_month: int = Field(ge=1, le=12)


class NewAuthorisation(_Request):
    token: str
    amount_minor: _Amount
    currency: str = Field(pattern="^[A-Z]{3}$")
    reference: str = Field(min_length=1, max_length=128)
    merchant: str = Field("", max_length=200)
    channel: Literal["telephone", "web"] = "telephone"


class NewCapture(_Request):
    amount_minor: _Amount | None = None


class NewRefund(_Request):
    amount_minor: _Amount


class Control(_Request):
    model_config = ConfigDict(strict=False)

    latency_ms: _DelayMs = 0
    answer_delay_ms: _DelayMs = 0
    fail: dict[Operation, int] = {}
    lose: dict[Operation, int] = {}
    decline: dict[Literal["authorise"], DeclineReason] = {}
    hold_s: Annotated[float, Field(gt=0, le=AUTHORISATION_LIFE.total_seconds())] = AUTHORISATION_LIFE.total_seconds()
    unasked: bool = False


class Switchboard:
    """The control in force, and how many failures of it are left."""

    def __init__(self) -> None:
        self.control = Control()
        self._lock = threading.Lock()

    def answer(self, operation: Operation, work: Callable[[], tuple[int, Row]]) -> tuple[Response, int]:
        """Do the work, with the delay and the failure that are in force."""
        control = self.control
        time.sleep(control.latency_ms / 1000)
        if self._spend(control.fail, operation):
            raise _unavailable()
        status, body = work()
        time.sleep(control.answer_delay_ms / 1000)
        if self._spend(control.lose, operation):
            raise _unavailable()
        return jsonify(_shown(body)), status

    def _spend(self, failures: dict[Operation, int], operation: Operation) -> bool:
        with self._lock:
            left = failures.get(operation, 0)
            failures[operation] = max(0, left - 1)
            return left > 0


def create_app(books: Books, api_key: str, confirming: Confirming | None = None) -> Flask:
    """The bank over these books, for callers who send this key; ``confirming`` is asked before each debit."""
    app = Flask(__name__)
    switchboard = Switchboard()
    _answer_errors(app)

    @app.before_request
    def authenticate() -> None:
        key = request.headers.get("X-Api-Key", "").encode()
        if request.endpoint != "customer" and not hmac.compare_digest(key, api_key.encode()):
            raise BookError(401, "unauthorised", "the header X-Api-Key is missing or wrong")

    @app.post("/accounts")
    def accounts() -> tuple[Response, int]:
        new = NewAccount.model_validate(_json())
        return jsonify(books.open_account(new.pan, new.name, new.balance_minor)), 201

    @app.post("/tokens")
    def tokens() -> tuple[Response, int]:
        card = CardDetails.model_validate(_json())
        today = datetime.now(UTC)
        if (card.exp_year, card.exp_month) < (today.year, today.month):
            raise BookError(422, "invalid_card", "the card has expired")
        return switchboard.answer("tokenise", lambda: (201, books.open_account(card.pan)))

    @app.get("/tokens/<token>")
    def token_card(token: str) -> Response:
        return jsonify(books.token(token))

    @app.post("/authorisations")
    def authorisations() -> tuple[Response, int]:
        wanted, key = NewAuthorisation.model_validate(_json()).model_dump(exclude={"channel"}), _idempotency_key()
        control = switchboard.control
        decline, life = control.decline.get("authorise"), timedelta(seconds=control.hold_s)

        def work() -> tuple[int, Row]:
            status, body = books.once(
                key, {"authorise": wanted}, lambda db: authorise(db, key=key, decline=decline, life=life, **wanted)
            )
            if control.unasked and body.get("status") == "authorised":
                threading.Thread(target=post_unasked, args=[body["id"]], daemon=True).start()
            return status, body

        return switchboard.answer("authorise", work)

    def post(identifier: str, amount_minor: int | None, key: str) -> tuple[int, Row]:
        if confirming:
            confirming.ask(identifier, amount_minor)
        asked = {"capture": identifier, "amount_minor": amount_minor}
        return books.once(key, asked, lambda db: capture(db, identifier, amount_minor))

    def post_unasked(identifier: str) -> None:
        with suppress(BookError):
            post(identifier, None, f"unasked:{identifier}")

    @app.post("/authorisations/<identifier>/capture")
    def captures(identifier: str) -> tuple[Response, int]:
        wanted, key = NewCapture.model_validate(_json() if request.content_length else {}), _idempotency_key()
        return switchboard.answer("capture", lambda: post(identifier, wanted.amount_minor, key))

    @app.post("/authorisations/<identifier>/void")
    def voids(identifier: str) -> tuple[Response, int]:
        key = _idempotency_key()
        return switchboard.answer(
            "void", lambda: books.once(key, {"void": identifier}, lambda db: void(db, identifier))
        )

    @app.post("/authorisations/<identifier>/refund")
    def refunds(identifier: str) -> tuple[Response, int]:
        amount_minor, key = NewRefund.model_validate(_json()).amount_minor, _idempotency_key()
        asked = {"refund": identifier, "amount_minor": amount_minor}
        return switchboard.answer(
            "refund", lambda: books.once(key, asked, lambda db: refund(db, identifier, amount_minor))
        )

    @app.get("/authorisations")
    def look_up() -> tuple[Response, int]:
        key = request.args.get("key", "")
        if not 1 <= len(key) <= LONGEST_KEY:
            raise BookError(422, "invalid_request", "the query needs a key of 1 to 128 characters")
        return switchboard.answer("look_up", lambda: (200, books.standing("key", key)))

    @app.get("/authorisations/<identifier>")
    def authorisation_now(identifier: str) -> Response:
        return jsonify(_shown(books.standing("id", identifier)))

    @app.get("/references/<reference>")
    def find(reference: str) -> Response:
        return jsonify(_shown(books.standing("reference", reference)))

    @app.get("/statement")
    def statement() -> Response:
        after = request.args.get("after", "0")
        if not re.fullmatch(r"\d{1,15}", after, re.ASCII):
            raise BookError(422, "invalid_request", "after is what the last page called next")
        return jsonify(books.statement(int(after)))

    @app.route("/customers/<identifier>", methods=["GET", "POST"])
    def customer(identifier: str) -> str:
        if request.method == "POST":
            with books.transaction() as db:
                agree(db, identifier)
            return "Thank you. You can close this page."
        asked = books.standing("id", identifier)
        return f"<form method=post>Pay {asked['amount_minor']} minor units? <button>Yes</button></form>"

    @app.get("/_books")
    def everything() -> Response:
        return jsonify(books.everything())

    @app.post("/_control")
    def control() -> Response:
        switchboard.control = Control.model_validate(_json())
        return jsonify(switchboard.control.model_dump())

    return app


def _answer_errors(app: Flask) -> None:
    @app.errorhandler(BookError)
    def refused(error: BookError) -> tuple[Response, int]:
        return jsonify(error_body(error)), error.status

    @app.errorhandler(ValidationError)
    def invalid(error: ValidationError) -> tuple[Response, int]:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        return refused(BookError(422, "invalid_request", said))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        code = error.name.lower().replace(" ", "_")
        response, status = refused(BookError(error.code or 500, code, error.description or error.name))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response, status


def _shown(body: Row) -> Row:
    """With the page on which the customer must agree."""
    if body.get("status") != "customer_needed":
        return body
    return body | {"customer_url": f"{request.host_url}customers/{body['id']}"}


def _json() -> Any:
    return request.get_json(force=True)


def _idempotency_key() -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not 1 <= len(key) <= LONGEST_KEY:
        raise BookError(400, "idempotency_key_missing", "the header Idempotency-Key is missing or too long")
    return key


def _unavailable() -> BookError:
    return BookError(503, "unavailable", "the bank cannot answer now")
