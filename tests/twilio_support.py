"""A stand-in for Twilio's API, made from an excerpt of its public OpenAPI description.

It serves the description's own examples, refuses what the description does not know (paths, parameters, their types)
and keeps the one number of the account, changed by what is posted.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs

SPEC = json.loads((Path(__file__).parent / "twilio_openapi.json").read_text())
SID, TOKEN, NUMBER = "AC" + "0" * 31 + "1", "t0ken-" * 6, "+15035550123"


def example(path: str, name: str) -> Any:
    content = SPEC["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    return json.loads(json.dumps(content["examples"][name]["value"]))


class Twilio:
    """``number`` is the resource as it stands; ``posts`` what was changed; ``account`` and ``voice`` what is told."""

    def __init__(self) -> None:
        paths = list(SPEC["paths"])
        self.one, self.all, self.accounts, self.recordings, self.settings = (
            next(path for path in paths if path.endswith(end))
            for end in (
                "IncomingPhoneNumbers/{Sid}.json", "IncomingPhoneNumbers.json", "Accounts/{Sid}.json",
                "Recordings.json", "Voice/Settings",
            )
        )  # fmt: skip
        self.number = example(self.one, "fetch") | {"phone_number": NUMBER, "trunk_sid": None}
        self.number |= {"voice_application_sid": None, "sms_application_sid": None}
        self.account = example(self.accounts, "fetch") | {"status": "active"}
        self.voice = example(self.settings, "fetch") | {"voice_trace": False}
        self.recorded: list[Any] = []
        self.posts: list[dict[str, str]] = []
        self.faults: list[str] = []
        self.url = ""

    def answer(self, method: str, url: str, authorization: str, body: str) -> tuple[int, Any]:
        parts = urlsplit(url)
        operation, path = self._operation(method, parts.path)
        if operation is None:
            return 404, {"code": 20404, "message": "not described", "status": 404}
        if base64.b64decode(authorization.removeprefix("Basic ")).decode() != f"{SID}:{TOKEN}":
            return 401, {"code": 20003, "message": "Authenticate", "status": 401}
        query, form = dict(parse_qsl(parts.query)), dict(parse_qsl(body, keep_blank_values=True))
        described = {p["name"]: p["schema"] for p in operation.get("parameters", []) if p["in"] == "query"}
        self._check(query, described)
        content = operation.get("requestBody", {}).get("content", {})
        self._check(form, content.get("application/x-www-form-urlencoded", {}).get("schema", {}).get("properties", {}))
        if self.faults:
            return 400, {"code": 20001, "message": "; ".join(self.faults), "status": 400}
        return 200, self._carry_out(method, path, query, form)

    def _carry_out(self, method: str, path: str, query: dict[str, str], form: dict[str, str]) -> Any:
        if path == self.one and method == "post":
            self.posts.append(form)
            for name, value in form.items():
                field = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
                assert field in self.number, field
                self.number[field] = {"True": True, "False": False, "true": True, "false": False}.get(value, value)
        if path == self.all:
            found = [self.number] if query.get("PhoneNumber") in (None, self.number["phone_number"]) else []
            return example(self.all, "readEmpty") | {"incoming_phone_numbers": found}
        if path == self.recordings:
            return example(path, "readFull" if self.recorded else "readEmpty")
        return {self.one: self.number, self.accounts: self.account, self.settings: self.voice}[path]

    def _operation(self, method: str, asked: str) -> tuple[Any, str]:
        for path, methods in SPEC["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/.]+", path), asked) and method in methods:
                return methods[method], path
        return None, ""

    def _check(self, given: dict[str, str], described: dict[str, Any]) -> None:
        for name, value in given.items():
            if name not in described:
                self.faults.append(f"{name} is no parameter")
                continue
            schema = described[name]
            typed: Any = value
            if schema.get("type") == "boolean" and value.lower() in ("true", "false"):
                typed = value.lower() == "true"
            if schema.get("type") == "integer" and value.isdigit():
                typed = int(value)
            if value != "" and not jsonschema_rs.is_valid(schema, typed):
                self.faults.append(f"{name} may not be {value}")

    @contextmanager
    def running(self) -> Iterator[Twilio]:
        twilio = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                given = self.command.lower(), self.path, self.headers.get("Authorization", ""), body
                status, document = twilio.answer(*given)
                payload = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = _serve

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
