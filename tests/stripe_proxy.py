"""What Stripe documents and localstripe lacks, before a running localstripe: a process of the tests.

``python tests/stripe_proxy.py UPSTREAM`` prints one line with its URL. It adds

* idempotency: the first answer again (failures of Stripe's own included), parameters compared, keys that expire,
  409 while the first request with a key is under way;
* the check of an intent's state before a capture, and of what is left before a refund;
* the answer 402 ``authentication_required``, and the redirect to the bank's page, which is ``/authenticate/ID`` here;
* fields: ``amount_received``, ``amount_captured``, ``type`` and ``decline_code`` of errors, ``created`` of a list.

``POST /_control`` replaces what was in force. Operations: create, confirm, capture, cancel, refund, read.
``{"refuse": {"create": 1}}`` cuts the line before the request is read; ``fail`` answers 500 and does nothing;
``break`` does it and answers 500; ``lose`` does it and cuts the line. ``GET /_seen`` counts what really was done.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import requests
from flask import Flask, Response, jsonify, redirect, request
from werkzeug.serving import WSGIRequestHandler, make_server

DEFAULTS: dict[str, Any] = {
    "refuse": {},
    "fail": {},
    "break": {},
    "lose": {},
    "delay_ms": 0,
    "answer_delay_ms": 0,
    "key_life_s": 24 * 3600,
    "telephone_orders": True,
    "soft_decline": False,  # the issuer asks for the customer by a 402, not by an action
    "decline_code": "generic_decline",
}
NOT_KEPT = {400, 401, 403, 409, 429}  # Stripe keeps no answer to what it did not begin
_OPERATIONS = (
    (r"payment_intents", "create"),
    (r"payment_intents/\w+/confirm", "confirm"),
    (r"payment_intents/\w+/capture", "capture"),
    (r"payment_intents/\w+/cancel", "cancel"),
    (r"refunds", "refund"),
)
Answer = tuple[int, dict[str, Any]]


class Proxy:
    """Stripe's manners over one localstripe."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, Answer | None, float]] = {}
        self._return_urls: dict[str, str] = {}
        self.control = DEFAULTS
        self.seen: Counter[str] = Counter()

    def answer(self, path: str) -> Response:
        operation = _operation(path)
        if self._spend("refuse", operation):
            return _cut_line()
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key is None:
            status, body = self._do(operation, path)
        else:
            first = self._begin(key, path)
            if first is None:
                status, body = self._do(operation, path)
                with self._lock:
                    if status in NOT_KEPT:
                        del self._kept[key]
                    else:
                        self._kept[key] = (*self._kept[key][:1], (status, body), time.monotonic())
            else:
                status, body = first
        time.sleep(self.control["answer_delay_ms"] / 1000)
        return _cut_line() if self._spend("lose", operation) else _response(status, body)

    def authenticate(self, intent_id: str) -> Response:
        """The customer agrees on her bank's page."""
        intent = self._get(f"payment_intents/{intent_id}")
        form = {"client_secret": intent["client_secret"], "success": "true"}
        self._send("POST", f"payment_intents/{intent_id}/_authenticate", form)
        return redirect(self._return_urls[intent_id])

    def _begin(self, key: str, path: str) -> Answer | None:
        """The answer that a key brings back; None when the request is now to be done."""
        asked = hashlib.sha256(f"{path}\n".encode() + request.get_data()).hexdigest()
        with self._lock:
            known = self._kept.get(key)
            if known and known[1] and time.monotonic() - known[2] >= self.control["key_life_s"]:
                known = None
            if known is None:
                self._kept[key] = (asked, None, time.monotonic())
                return None
        if known[0] != asked:
            return 400, _error("idempotency_error", "Keys for idempotent requests can only be used with the same ...")
        return known[1] or (409, _error("invalid_request_error", "in use", code="idempotency_key_in_use"))

    def _do(self, operation: str, path: str) -> Answer:
        time.sleep(self.control["delay_ms"] / 1000)
        if self._spend("fail", operation):
            return 500, _error("api_error", "An unknown error occurred")
        status, body = self._really(operation, path)
        if operation != "read" and status < 300:
            self.seen[operation] += 1
        if self._spend("break", operation):
            return 500, _error("api_error", "An unknown error occurred")
        return status, self._as_documented(body)

    def _really(self, operation: str, path: str) -> Answer:
        form = request.form.to_dict()
        intent_id = path.split("/")[1] if "/" in path else form.get("payment_intent", "")
        match operation:
            case "create":
                if form.get("payment_method_options[card][moto]") == "true" and not self.control["telephone_orders"]:
                    param = "payment_method_options[card][moto]"
                    return 400, _error("invalid_request_error", "unknown parameter", "parameter_unknown", param=param)
                return_url = form.pop("return_url", None)
                status, intent = self._send("POST", path, form)
                return self._may_need_customer(intent, return_url) if status == 200 else (status, intent)
            case "confirm":
                self._return_urls[intent_id] = form["return_url"]
                return 200, self._get(f"payment_intents/{intent_id}")
            case "capture" if (standing := self._get(f"payment_intents/{intent_id}"))["status"] != "requires_capture":
                return 400, _error(
                    "invalid_request_error", "wrong state", "payment_intent_unexpected_state", payment_intent=standing
                )
            case "refund" if int(form["amount"]) > self._left(intent_id):
                return 400, _error("invalid_request_error", "greater than unrefunded amount", param="amount")
            case "read" if path == "payment_intents":
                return self._list_intents()
            case "read" if path == "balance_transactions":
                status, listed = self._send("GET", path)
                # Releasing the rest of a hold moves no money.
                listed["data"] = [t for t in listed["data"] if t["source"].get("payment_intent")]
                return status, listed
        return self._send(request.method, path, form)

    def _may_need_customer(self, intent: dict[str, Any], return_url: str | None) -> Answer:
        if intent["status"] != "requires_action":
            return 200, intent
        if self.control["soft_decline"]:
            needed = {**intent, "status": "requires_payment_method", "next_action": None}
            code = "authentication_required"
            return 402, _error("card_error", "declined", code, decline_code=code, payment_intent=needed)
        if return_url:
            self._return_urls[intent["id"]] = return_url
        return 200, intent

    def _list_intents(self) -> Answer:
        query = request.args.to_dict()
        since, until = int(query.pop("created[gte]", 0)), int(query.pop("created[lte]", 2**40))
        status, listed = self._send("GET", "payment_intents", query=query)
        listed["data"] = [intent for intent in listed["data"] if since <= intent["created"] <= until]
        return status, listed

    def _left(self, intent_id: str) -> int:
        charge = self._get(f"payment_intents/{intent_id}")["latest_charge"]
        return int(charge["amount"] - charge["amount_refunded"]) if charge and charge["captured"] else 0

    def _as_documented(self, found: Any) -> Any:
        if isinstance(found, list):
            return [self._as_documented(item) for item in found]
        if not isinstance(found, dict):
            return found
        found = {name: self._as_documented(value) for name, value in found.items()}
        match found.get("object"):
            case "charge":
                released = [r for r in found["refunds"]["data"] if not r["payment_intent"]]
                found["amount_captured"] = (
                    found["amount"] - sum(r["amount"] for r in released) if found["captured"] else 0
                )
            case "payment_intent":
                charge = found["latest_charge"]
                found["amount_received"] = charge["amount_captured"] if charge else 0
                if found["next_action"] and found["id"] in self._return_urls:
                    url = f"{request.host_url}authenticate/{found['id']}"
                    found["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"url": url}}
        error = found.get("error")
        if isinstance(error, dict) and error.get("code") == "card_declined":
            error |= {"type": "card_error", "decline_code": self.control["decline_code"]}
        return found

    def _get(self, path: str) -> dict[str, Any]:
        return self._send("GET", path, query={})[1]

    def _send(
        self, method: str, path: str, form: dict[str, str] | None = None, query: dict[str, str] | None = None
    ) -> Answer:
        answer = requests.request(
            method,
            f"{self._upstream}/v1/{path}?{urlencode(request.args.to_dict() if query is None else query)}",
            data=form or None,
            headers={"Authorization": request.headers.get("Authorization", "Bearer sk_test_12345")},
            timeout=20,
        )
        return answer.status_code, answer.json()

    def _spend(self, failure: str, operation: str) -> bool:
        with self._lock:
            left = self.control[failure].get(operation, 0)
            self.control[failure][operation] = max(0, left - 1)
            return left > 0


def _operation(path: str) -> str:
    if request.method == "POST":
        for pattern, operation in _OPERATIONS:
            if re.fullmatch(pattern, path):
                return operation
    return "read" if request.method == "GET" else "other"


def _error(kind: str, message: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "code": code, **more}}


def _response(status: int, body: dict[str, Any]) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


def _cut_line() -> Response:
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return Response(status=204)  # nobody reads it


def create_app(proxy: Proxy) -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/v1/<path:path>", view_func=proxy.answer, methods=["GET", "POST"])
    app.add_url_rule("/authenticate/<intent_id>", view_func=proxy.authenticate)

    @app.post("/_control")
    def control() -> Response:
        proxy.control = {**json.loads(json.dumps(DEFAULTS)), **(request.get_json() or {})}
        return jsonify(proxy.control)

    @app.get("/_seen")
    def seen() -> Response:
        return jsonify(proxy.seen)

    return app


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None: ...

    def log_error(self, *_: object) -> None: ...


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, create_app(Proxy(sys.argv[1])), threaded=True, request_handler=_Quiet)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
