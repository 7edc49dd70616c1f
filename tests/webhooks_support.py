"""A merchant's server: real HTTPS on this machine."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Merchant:
    """What it took, and the answers (status, headers) that it gives before it takes anything more."""

    port: int = 0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    before_answer: Callable[[Any], None] | None = None
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/hooks"

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]


def serve(merchant: Merchant, context: ssl.SSLContext) -> ThreadingHTTPServer:
    """Start the merchant's server in this process; the caller shuts it down."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            merchant.paths.append(self.path)
            if merchant.before_answer:
                merchant.before_answer(self)
            status, headers = merchant.answers.pop(0) if merchant.answers else (204, {})
            if status < 300:
                merchant.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that leaves is no fault of the test's."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    merchant.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def drip(seconds: float) -> Callable[[Any], None]:
    """An answer whose bytes come so slowly that no time-out between two of them helps."""

    def slowly(handler: Any) -> None:
        deadline = time.monotonic() + seconds
        handler.wfile.write(b"HTTP/1.1 204 No Content\r\nX-Slow: ")
        while time.monotonic() < deadline:
            handler.wfile.write(b"a")
            time.sleep(0.05)

    return slowly
