"""What every operation of the API goes through: key, scope, rate, reading, idempotency, one transaction, answering.

An operation is a function of a :class:`Call` and of what was sent, under :func:`operation`; the table of all of them
makes the routes, the OpenAPI description and the tests' walk over every endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import redis
import structlog
from flask import Blueprint, Response, current_app, json, request
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from ivr.api import keys, problems
from ivr.api.limits import RateLimit
from ivr.api.models import ApiKey
from ivr.api.responses import answer, refusal
from ivr.api.shapes import PREFIX
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant
from ivr.keys import Keyring
from ivr.log import scrub
from ivr.payments.bank import Capabilities
from ivr.payments.processor import IdempotencyConflict, PaymentError, execute
from ivr.services import Services
from ivr.store.db import UNAVAILABLE

EXTENSION = "ivr.api"
LONGEST_BODY_BYTES = 16 * 1024
ROW_ID = re.compile(r"[0-9a-f]{16}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{8,64}")

log = structlog.get_logger(__name__)
blueprint = Blueprint("api", __name__, url_prefix=PREFIX)


@dataclass(frozen=True)
class Desk:
    """What the operations of one process work with."""

    services: Services
    keyring: Keyring
    clock: Callable[[], datetime]
    limit: RateLimit
    capabilities: Capabilities  # of the bank


@dataclass(frozen=True)
class Call:
    """One request of a merchant's program, with the transaction that it runs in."""

    desk: Desk
    session: Session
    merchant: Merchant
    key: ApiKey
    now: datetime
    path: Mapping[str, str] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """For the audit trail."""
        return f"merchant {self.merchant.id}"


