"""A whole service on this machine for the length of a ``with``: sandbox bank, web workers, worker, mail server.

Everything is a process of its own, on a free port of 127.0.0.1, in a folder that goes when the stage does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from pydantic import SecretStr

from ivr.keys import Keyring
from ivr.settings import Settings
from ivr.store import redis
from ivr.store.db import Database

READY_S = 90.0  # loading the speech models takes most of it on a slow machine
STOP_S = 20.0


class NotReady(Exception):
    """A process of the stage did not come up; the message says where its log lies."""


@dataclass(frozen=True)
class Stage:
    """A running service and how to reach all of it."""

    settings: Settings
    urls: tuple[str, ...]  # of each service
    bank_url: str
    database: Database
    keyring: Keyring
    logs: Path
    mails: list[Message]  # what the service has sent, by a real SMTP server

    @property
    def url(self) -> str:
        """How the carrier reaches the service."""
        return self.settings.public_url or self.urls[0]

    def books(self) -> dict[str, list[dict[str, object]]]:
        """The bank's own books: what really was debited."""
        answer = requests.get(f"{self.bank_url}/_books", headers={"X-Api-Key": "sandbox"}, timeout=10)
        books: dict[str, list[dict[str, object]]] = answer.json()
        return books


class _Post:
    """Takes every mail."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


@contextmanager
def stage(
    *,
    sabotage: str | None = None,
    workers: int = 1,
    services: int = 1,
    extra: Mapping[str, str] | None = None,
    keep: bool = False,
) -> Iterator[Stage]:
    """Start everything, and end it. ``extra`` are more environment settings, such as a PostgreSQL's URL.

    ``services`` are that many ``ivr serve``, each on a port of its own, with one database and one Redis.
    ``sabotage`` names a protection to switch off (``ivr.ops.demo.sabotage``). ``keep`` leaves the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="ivr-"))
    processes: list[subprocess.Popen[str]] = []
    settings: Settings | None = None
    post = _Post()
    office = Controller(post, hostname="127.0.0.1", port=_free_port())
    office.start()
    try:
        bank_url = _start_bank(folder, processes)
        ports = [_free_port() for _ in range(services)]
        urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
        environment = {
            "IVR_DATA_DIR": str(folder / "data"),
            "IVR_ACCOUNT_SID": "AC" + secrets.token_hex(16),
            "IVR_AUTH_TOKEN": secrets.token_hex(16),
            "IVR_PUBLIC_URL": urls[0],
            "IVR_BANK_URL": bank_url,
            "IVR_AGENT_NUMBER": "+15550100001",
            "IVR_SMTP_URL": f"smtp://127.0.0.1:{office.port}",
            "IVR_SMTP_FROM": "pay@example.com",
            **(extra or {}),
        }
        settings = settings_from(environment)
        module = ["ivr.ops.demo.sabotage", sabotage] if sabotage else ["ivr.ops.cli", "serve"]
        logs = [folder / f"service-{port}.log" for port in ports]
        started = [
            _spawn([*module, "--port", str(port), "--workers", str(workers)], log, environment, processes)
            for port, log in zip(ports, logs, strict=True)
        ]
        for url, process, log in zip(urls, started, logs, strict=True):
            _wait_until_healthy(url, process, log)
        yield Stage(
            settings,
            urls,
            bank_url,
            Database(settings.sqlalchemy_url()),
            Keyring.load(settings),
            folder,
            post.mails,
        )
    finally:
        for process in reversed(processes):
            _end(process)
        office.stop()
        if settings and not settings.redis_url:
            redis.stop(settings)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings that a process with these ``IVR_...`` variables will have."""
    values: dict[str, object] = {k.removeprefix("IVR_").lower(): v for k, v in environment.items()}
    values["auth_token"] = SecretStr(environment["IVR_AUTH_TOKEN"])
    return Settings(_env_file=None, **values)  # type: ignore[arg-type,call-arg]


def _start_bank(folder: Path, processes: list[subprocess.Popen[str]]) -> str:
    log = folder / "bank.log"
    bank = _spawn(["ivr.payments.sandbox", "--port", "0", "--data", str(folder / "bank")], log, {}, processes)
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and bank.poll() is None:
        if ready := [line for line in log.read_text().splitlines() if "ready on" in line]:
            return ready[0].split()[-1]
        time.sleep(0.05)
    raise NotReady(f"the sandbox bank did not start; see {log}")


def _spawn(
    module: list[str], log: Path, environment: Mapping[str, str], processes: list[subprocess.Popen[str]]
) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("IVR_")}
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**inherited, **environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that what it starts can be ended with it
        )
    processes.append(process)
    return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(url: str, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise NotReady(f"the service did not start:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
