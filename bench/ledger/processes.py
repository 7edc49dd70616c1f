"""A consortium of real nodes on this machine: a process and a store each, on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from ivr.ledger.node import Identity, write_private
from ivr.ledger.rules import Memory
from ivr.ledger.store import Store
from ivr.ledger.wire import Genesis

READY_S = 60.0


class NotInTime(Exception):
    """What was waited for did not come."""


def until(what: str, found: Callable[[], Any], patience_s: float = READY_S) -> Any:
    """The first true value of ``found``; how long it took is for the caller to measure. Raises NotInTime."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(requests.RequestException):
            if value := found():
                return value
        time.sleep(0.02)
    raise NotInTime(what)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@dataclass
class RealMember:
    name: str
    port: int
    folder: Path
    extra: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    doomed: bool = False  # its network is the bench's to cut
    http: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        node = ["bench.ledger.doomed"] if self.doomed else ["ivr.ops.cli", "ledger", "node"]
        command = [sys.executable, "-m", *node, "--port", str(self.port)]
        with open(self.folder / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.folder), *self.extra], stdout=log, stderr=log, env=environment()
            )

    def status(self) -> dict[str, Any]:
        answer = self.http.get(f"{self.url}/status", timeout=5)
        status: dict[str, Any] = answer.json()
        return status

    def submit(self, entries: Sequence[dict[str, str]]) -> bool:
        """Whether the node took them all."""
        answer = self.http.post(
            f"{self.url}/entries",
            json={"entries": list(entries)},
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=10,
        )
        return answer.status_code == 202 and not answer.json()["refused"]

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()
        self.process = None

    def signal(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)


def environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("IVR_")}
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def found(folder: Path, count: int, *, extra: Sequence[str] = (), consortium: str = "bench") -> list[RealMember]:
    """Keys, a genesis file and an empty store for each member, as `ivr ledger keygen, genesis, init` make them."""
    members = [
        RealMember(f"m{i:02}", port, folder / f"m{i:02}", extra) for i, port in enumerate(free_ports(count))
    ]
    public = []
    for member in members:
        identity = Identity.fresh(member.name)
        write_private(member.folder / "member.json", identity.model_dump_json())
        member.token = identity.token
        public.append(identity.secret.member(member.url))
    genesis = Genesis(consortium=consortium, members=tuple(public))
    for member in members:
        write_private(member.folder / "genesis.json", genesis.model_dump_json())
        begin(member.folder, genesis)
    return members


def begin(folder: Path, genesis: Genesis) -> None:
    """A store in which nothing was signed yet."""
    store = Store(f"sqlite:///{(folder / 'ledger.sqlite3').resolve()}", genesis)
    store.commit(Memory(height=1))
    store.close()


@contextmanager
def running(members: Sequence[RealMember]) -> Iterator[Sequence[RealMember]]:
    """All nodes up and reachable; killed at the end."""
    try:
        for member in members:
            member.start()
        for member in members:
            until(f"node {member.name} answers", member.status)
        yield members
    finally:
        for member in members:
            member.signal(signal.SIGCONT)
            member.kill()
