"""A small real service for the simulated carrier to call: Flask and flask-sock in threads on 127.0.0.1."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed
from twilio.request_validator import RequestValidator
from werkzeug.serving import make_server

TOKEN = "12345"
SID = "AC" + "1" * 32

Body = str | Response | Callable[[dict[str, str]], Any]


@dataclass(frozen=True)
class Seen:
    path: str
    method: str
    form: dict[str, str]
    token: str | None
    signed: bool


@dataclass
class Socket:
    """The service's end of a media stream, with everything that came in."""

    raw: Any
    signed: bool
    messages: list[dict[str, Any]] = field(default_factory=list)
    sid: str = ""

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the carrier has closed."""
        try:
            message: dict[str, Any] = json.loads(self.raw.receive(timeout=5))
        except (ConnectionClosed, TypeError):
            return None
        self.messages.append(message)
        self.sid = message.get("streamSid", self.sid)
        return message

    def until(self, event: str, count: int = 1) -> dict[str, Any] | None:
        """Receive until the ``count``-th message of this kind."""
        message = None
        for _ in range(count):
            while (message := self.receive()) and message["event"] != event:
                pass
        return message

    def send(self, event: str, **body: Any) -> None:
        self.raw.send(json.dumps({"event": event, "streamSid": self.sid, **body}))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["event"] == event]


class Service:
    """Answers with the documents that a test gives it, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.sockets: list[Socket] = []
        self.on_stream: Callable[[Socket], None] = lambda socket: None
        self._bodies: dict[str, list[Body]] = {}

    def on(self, path: str, *bodies: Body) -> None:
        """What ``path`` answers, in turn; the last again and again. A text is the inside of a <Response>."""
        self._bodies[path] = list(bodies)

    def forms(self, path: str) -> list[dict[str, str]]:
        return [seen.form for seen in self.seen if seen.path == path]

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]

    def app(self) -> Flask:
        app = Flask(__name__)
        sock = Sock(app)

        @app.route("/<path:path>", methods=["GET", "POST"])
        def webhook(path: str) -> Any:
            return self._answer("/" + path)

        @sock.route("/voice/stream")  # type: ignore[untyped-decorator]
        def stream(raw: Any) -> None:
            url = request.url.replace("http://", "ws://")
            signature = request.headers.get("X-Twilio-Signature", "")
            socket = Socket(raw, RequestValidator(TOKEN).validate(url, {}, signature))
            self.sockets.append(socket)
            self.on_stream(socket)

        return app

    def _answer(self, path: str) -> Any:
        form = request.form.to_dict() if request.method == "POST" else request.args.to_dict()
        signed = RequestValidator(TOKEN).validate(
            request.url, request.form.to_dict(), request.headers.get("X-Twilio-Signature", "")
        )
        token = request.headers.get("I-Twilio-Idempotency-Token")
        self.seen.append(Seen(path, request.method, form, token, signed))
        if path == "/voice/rehearsal" and path not in self._bodies:
            return {"test_customers": True, "test_bank": True}
        bodies = self._bodies.get(path)
        if bodies is None:
            return (
                ("", 200, {"Content-Type": "text/xml"}) if path == "/voice/status" else ("no such page", 404)
            )
        body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
        answer = body(form) if callable(body) and not isinstance(body, Response) else body
        if isinstance(answer, str):
            return Response(f"<Response>{answer}</Response>", content_type="text/xml")
        return answer


@contextmanager
def serving() -> Iterator[Service]:
    service = Service()
    server = make_server("127.0.0.1", 0, service.app(), threaded=True)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stream(service: Service, rest: str = "", action: str = ' action="/voice/turn/1"') -> str:
    """A <Connect> to the service's own stream."""
    url = service.url.replace("http", "ws") + "/voice/stream"
    return f'<Connect{action}><Stream url="{url}">{rest}</Stream></Connect>'


def slowly(seconds: float, text: str) -> Callable[[dict[str, str]], str]:
    def answer(form: dict[str, str]) -> str:
        time.sleep(seconds)
        return text

    return answer


def recognise(text: str) -> tuple[str, dict[str, str]] | None:
    """Prompts of the tests: "card.ask please" is card.ask; "challenge.ask 4 7 1 9" has digits."""
    if text.startswith("unknown"):
        return None
    prompt, _, rest = text.partition(" ")
    return prompt, {"digits": rest}
