"""Both proxies of deploy/, before a stand-in for the service: who reaches what, and what the service is told."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import rehearsal_support as rehearsal

from bench.ledger.processes import free_ports

OURS, STRANGER = "127.0.0.1", "127.0.0.2"  # the address that deploy/ names, and one that it does not
PATIENCE_S = 20


class Proxy:
    def __init__(self, port: int, authority: Path | None = None) -> None:
        self._port = port
        self._trusted = ssl.create_default_context(cafile=authority) if authority else None

    def get(self, path: str, source: str = OURS, **headers: str) -> tuple[int, dict[str, str]]:
        """The status, and the headers that the service saw; the path goes out as it is."""
        where, timeout, address = "localhost", PATIENCE_S, (source, 0)
        line: HTTPConnection = (
            HTTPSConnection(where, self._port, timeout=timeout, source_address=address, context=self._trusted)
            if self._trusted
            else HTTPConnection(where, self._port, timeout=timeout, source_address=address)
        )
        line.putrequest("GET", path)
        for name, value in headers.items():
            line.putheader(name.replace("_", "-"), value)
        line.endheaders()
        answer = line.getresponse()
        body = answer.read()
        line.close()
        return answer.status, json.loads(body) if answer.status == 200 else {}


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    end(server)


@pytest.fixture(params=["caddy", "nginx"])
def proxy(request: pytest.FixtureRequest, service: ThreadingHTTPServer, tmp_path: Path) -> Iterator[Proxy]:
    with {"caddy": caddy, "nginx": nginx}[request.param](service.server_port, tmp_path) as running:
        yield running


def test_strangers_do_not_reach_the_console(proxy: Proxy) -> None:
    for path in ("/desk", "/desk/", "/desk/calls?page=2", "//desk/", "/%64esk/", "/my/../desk/"):
        assert proxy.get(path, OURS)[0] == 200, path
        assert proxy.get(path, STRANGER)[0] == 404, path
        assert proxy.get(path, STRANGER, X_Forwarded_For=OURS)[0] == 404, path


def test_metrics_are_not_passed_on(proxy: Proxy) -> None:
    assert proxy.get("/metrics")[0] == 404
    assert proxy.get("/%6detrics")[0] == 404


def test_everybody_reaches_the_rest_and_the_service_is_told_who_it_was(proxy: Proxy) -> None:
    status, seen = proxy.get("/desks", STRANGER, X_Forwarded_For="192.0.2.1", X_Forwarded_Host="evil.example")
    assert status == 200
    assert seen["X-Forwarded-For"] == STRANGER
    assert "evil" not in str(seen)


@pytest.mark.parametrize("path", ["/my/l/", "/pay/", "/v1/app-charges/"])
def test_no_log_tells_a_link_or_who_asked_whether_the_service_answers_or_not(
    proxy: Proxy, service: ThreadingHTTPServer, tmp_path: Path, path: str
) -> None:
    def ask() -> int:
        return proxy.get(f"{path}secret?token=secret", STRANGER, Cookie="secret")[0]

    assert ask() == 200
    end(service)
    assert ask() in (502, 503)
    logs = ""
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(rf"{path}.*\b200\b.*{path}.*\b50[23]\b", logs, re.DOTALL):
        assert time.monotonic() < deadline, logs
        time.sleep(0.05)
        logs = "".join(file.read_text() for file in tmp_path.rglob("*.log"))
    assert "secret" not in logs
    assert STRANGER not in logs


@contextmanager
def caddy(upstream: int, folder: Path) -> Iterator[Proxy]:
    [port] = free_ports(1)
    command = [Path(sys.executable).with_name("caddy"), "run", "--adapter", "caddyfile"]
    environment = {
        "HOME": str(folder),
        "CADDY_ADMIN": f"unix/{folder}/admin.sock",
        "IVR_DOMAIN": f"http://localhost:{port}",
        "IVR_UPSTREAM": f"127.0.0.1:{upstream}",
    }
    with running([*command, "--config", rehearsal.ROOT / "deploy" / "Caddyfile"], folder, environment):
        yield reached(Proxy(port))


@contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[Proxy]:
    clone, ports = rehearsal.clone(folder), rehearsal.ports() | {"WEB": str(upstream)}
    status, said = rehearsal.bash(rehearsal.commands()[0].split("\n\n")[0], clone, ports)
    assert status == 0, said
    site = clone / "build" / "rehearsal"
    command = ["nginx", "-p", f"{site}/", "-e", "nginx.log", "-c", "rehearsal.conf"]
    status, said = rehearsal.bash(" ".join([*command, "-t"]), site, {})
    assert "syntax is ok" in said
    assert "[warn]" not in said
    with running(command, folder, {"PATH": rehearsal.path()}):
        yield reached(Proxy(int(ports["HTTPS"]), site / "fullchain.pem"))


@contextmanager
def running(command: list[str | Path], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(folder / "proxy.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def reached(proxy: Proxy) -> Proxy:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            proxy.get("/health")
            return proxy
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def end(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


class _Service(BaseHTTPRequestHandler):
    """Answers 200, and says which headers it saw."""

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
