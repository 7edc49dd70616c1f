"""Many simulated calls at once into a running service, and what they cost it.

Each call has a test customer of its own, with a card at a bank of play money, a voiceprint and a bill; it says a card
number and a challenge at the pace of life, so a turn's time is what a caller would wait.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from ivr.keys import Keyring
from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage
from ivr.ops.simcarrier.record import CallRecord, Requested
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import Carrier, End, Scenario, Turn, load
from ivr.payments.banks import connect
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.store.db import Database

SCENARIO = "fixtures/calls/01-pays-by-voice.toml"
CARD, VOICE = "alice", "alice"
SLOW_S = 0.8
RAMP_S = 30.0  # over which calls begin: about as long as one takes, so that at any time some speak and some listen
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class LiveBank(Exception):
    """The service debits real money, and is not to be loaded."""


@dataclass(frozen=True)
class Load:
    """What some calls at once came to. Times in milliseconds, of every listening turn of every call."""

    records: tuple[CallRecord, ...] = field(repr=False)  # of the calls that could be made at all
    calls: int
    at_once: int
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
    now, pan = datetime.now(UTC), cast.pans()[CARD]
    voices = sorted((shipped("fixtures/audio") / VOICE).glob("enrol*.wav"))
    numbers = fresh_numbers(count)
    try:
        for number in numbers:
            member = cast.member(desk, number, [pan], now, voices=voices)
            cast.bill(desk, member.customer_id, 100, "Load Test", now)
    finally:
        database.engine.dispose()
    return numbers


def fresh_numbers(count: int) -> list[str]:
    """Telephone numbers that nobody has."""
    block = secrets.randbelow(1000)
    return [f"+1500{block:03}{i:04}" for i in range(count)]


def ring(
    settings: Settings,
    url: str,
    numbers: Sequence[str],
    done: Callable[[], None] = lambda: None,
    scenario: Scenario | None = None,
    over_s: float = RAMP_S,
    paid: str = "pay.done",
    at_once: int | None = None,
) -> Load:
    """So many of them call at once (by default all), beginning within ``over_s`` seconds; the next when one hangs up.

    A call that does not hear ``paid`` failed.
    """
    at_once = at_once or len(numbers)
    scenario = scenario or _patient()
    started = time.monotonic()
    before_mb, cpu = memory_mb(url), _cpu_s(url)
    most = [before_mb]
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(most, stop, url), daemon=True)
    watcher.start()

    def one(i: int) -> CallRecord | None:
        time.sleep(over_s * i / at_once if i < at_once else 0)
        try:
            return _call(scenario, settings, url, numbers[i])
        except Exception:  # a service that falls over is a result
            return None
        finally:
            done()

    with ThreadPoolExecutor(at_once) as pool:
        made = tuple(record for record in pool.map(one, range(len(numbers))) if record is not None)
    stop.set()
    watcher.join()
    return Load(
        records=made,
        calls=len(numbers),
        at_once=at_once,
        failed=len(numbers) - sum(paid in record.heard for record in made),
        turns_ms=tuple(ms for record in made for ms in record.end_of_turn_ms),
        webhooks_ms=tuple(event.ms for record in made for event in record.of(Requested)),
        seconds=time.monotonic() - started,
        cpu_s=_cpu_s(url) - cpu,
        memory_mb=most[0] - before_mb,
        before_mb=before_mb,
    )


def _patient() -> Scenario:
    """Somebody who pays by voice, and says her number once more when she is asked to."""
    scenario = load(shipped(SCENARIO))
    again = Turn(expect="card.retry", play=f"{CARD}/card.wav")
    return scenario.model_copy(update={"carrier": Carrier(), "end": End(), "whenever": (*scenario.whenever, again)})


def _call(scenario: Scenario, settings: Settings, url: str, number: str) -> CallRecord:
    caller = scenario.caller.model_copy(update={"from_": number, "seed": secrets.randbelow(2**31)})
    return run_call(
        scenario.model_copy(update={"caller": caller}),
        base_url=url,
        account_sid=settings.account_sid,
        auth_token=settings.auth_token.get_secret_value(),
        audio=shipped("fixtures/audio"),
        values={f"card.{name}": pan for name, pan in cast.pans().items()},
    )


def _watch(most: list[float], stop: threading.Event, url: str) -> None:
    while not stop.wait(0.5):
        most[0] = max(most[0], memory_mb(url))


def service(url: str) -> Iterator[Path]:
    """The web processes that serve ``url`` from this machine; none when they run elsewhere."""
    bound = re.compile(rb"--bind[=\0]\S*:(\d+)\0")
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        port = bound.search(words)  # none: as the settings have it
        if b"ivr.app:create_app()" in words and (port is None or int(port[1]) == urlsplit(url).port):
            yield path


def _cpu_s(url: str) -> float:
    total = 0.0
    for path in service(url):
        fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def memory_mb(url: str) -> float:
    """Resident memory of the service's web processes on this machine."""
    return sum(int((path / "statm").read_text().split()[1]) * _PAGE for path in service(url)) / 1e6
