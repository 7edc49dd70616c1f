"""A whole service under load, on this machine: two web processes, a worker, a bank of play money, recorded callers.

``python -m bench.load [--only calls waiting killed soak] [--calls 40] [--waiting 500] [--minutes 20]``

* calls: so many people pay at once, at the pace of life, each followed by another when she hangs up, twice; and, beside
  the bars, once more with all of them beginning within eight seconds;
* waiting: the same, while so many others hold the line until somebody has agreed to their payments;
* killed: one of the two web processes is killed (-9) while so many calls go on: each must go on, or end with an
  apology, and no payment may be lost or made twice;
* soak: a quarter as many calls, again and again: does the memory grow?

After each part the logs, the database, Redis, the bank's books and the pages of the console are searched for the card
numbers that were said and keyed. The callers run on the same processors. Ends with ``PASS|MISS name value target n``.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyotp
import requests
from rich.console import Console
from sqlalchemy import func, select, text

from bench.bars import Bars
from ivr.approval.appointments import MOST_WARDS
from ivr.approval.policy import Role as ApproverRole
from ivr.call.models import Turn
from ivr.console.operators import accounts
from ivr.console.operators.models import Role
from ivr.ops import load
from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage, stage
from ivr.ops.simcarrier.checks import Inside, leaks
from ivr.ops.simcarrier.scenario import parse
from ivr.payments.models import Payment
from ivr.payments.states import FINAL, State
from ivr.store import redis

PIN, SMALL_MINOR, LARGE_MINOR = "482915", 100, 10_000
WAITING_BEGIN_S = 200.0  # over which those who wait ring up; each waits five minutes
ROUNDS = 3
BURST_S = 8.0
SETTLE_S = 60.0
WAVE_PAUSE_S = 2.0
GROWTH_MB_AN_HOUR = 30.0
PASSWORD = secrets.token_hex(12)

WARD = parse(
    {
        "name": "A ward keys a payment that somebody must agree to",
        "caller": {"from": "+15000000000", "dialled_for_s": 0},
        "turn": [
            {"expect": "card.ask", "keys": "{card.alice}", "barge": True},
            {"expect": "pin.ask", "keys": PIN, "barge": True},
            {"expect": "keypad.confirm", "keys": "1"},
        ],
    },
    __file__,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--waiting", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--database", help="a PostgreSQL's URL; default: a new SQLite file")
    options = parser.parse_args(arguments)
    bars, console = Bars(), Console(width=110)
    for part in options.only:
        with stage(workers=2, extra={"IVR_DATABASE_URL": options.database} if options.database else None) as running:
            PARTS[part](running, options, bars, console)
            found = sorted(set(_leaks(running)))
            bars.add(f"{part}_card_numbers_found", not found, len(found), 0, ", ".join(map(str, found)) or "-")
    console.print(f"{os.cpu_count()} cores, callers included")
    for line in bars.lines:
        print(line)
    return 1 if bars.missed else 0


def calls(running: Stage, options: argparse.Namespace, bars: Bars, console: Console) -> None:
    before = _stored(running)
    found = _pay(running, options.calls, ROUNDS)
    _judge("calls", found, bars, console)
    commands, transactions = ((after - b) / found.calls for after, b in zip(_stored(running), before, strict=True))
    console.print(f"  a call: {commands:.0f} commands to Redis, {transactions:.0f} transactions in PostgreSQL")
    _print(_pay(running, options.calls, over_s=BURST_S), console)


def waiting(running: Stage, options: argparse.Namespace, bars: Bars, console: Console) -> None:
    """The guardians, as few as may look after them all, do not answer."""
    numbers = load.fresh_numbers(options.waiting)
    now, pan = datetime.now(UTC), cast.pans()["alice"]
    for i, number in enumerate(numbers):
        if i % MOST_WARDS == 0:
            telephone = f"+1500999{i:04}"
            guardian = cast.member(running, telephone, (), now, pin=PIN, emails=["guardian@example.com"])
        ward = cast.member(running, number, [pan], now, pin=PIN)
        cast.looks_after(running, ApproverRole.GUARDIAN, guardian, ward, now)
        cast.bill(running, ward.customer_id, LARGE_MINOR, "Load Test", now)
    console.print(f"{options.waiting} call and wait")
    with ThreadPoolExecutor(1) as aside:
        wait = partial(load.ring, scenario=WARD, over_s=WAITING_BEGIN_S, paid="approval.wait")
        held = aside.submit(wait, running.settings, running.url, numbers)
        time.sleep(WAITING_BEGIN_S + 30)
        with running.database.transaction() as session:
            at_once = session.scalar(select(func.count()).where(Payment.state == State.AWAITING)) or 0
        _judge("calls_while_others_wait", _pay(running, options.calls, ROUNDS), bars, console)
        found = held.result()
    rang_off = sum("approval.later" in record.heard for record in found.records)
    p95 = float(np.percentile(found.webhooks_ms, 95))
    console.print(
        f"  waiting: webhooks p95 {p95:.0f} ms, {rang_off} told of it later, {found.memory_mb:.0f} MB more in all"
    )
    bars.add("waiting_at_once", at_once >= options.waiting, at_once, options.waiting, options.waiting)
    bars.add("waiting_failed", found.failed == 0, found.failed, 0, options.waiting)


def killed(running: Stage, options: argparse.Namespace, bars: Bars, console: Console) -> None:
    processes = _workers(running.url)
    victim = processes[0]

    def strike() -> None:
        time.sleep(BURST_S + 12)  # all of them are in the middle of something
        os.kill(victim, signal.SIGKILL)
        console.print(f"killed one of {len(processes)} web processes")

    threading.Thread(target=strike, daemon=True).start()
    found = _pay(running, options.calls, over_s=BURST_S)
    ends = Counter(_end(record.heard) for record in found.records)
    console.print(f"  calls ended with: {dict(ends)}")
    lost, twice = _books(running)
    neither = options.calls - sum(count for end, count in ends.items() if end)
    bars.add("killed_calls_without_an_end", neither == 0, neither, 0, options.calls)
    bars.add("killed_payments_lost", lost == 0, lost, 0, options.calls)
    bars.add("killed_payments_twice", twice == 0, twice, 0, options.calls)


def soak(running: Stage, options: argparse.Namespace, bars: Bars, console: Console) -> None:
    """The slope of the memory over all but the first quarter, in which caches fill."""
    at_once, began = max(1, options.calls // 4), time.monotonic()
    sizes: list[tuple[float, float]] = []
    turns: list[float] = []
    failed = made = 0
    while time.monotonic() - began < 60 * options.minutes:
        found = _pay(running, at_once)
        failed, made = failed + found.failed, made + found.calls
        turns += found.turns_ms
        sizes.append(((time.monotonic() - began) / 3600, load.memory_mb(running.url)))
        console.print(f"  {made} calls, {failed} failed, {sizes[-1][1]:.0f} MB", highlight=False)
        time.sleep(WAVE_PAUSE_S)
    hours, mb = np.array(sizes[len(sizes) // 4 :]).T
    slope = float(np.polyfit(hours, mb, 1)[0]) if len(hours) > 1 else float("nan")
    bars.add("soak_failed", failed == 0, failed, 0, made)
    bars.add("soak_mb_an_hour", slope < GROWTH_MB_AN_HOUR, round(slope, 1), GROWTH_MB_AN_HOUR, len(sizes))
    p95 = float(np.percentile(turns, 95))
    bars.add("soak_turn_p95_ms", p95 < 1000 * load.SLOW_S, round(p95), round(1000 * load.SLOW_S), len(turns))


PARTS = {"calls": calls, "waiting": waiting, "killed": killed, "soak": soak}


def _pay(running: Stage, at_once: int, rounds: int = 1, over_s: float = load.RAMP_S) -> load.Load:
    numbers = load.callers(running.settings, at_once * rounds)
    return load.ring(running.settings, running.url, numbers, over_s=over_s, at_once=at_once)


def _stored(running: Stage) -> tuple[int, int]:
    """Commands that Redis was given, transactions that PostgreSQL committed; of SQLite, which does not count, none."""
    redis_stats: Any = redis.connect(running.settings).info("stats")
    committed = "select xact_commit from pg_stat_database where datname = current_database()"
    with running.database.transaction() as session:
        postgresql = running.database.engine.dialect.name == "postgresql"
        return redis_stats["total_commands_processed"], session.scalar(text(committed)) if postgresql else 0


def _judge(name: str, found: load.Load, bars: Bars, console: Console) -> None:
    _print(found, console)
    bars.add(f"{name}_failed", found.failed == 0, found.failed, 0, found.calls)
    bars.add(f"{name}_turn_p95_ms", found.p95_ms < 1000 * load.SLOW_S, round(found.p95_ms), round(1000 * load.SLOW_S),
             len(found.turns_ms))  # fmt: skip


def _print(found: load.Load, console: Console) -> None:
    p50, p95 = np.percentile(found.turns_ms, [50, 95])
    console.print(
        f"{found.calls} pay, {found.at_once} at once, {found.failed} failed, in {found.seconds:.0f} s:"
        f" a turn's end to its answer p50 {p50:.0f} ms, p95 {p95:.0f};"
        f" webhooks p95 {np.percentile(found.webhooks_ms, 95):.0f} ms;"
        f" {found.cpu_s / found.calls:.1f} s of processor and {found.memory_mb / found.at_once:.1f} MB for each at once"
        f" on top of {found.before_mb:.0f} MB",
        highlight=False,
    )


def _end(heard: Sequence[str]) -> str | None:
    """What the caller was told at last; None: she was left without a word."""
    told = ("pay.done", "pay.later", "apology", "refused", "keypad.ask")
    return next((prompt for prompt in reversed(heard) if prompt in told), None)


def _workers(url: str) -> list[int]:
    """The web processes that serve, without the one that starts them."""
    processes = load.service(url)
    found = {int(path.name): int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) for path in processes}
    return sorted(found.keys() - found.values())


def _books(running: Stage) -> tuple[int, int]:
    """Payments that came to no end or stand in one book alone, and debits made twice."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        with running.database.transaction() as session:
            payments = {payment.id: payment.state for payment in session.scalars(select(Payment))}
        if all(state in FINAL for state in payments.values()) or time.monotonic() > deadline:
            break
        time.sleep(1)
    debits = Counter(str(capture["reference"]) for capture in running.books()["captures"])
    paid = {payment for payment, state in payments.items() if state is State.PAID}
    undecided = sum(state not in FINAL for state in payments.values())
    return undecided + len(paid ^ set(debits)), sum(count - 1 for count in debits.values())


