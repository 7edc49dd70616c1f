"""The OpenAPI 3.1 description, made from the table of operations and their models."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ivr.api import problems
from ivr.api.operations import OPERATIONS, Operation
from ivr.api.shapes import PREFIX, AppChargeAnswer, PaymentMessage, PurchaseMessage
from ivr.speech import decode

VERSION = "1.0.0"
_REF = "#/components/schemas/"
MESSAGES: dict[str, type[BaseModel]] = {"payment": PaymentMessage, "purchase": PurchaseMessage}
"""What we send to webhooks."""

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457: what went wrong, and what to do.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; for programs."},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
}
_ROW_ID = {"type": "string", "pattern": "^[0-9a-f]{16}$"}


def description(public_url: str | None) -> dict[str, Any]:
    """The document that is served, for the operations that are loaded."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((op.sent, "validation") for op in OPERATIONS if op.sent and op.writes),
        *((op.returns, "serialization") for op in OPERATIONS if op.returns),
        (AppChargeAnswer, "serialization"),
        *((model, "serialization") for model in MESSAGES.values()),
    ]
    refs, defined = models_json_schema(list(dict.fromkeys(models)), ref_template=_REF + "{model}")
    paths: dict[str, Any] = {}
    for op in OPERATIONS:
        paths.setdefault(PREFIX + op.path, {})[op.method.lower()] = _operation(op, refs)
    schemas = dict(sorted(defined.get("$defs", {}).items()))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pay by voice",
            "version": VERSION,
            "description": "Bills, payments, purchases and charges by voice, for merchants' programs.",
        },
        "servers": [{"url": (public_url or "").rstrip("/") or "/"}],
        "security": [{"key": []}],
        "paths": paths | _from_apps(refs),
        "webhooks": {name: _message(model, refs) for name, model in MESSAGES.items()},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas | {"Problem": _PROBLEM},
        },
    }


def _operation(op: Operation, refs: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": op.name,
        "summary": op.summary,
        "tags": [op.path.split("/")[1].split(":")[0]],
        "security": [{"key": [op.scope]}],
        "parameters": [*map(_in_path, op.parameters), *_in_query(op)],
        "responses": _responses(op, refs),
    }
    if op.method == "POST":
        described["parameters"].append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "schema": {"type": "string", "pattern": "^[!-~]{8,64}$"},
                "description": "New for each new request; a request sent again with it is answered as at first.",
            }
        )
    if op.sent and op.writes:
        content = {"application/json": {"schema": refs[op.sent, "validation"]}}
        most = f"At most {op.longest // 1024} KiB."
        described["requestBody"] = {"required": True, "description": most, "content": content}
    return described


def _from_apps(refs: Any) -> dict[str, Any]:
    """What apps do at the addresses that come with a charge; those hold a token of it, and need no key."""
    token = {
        "name": "token",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~]+$"},
        "description": "Comes with the address.",
    }
    refused = (problems.NotFound, problems.Unavailable)
    voice = {
        "operationId": "answer_app_charge",
        "summary": "Send a recording of what she said; the address is the `upload_url` of the charge.",
        "requestBody": {
            "required": True,
            "description": f"At most {decode.LONGEST_BODY_BYTES // 1024**2} MiB and {decode.LONGEST_S} s.",
            "content": dict.fromkeys(("audio/wav", "audio/flac", "audio/ogg", "audio/L16"), {}),
        },
        "responses": {
            "200": {
                "description": HTTPStatus.OK.phrase,
                "content": {"application/json": {"schema": refs[AppChargeAnswer, "serialization"]}},
            },
            **_refusals({*refused, problems.TooLong, problems.WrongType, problems.Invalid, problems.TooMany}),
        },
    }
    prompt = {
        "operationId": "get_app_prompt",
        "summary": "Your own recording, to be played first; the address is the `audio_url` of the charge.",
        "responses": {
            "200": {"description": HTTPStatus.OK.phrase, "content": {"audio/*": {}}},
            **_refusals(set(refused)),
        },
    }
    common = {"tags": ["app-charges"], "security": [], "parameters": [_in_path("charge_id"), token]}
    at = f"{PREFIX}/app-charges/{{charge_id}}"
    return {f"{at}/voice": {"post": common | voice}, f"{at}/prompt": {"get": common | prompt}}


def _message(model: type[BaseModel], refs: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": f"{model.__name__[0].lower()}{model.__name__[1:]}",
        "summary": (model.__doc__ or "").split("\n")[0],
        "description": "To the URLs of `/v1/webhooks`, signed as Standard Webhooks 1.0 says, until it is taken.",
        "security": [],
        "parameters": [_in_header(name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": refs[model, "serialization"]}},
        },
        "responses": {"2XX": {"description": "Taken; anything else, and it comes again."}},
    }
    return {"post": told}


def _in_header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _ROW_ID}


def _in_query(op: Operation) -> list[dict[str, Any]]:
    if op.writes or op.sent is None:
        return []
    schema = op.sent.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "schema": {key: value for key, value in found.items() if key not in ("title", "description")},
            "description": found.get("description", ""),
        }
        for name, found in schema["properties"].items()
    ]


def _responses(op: Operation, refs: Any) -> dict[str, Any]:
    done: dict[str, Any] = {"description": HTTPStatus(op.status).phrase}
    if op.returns:
        done["content"] = {"application/json": {"schema": refs[op.returns, "serialization"]}}
    if op.links:
        done["links"] = {name: _link(name) for name in op.links}
    return {str(op.status if op.returns else 204): done} | _refusals(_problems(op))


def _refusals(refused: set[type[problems.Problem]]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for problem in sorted(refused, key=lambda problem: (problem.status, problem.code)):
        found = responses.setdefault(
            str(problem.status),
            {"description": "", "content": {problems.MEDIA_TYPE: {"schema": {"$ref": f"{_REF}Problem"}}}},
        )
        found["description"] = "; ".join(filter(None, [found["description"], f"{problem.title} (`{problem.code}`)"]))
    return responses


def _problems(op: Operation) -> set[type[problems.Problem]]:
    found = {*problems.ALWAYS, *op.problems}
    if op.sent:
        found |= {problems.Invalid, *(problems.SENDING if op.writes else ())}
    if op.method == "POST":
        found |= {problems.Invalid, problems.KeyUsed}  # without an Idempotency-Key, or with one that was used
    if op.parameters:
        found.add(problems.NotFound)
    return found


def _link(name: str) -> dict[str, Any]:
    (following,) = [op for op in OPERATIONS if op.name == name]
    return {"operationId": name, "parameters": dict.fromkeys(following.parameters, "$response.body#/id")}