View = Callable[[Call, Any], BaseModel | None]
Reveal = Callable[[Call, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Operation:
    """One method of one path. ``sent`` is the body of a POST, or the query of a GET.

    ``reveal`` adds to the answer what may not be stored with it: secrets that are made from ids and keys.
    ``links``: operations that take this answer's ``id`` as their path's parameter.
    """

    method: str
    path: str
    scope: str
    view: View
    sent: type[BaseModel] | None
    returns: type[BaseModel] | None
    status: int
    problems: tuple[type[problems.Problem], ...]
    links: tuple[str, ...] = ()
    longest: int = LONGEST_BODY_BYTES
    reveal: Reveal | None = None
    weight: Callable[[Any], int] = lambda _sent: 1

    @property
    def name(self) -> str:
        return self.view.__name__

    @property
    def summary(self) -> str:
        return (self.view.__doc__ or "").split("\n")[0]

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)


OPERATIONS: list[Operation] = []
V = TypeVar("V", bound=View)


def operation(
    method: str,
    path: str,
    scope: str,
    *,
    sent: type[BaseModel] | None = None,
    returns: type[BaseModel] | None = None,
    status: int = 200,
    problems: tuple[type[problems.Problem], ...] = (),
    **more: Any,
) -> Callable[[V], V]:
    """Make a function an operation of the API; see :class:`Operation`."""
    assert scope in keys.SCOPES

    def add(view: V) -> V:
        found = Operation(method, path, scope, view, sent, returns, status, problems, **more)
        OPERATIONS.append(found)
        rule = re.sub(r"{(\w+)}", r"<\1>", path)
        blueprint.add_url_rule(rule, found.name, lambda **path: _serve(found, path), methods=[method])
        return view

    return add


@dataclass(frozen=True)
class _Asked:
    """An operation as a command of the one processor: carried out once for its idempotency key."""

    name: ClassVar[str] = "api"
    operation: str
    path: Mapping[str, str]
    sent: Mapping[str, Any]
    carry_out: Callable[[], dict[str, Any]] = field(compare=False, repr=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        return self.carry_out()


def api_desk() -> Desk:
    found: Desk = current_app.extensions[EXTENSION]
    return found


def _serve(found: Operation, path: dict[str, str]) -> Response:
    try:
        return _answer(found, path)
    except problems.Problem as problem:
        return refusal(problem)
    except (redis.RedisError, *UNAVAILABLE) as error:
        log.error("request not answered", operation=found.name, error=type(error).__name__)
        told = "whether it was carried out is not known; send the same request again, with its Idempotency-Key"
        return refusal(problems.Unavailable(told, {"Retry-After": "1"}))
    except IntegrityError:
        return refusal(problems.NotNow("another request did the same at this moment; send it again"))


def _answer(found: Operation, path: dict[str, str]) -> Response:
    desk = api_desk()
    database = desk.services.database
    with database.snapshot() as session:
        key, merchant = _caller(session, found)
    sent = _read(found)  # in no transaction: a slow sender keeps nobody waiting
    if (weight := found.weight(sent)) > desk.limit.most:  # for which no wait would ever be long enough
        raise problems.Invalid(f"this counts as {weight} requests, and a key has {desk.limit.most} at once: send fewer")
    counted = desk.limit.count(key.id, weight)
    rate = {"RateLimit-Limit": str(desk.limit.most), "RateLimit-Remaining": str(max(0, counted.left))}
    if counted.too_many:
        wait_s = str(max(1, counted.reset_s))
        raise problems.TooMany(f"wait {wait_s} s", rate | {"Retry-After": wait_s})
    if not all(ROW_ID.fullmatch(value) for value in path.values()):
        raise problems.NotFound("there is nothing of yours with this id")
    with database.transaction() if found.writes else database.snapshot() as session:
        call = Call(desk, session, merchant, key, desk.clock(), path)
        document = _once(found, call, sent) if found.method == "POST" else _carry_out(found, call, sent)
        if found.reveal:
            document = found.reveal(call, document)
    if found.returns is None:
        return Response(status=204, headers=rate)
    return Response(json.dumps(document), found.status, rate, mimetype="application/json")


def _caller(session: Session, found: Operation) -> tuple[ApiKey, Merchant]:
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    known = keys.check(session, shown.strip()) if scheme.lower() == "bearer" else None
    if known is None:
        raise problems.NoKey("send Authorization: Bearer and a key that is not revoked", {"WWW-Authenticate": "Bearer"})
    if found.scope not in known[0].scopes:
        raise problems.NoScope(f"this needs a key with the scope {found.scope}")
    return known


def _read(found: Operation) -> BaseModel | None:
    if found.sent is None:
        return None
    try:
        if found.method == "GET":
            if repeated := [name for name, values in request.args.lists() if len(values) > 1]:
                raise problems.Invalid(f"{len(repeated)} parameters came twice")
            return found.sent.model_validate(request.args.to_dict())
        request.max_content_length = found.longest
        if request.mimetype != "application/json":
            raise problems.WrongType("send Content-Type: application/json")
        return found.sent.model_validate_json(request.get_data() or b"{}")
    except RequestEntityTooLarge:
        raise problems.TooLong(f"a request of this kind has {found.longest} bytes at most") from None
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        if any(fault["type"] == "json_invalid" for fault in faults):
            raise problems.BadRequest("the body is no JSON") from None
        # A name that was sent may be a card number too.
        told = [{"where": scrub(".".join(map(str, fault["loc"])))[:200], "what": fault["msg"]} for fault in faults[:20]]
        raise problems.Invalid("; ".join(f"{f['where']}: {f['what']}" for f in told)[:500], faults=told) from None


def _once(found: Operation, call: Call, sent: BaseModel | None) -> dict[str, Any]:
    key = request.headers.get("Idempotency-Key", "")
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise problems.Invalid("send Idempotency-Key: 8 to 64 printable characters, new for each new request")
    return once(found.name, call, sent, key, lambda: _carry_out(found, call, sent))


def once(
    name: str, call: Call, sent: BaseModel | None, key: str, carry_out: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Carry out, once for this merchant's key; the same request is given the first answer. Raises Problem."""
    asked = _Asked(name, dict(call.path), sent.model_dump(mode="json") if sent else {}, carry_out)
    try:
        return execute(call.session, asked, key=f"api:{call.merchant.id}:{key}", who=call.who, now=call.now)
    except IdempotencyConflict:
        raise problems.KeyUsed("this Idempotency-Key came before, with another request") from None


def _carry_out(found: Operation, call: Call, sent: BaseModel | None) -> dict[str, Any]:
    return carried_out(lambda: found.view(call, sent))


def carried_out(view: Callable[[], BaseModel | None]) -> dict[str, Any]:
    """What a view gives, as it is stored and sent. Raises Problem."""
    try:
        given = view()
    except InvalidInput as error:
        raise problems.Invalid(str(error)) from None
    except PaymentError as error:
        raise problems.NotNow(str(error)) from None
    return given.model_dump(mode="json") if given is not None else {}


@blueprint.errorhandler(InternalServerError)
def fault_of_ours(error: InternalServerError) -> HTTPException | Response:
    """Flask has logged the traceback."""
    return http_error(error)


@blueprint.after_request
def never_kept(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def http_error(error: HTTPException) -> HTTPException | Response:
    """404, 405 and what Flask itself refuses under the API's paths, in the API's form."""
    if not request.path.startswith(f"{PREFIX}/"):
        return error
    document = {
        "type": f"urn:pay-by-voice:problem:http_{error.code}",
        "title": error.name,
        "status": error.code or 500,
        "code": f"http_{error.code}",
        "detail": "see the description under /v1/openapi.json",
    }
    allowed = getattr(error, "valid_methods", None)
    return answer(document, error.code or 500, {"Allow": ", ".join(sorted(allowed))} if allowed else None)