def _leaks(running: Stage) -> Iterator[tuple[str, str]]:
    cards = cast.pans()
    client = redis.connect(running.settings)
    pages = running.logs / "pages.log"
    pages.write_bytes(b"\n".join([*_pages(running), repr(running.books()["captures"]).encode()]))
    yield from leaks(Inside(running.database, client, running.books, cards, running.logs))


def _pages(running: Stage) -> Iterator[bytes]:
    """Every page of the console that tells of calls and payments, as an operator sees it."""
    now = datetime.now(UTC)
    with running.database.transaction() as session:
        uri = accounts.add(session, "ann", Role.ADMIN, PASSWORD, running.keyring, who="bench", now=now).uri
        sids = session.scalars(select(Turn.call_sid).distinct()).all()
        payments = session.scalars(select(Payment.id)).all()
    code = pyotp.TOTP(parse_qs(urlsplit(uri).query)["secret"][0]).now()
    with requests.Session() as browser:
        form = browser.get(f"{running.url}/desk/sign-in").text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
        assert token, "no form to sign in with"
        given = {"csrf_token": token[1], "name": "ann", "password": PASSWORD, "code": code}
        signed_in = browser.post(f"{running.url}/desk/sign-in", given, headers={"Origin": running.url})
        signed_in.raise_for_status()
        pages = ["", "payments", "approvals", "health"]
        for page in [*pages, *(f"calls/{sid}" for sid in sids), *(f"payments/{payment}" for payment in payments)]:
            answer = browser.get(f"{running.url}/desk/{page}")
            answer.raise_for_status()
            yield answer.content


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    sys.exit(main())
