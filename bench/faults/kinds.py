"""The faults: what may go wrong, and what it acts upon."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from bench.faults import processes
from ivr.payments import sandbox_client
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store import redis as store_redis
from ivr.webhooks import deliver

SHORT_TIMEOUT_S = (2.0, 0.3)
DEATHS = 0.04  # the share of the moments of a step at which a worker is killed
FLIP_S, FLIPS = 0.7, 30  # no multiple of the waits between attempts; an even number, so that it ends well


@dataclass
class Stage:
    """What a fault may act on."""

    settings: Settings
    bank: SandboxBank
    server: Any  # the PostgreSQL
    bank_port: int
    bank_data: Path
    bank_process: subprocess.Popen[str]
    workers: list[BaseProcess] = field(default_factory=list)
    acts: int = 0  # how often the fault struck from outside
    endpoint: BaseProcess | None = None  # where the bank has its debits confirmed
    endpoint_port: int = 0

    def restart_bank(self) -> None:
        """kill -9, and a new process over the same books."""
        self.bank_process.kill()
        self.bank_process.wait()
        self.bank_process, _ = processes.start_bank(self.bank_data, self.bank_port, self.endpoint_port)
        self.acts += 1

    def restart_endpoint(self) -> None:
        """kill -9, and a new process at the same port."""
        assert self.endpoint is not None
        processes.end(self.endpoint)
        self.endpoint = processes.start_endpoint(self.settings, self.endpoint_port)
        self.acts += 1

    def restart_redis(self) -> None:
        """kill -9; whoever needs it next starts it again, empty."""
        os.kill(int(store_redis.connect(self.settings).info("server")["process_id"]), signal.SIGKILL)
        self.acts += 1

    def restart_postgresql(self) -> None:
        """Without a checkpoint, as after a crash: every connection breaks, the log is replayed."""
        self.server_command("-m", "immediate", "-t", "60", "restart")
        self.acts += 1

    def kill_a_worker(self) -> None:
        victim = random.choice(self.workers)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)

    def control(self, **wanted: Any) -> None:
        self.bank.control(**wanted)
        self.acts += 1

    def server_command(self, *arguments: str) -> None:
        command = [str(self.server.bin_path / "pg_ctl"), "-w", "-D", str(self.server.pgdata)]
        command += ["-l", str(self.server.log), *arguments]
        subprocess.run(command, check=True, user=self.server.system_user, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Fault:
    """``in_worker`` runs first in every worker; ``outside`` runs every ``every_s`` while payments are under way.

    ``start`` runs once, when the payments are queued; ``most`` bounds how often ``outside`` does.
    """

    name: str
    in_worker: Callable[[], None] = lambda: None
    start: Callable[[Stage], None] = lambda stage: None
    outside: Callable[[Stage], None] | None = None
    every_s: float = 1.0
    most: int = 10**6
    confirmed: bool = False  # whether the bank has each debit confirmed


def die() -> None:
    """kill -9 of this process, now and then."""
    if random.random() < DEATHS:
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, *, before: bool = False, after: bool = False, times: int = 1) -> Callable[[], None]:
    """Wrap a function so that the worker may die before it or after it, or so that it is done twice."""

    def wrap() -> None:
        really = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if before:
                die()
            for _ in range(times):
                answer = really(*arguments, **named)
            if after:
                die()
            return answer

        setattr(owner, name, call)

    return wrap


def at_commits(moment: str) -> Callable[[], None]:
    """Die before or after commits, whatever they record; there are many more of them than of other steps."""

    def listen() -> None:
        event.listen(Session, moment, lambda session: random.random() < 0.2 and die())

    return listen


def both(*wraps: Callable[[], None]) -> Callable[[], None]:
    return lambda: [wrap() for wrap in wraps] and None


def short_timeout() -> None:
    sandbox_client.TIMEOUT_S = SHORT_TIMEOUT_S


def late(stage: Stage) -> None:
    """By turns: answers long after our time-out, and answers at once."""
    stage.control(answer_delay_ms=0 if stage.acts % 2 else 600)


def refusing(stage: Stage) -> None:
    """By turns: every request is answered 503 and not booked, and all is well."""
    many = 10**6
    stage.control(**({} if stage.acts % 2 else {"fail": {"authorise": many, "capture": many, "look_up": many}}))


FAULTS = [
    Fault("none"),
    Fault("worker killed before the authorisation is sent", around(SandboxBank, "authorise", before=True)),
    Fault(
        "worker killed after the authorisation, before its record",
        around(SandboxBank, "authorise", after=True),
    ),
    Fault("worker killed before the capture is sent", around(SandboxBank, "capture", before=True)),
    Fault("worker killed after the capture, before its record", around(SandboxBank, "capture", after=True)),
    Fault("worker killed before a commit", at_commits("before_commit")),
    Fault("worker killed after a commit", at_commits("after_commit")),
    Fault("worker killed after a webhook, before its record", around(deliver, "post", after=True)),
    Fault("workers killed at any moment", outside=Stage.kill_a_worker, every_s=0.5),
    Fault("PostgreSQL restarted", outside=Stage.restart_postgresql, every_s=3, most=5),
    Fault("bank killed and restarted", outside=Stage.restart_bank, every_s=3, most=10),
    Fault("bank slow (150 ms)", start=lambda stage: stage.control(latency_ms=150)),
    Fault("bank declines everything", start=lambda stage: stage.control(decline={"authorise": "blocked"})),
    Fault("bank unavailable half of the time", outside=refusing, every_s=FLIP_S, most=FLIPS),
    Fault(
        "bank books, and its answer is lost (300 times)",
        start=lambda stage: stage.control(lose={"authorise": 150, "capture": 150}),
    ),
    Fault(
        "bank answers after our time-out, half of the time",
        short_timeout,
        outside=late,
        every_s=FLIP_S,
        most=FLIPS,
    ),
    Fault(
        "every request sent twice, the bank answers twice",
        both(around(SandboxBank, "authorise", times=2), around(SandboxBank, "capture", times=2)),
    ),
    Fault("debits confirmed: none", confirmed=True),
    Fault("debits confirmed: Redis restarted", outside=Stage.restart_redis, every_s=0.7, most=30, confirmed=True),
    Fault(
        "debits confirmed: endpoint restarted",
        outside=Stage.restart_endpoint,
        every_s=4,
        most=5,
        confirmed=True,
    ),
    Fault("debits confirmed: bank restarted", outside=Stage.restart_bank, every_s=4, most=5, confirmed=True),
    Fault(
        "debits confirmed: PostgreSQL restarted",
        outside=Stage.restart_postgresql,
        every_s=3,
        most=5,
        confirmed=True,
    ),
    Fault(
        "debits confirmed: workers killed at any moment",
        outside=Stage.kill_a_worker,
        every_s=0.5,
        confirmed=True,
    ),
    Fault(
        "debits confirmed: the bank posts by itself, and its answers are lost",
        start=lambda stage: stage.control(unasked=True, lose={"authorise": 100, "capture": 100}),
        confirmed=True,
    ),
]
