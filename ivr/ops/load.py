"""Many simulated calls at once into a running service, and what they cost it.

Each call has a test customer of its own, with a card at a bank of play money, a voiceprint and a bill; it says a card
number and a challenge at the pace of life, so a turn's time is what a caller would wait.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ivr.keys import Keyring
from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage
from ivr.ops.simcarrier.record import CallRecord, Requested
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import Scenario, load
from ivr.payments.banks import connect
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.store.db import Database

SCENARIO = "fixtures/calls/01-pays-by-voice.toml"
CARD, VOICE = "alice", "alice"
SLOW_S = 0.8
RAMP_S = 8.0  # over which calls begin: nobody's callers all ring in the same moment
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class LiveBank(Exception):
    """The service debits real money, and is not to be loaded."""


@dataclass(frozen=True)
class Load:
    """What some calls at once came to. Times in milliseconds, of every listening turn of every call."""

    calls: int
    failed: int
    turns_ms: tuple[float, ...]
    webhooks_ms: tuple[float, ...]
    seconds: float
    cpu_s: float  # of the service's processes
    memory_mb: float  # that they grew by, at most, while the calls went on
    before_mb: float

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.turns_ms, 95)) if self.turns_ms else float("nan")

    @property
    def held(self) -> bool:
        return self.failed == 0 and self.p95_ms < 1000 * SLOW_S


def callers(settings: Settings, count: int) -> list[str]:
    """The numbers of so many new test customers, each able to pay one bill by voice. Raises LiveBank, BankError."""
    if not connect(settings).test_only:
        raise LiveBank("the service of these settings debits real money: load one whose bank is the sandbox")
    database = Database(settings.sqlalchemy_url())
    desk = Stage(settings, (), "", database, Keyring.load(settings), Path(), [])
    now, block = datetime.now(UTC), secrets.randbelow(1000)
    pan = cast.pans()[CARD]
    voices = sorted((shipped("fixtures/audio") / VOICE).glob("enrol*.wav"))
    numbers = []
    try:
        for i in range(count):
            number = f"+1500{block:03}{i:04}"
            member = cast.member(desk, number, [pan], now, voices=voices)
            cast.bill(desk, member.customer_id, 100, "Load Test", now)
            numbers.append(number)
    finally:
        database.engine.dispose()
    return numbers


def ring(settings: Settings, url: str, numbers: list[str], done: Callable[[], None] = lambda: None) -> Load:
    """All of them call at once, over ``RAMP_S``."""
    scenario = load(shipped(SCENARIO)).model_copy(update={"end": {}})
    started = time.monotonic()
    before_mb, cpu = _memory_mb(), _cpu_s()
    most = [before_mb]
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(most, stop), daemon=True)
    watcher.start()

    def one(i: int) -> CallRecord | None:
        time.sleep(RAMP_S * i / len(numbers))
        try:
            return _call(scenario, settings, url, numbers[i])
        except Exception:  # a service that falls over is a result
            return None
        finally:
            done()

    with ThreadPoolExecutor(len(numbers)) as pool:
        records = list(pool.map(one, range(len(numbers))))
    stop.set()
    watcher.join()
    made = [record for record in records if record is not None]
    return Load(
        calls=len(numbers),
        failed=sum(record is None or "pay.done" not in record.heard for record in records),
        turns_ms=tuple(ms for record in made for ms in record.end_of_turn_ms),
        webhooks_ms=tuple(event.ms for record in made for event in record.of(Requested)),
        seconds=time.monotonic() - started,
        cpu_s=_cpu_s() - cpu,
        memory_mb=most[0] - before_mb,
        before_mb=before_mb,
    )


def _call(scenario: Scenario, settings: Settings, url: str, number: str) -> CallRecord:
    caller = scenario.caller.model_copy(update={"from_": number, "seed": secrets.randbelow(2**31)})
    return run_call(
        scenario.model_copy(update={"caller": caller}),
        base_url=url,
        account_sid=settings.account_sid,
        auth_token=settings.auth_token.get_secret_value(),
        audio=shipped("fixtures/audio"),
    )


def _watch(most: list[float], stop: threading.Event) -> None:
    while not stop.wait(0.5):
        most[0] = max(most[0], _memory_mb())


def _service() -> Iterator[Path]:
    """The service's web processes on this machine; none when it runs elsewhere."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"ivr.app:create_app" in (path / "cmdline").read_bytes():
                yield path
        except OSError:
            continue


def _cpu_s() -> float:
    total = 0.0
    for path in _service():
        fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def _memory_mb() -> float:
    return sum(int((path / "statm").read_text().split()[1]) * _PAGE for path in _service()) / 1e6
