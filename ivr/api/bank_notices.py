"""``POST /bank/notices``: the bank tells that it is about to debit, and is answered whether it may.

Served with the calls, or by processes of its own: ``gunicorn --threads 32 'ivr.api.bank_notices:create_app()'``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import redis
import structlog
from flask import Blueprint, Flask, Response, current_app, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import RequestEntityTooLarge

from ivr import log as logs
from ivr.clock import utc_now
from ivr.keys import Keyring
from ivr.payments.notices import Confirmations, Notice, NotKnownYet
from ivr.payments.pending import Debit, PendingDebits
from ivr.payments.processor import IdempotencyConflict
from ivr.settings import Settings
from ivr.settings import settings as process_settings
from ivr.store import redis as store_redis
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from ivr.webhooks.signature import BadSignature, signed_headers, verified

LONGEST_BODY_BYTES = 16 * 1024


def _whole(value: Any) -> Any:
    """In JSON 4210.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]

log = structlog.get_logger(__name__)
blueprint = Blueprint("bank_notices", __name__)


class NoSecret(Exception):
    """No bank's messages can be told from a stranger's."""


class NoticeBody(BaseModel):
    """What the bank is about to debit. Errors do not repeat it: a card number may have got in."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    merchant: str = Field(min_length=1, max_length=200)
    card_token: _Name = Field(repr=False)
    amount_minor: Annotated[int, BeforeValidator(_whole)] = Field(ge=1, le=10**15)
    currency: str = Field(pattern="^[A-Z]{3}$")
    reference: _Name | None = None


@dataclass(frozen=True)
class Desk:
    """What the view works with."""

    bank: str
    secret: str = field(repr=False)
    confirmations: Confirmations


def install(app: Flask, settings: Settings, confirmations: Confirmations) -> None:
    """Add the endpoint. The settings name the secret that the bank signs with."""
    assert settings.bank_notice_secret is not None
    app.extensions["ivr.notices"] = Desk(settings.bank, settings.bank_notice_secret.get_secret_value(), confirmations)
    app.register_blueprint(blueprint)


def create_app(settings: Settings | None = None) -> Flask:
    """An application of this endpoint alone. Raises NoSecret."""
    logs.configure()
    settings = settings or process_settings()
    if settings.bank_notice_secret is None:
        raise NoSecret("set IVR_BANK_NOTICE_SECRET to what you share with the bank")
    database = Database(settings.sqlalchemy_url())
    upgrade(database)
    pending = PendingDebits(store_redis.connect(settings), Keyring.load(settings))
    app = Flask(__name__)
    install(app, settings, Confirmations(database, pending, utc_now))
    return app


@blueprint.post("/bank/notices")
def notices() -> Response:
    desk: Desk = current_app.extensions["ivr.notices"]
    request.max_content_length = LONGEST_BODY_BYTES
    try:
        body = request.get_data()
        notice_id = verified(desk.secret, request.headers, body, utc_now())
        debit = Debit(**NoticeBody.model_validate_json(body).model_dump())
        answer = desk.confirmations.answer(Notice(notice_id, desk.bank, debit))
    except RequestEntityTooLarge:
        return _problem(413, "too_long", f"a notice has {LONGEST_BODY_BYTES} bytes at most")
    except BadSignature:
        log.warning("notice without a valid signature")
        return _problem(401, "bad_signature", "not signed by this secret, or more than five minutes old or early")
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        return _problem(422, "invalid_notice", logs.scrub(said))
    except IdempotencyConflict:
        return _problem(409, "notice_differs", "this id came before, with another debit")
    except NotKnownYet:
        return _problem(503, "not_known_yet", "pending payments are being read in; send the notice again")
    except (redis.RedisError, SQLAlchemyError) as error:
        log.error("notice not answered", notice=notice_id, error=type(error).__name__)
        return _problem(503, "unavailable", "no decision was made; send the notice again")
    return _signed(desk.secret, notice_id, answer)


def _signed(secret: str, notice_id: str, answer: Mapping[str, Any]) -> Response:
    body = json.dumps(answer).encode()
    response = Response(body, mimetype="application/json")
    response.headers.update(signed_headers(secret, notice_id, int(utc_now().timestamp()), body))
    return response


def _problem(status: int, code: str, message: str) -> Response:
    response = Response(json.dumps({"error": {"code": code, "message": message}}), status, mimetype="application/json")
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response
