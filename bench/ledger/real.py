"""Real nodes on this machine: killed, cut off and restarted; and how fast they are."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.faults.processes import postgresql
from bench.ledger.processes import RealMember, environment, found, running, until

BATCH = 250
MOST_UNDER_WAY = 4000
FIRST = 500_000_000


def entries(start: int, count: int) -> list[dict[str, str]]:
    return [
        {"kind": "payment", "id": f"p{i}", "commitment": hashlib.sha256(str(i).encode()).hexdigest()}
        for i in range(start, start + count)
    ]


def ids_on(member: RealMember) -> dict[str, tuple[int, float]]:
    """Every payment in a member's store: the height, and when it became final there (Unix time)."""
    connection = sqlite3.connect(f"file:{member.folder / 'ledger.sqlite3'}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT key, height, strftime('%s', at) + strftime('%f', at) - strftime('%S', at)"
        " FROM ledger_records JOIN ledger_blocks USING (height) WHERE key LIKE 'payment:%'"
    ).fetchall()
    connection.close()
    return {key.split(":")[2]: (height, float(at)) for key, height, at in rows}


def right(member: RealMember) -> bool:
    """What ``ivr ledger verify`` says of a member's whole chain."""
    command = [sys.executable, "-m", "ivr.ops.cli", "ledger", "verify", "--data", str(member.folder)]
    return subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Faults:
    """What a consortium came through."""

    members: int
    lost: int
    wrong_chains: int
    killed_after_s: float  # from the holder's death to the next final block
    killed_term: int  # of that block's certificate
    cut_after_s: float
    restarted_after_s: float


class Consortium:
    """Records that go in at one member while others are killed, cut off and restarted."""

    def __init__(self, folder: Path, size: int, patience_s: float) -> None:
        self.faults = folder / "faults.json"
        self.members = found(folder, size, extra=["--patience", str(patience_s)])
        for member in self.members:
            member.doomed = True
        self.taken: set[str] = set()
        self._next = 0

    def command(self, **asked: object) -> None:
        self.faults.write_text(json.dumps(asked))

    def submit(self, member: RealMember) -> str:
        self._next += 1
        [entry] = entries(self._next, 1)
        until("a record is taken", lambda: member.submit([entry]))
        return entry["id"]

    def final(self, name: str, members: Sequence[RealMember]) -> None:
        for member in members:
            until(f"{name} is final at {member.name}", lambda member=member: name in ids_on(member))
        self.taken.add(name)


def survive(size: int, patience_s: float = 1.0) -> Faults:
    """Kill the holder in the middle of a block, cut off a third, kill and restart all; then look at every chain."""
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder:
        consortium = Consortium(Path(folder), size, patience_s)
        members = consortium.members
        with running(members):
            for member in members[:3]:
                consortium.final(consortium.submit(member), members)

            consortium.command(die=True)
            name = consortium.submit(members[0])  # told to all before anybody proposes it
            until("the holder dies", lambda: json.loads(consortium.faults.read_text()).get("died"))
            started = time.monotonic()
            died = json.loads(consortium.faults.read_text())["died"]
            living = [member for member in members if member.name != died]
            consortium.final(name, living)
            killed_after_s = time.monotonic() - started
            height = ids_on(living[0])[name][0]
            block = living[0].http.get(f"{living[0].url}/blocks/{height}.json", timeout=10).json()
            [dead] = [member for member in members if member.name == died]
            dead.kill()
            dead.start()
            until("the dead one answers", dead.status)
            consortium.final(name, members)

            side = members[: size // 3]
            consortium.command(cut=[member.name for member in side])
            cut_id = consortium.submit(side[0]) if side else ""
            started = time.monotonic()
            consortium.final(consortium.submit(members[-1]), members[len(side) :])
            consortium.command()
            cut_after_s = time.monotonic() - started
            if side:
                consortium.final(cut_id, members)

            for member in members:
                member.kill()
            started = time.monotonic()
            for member in members:
                member.start()
            for member in members:
                until("a restarted one answers", member.status)
            consortium.final(consortium.submit(members[0]), members)
            restarted_after_s = time.monotonic() - started
        lost = sum(len(consortium.taken - set(ids_on(member))) for member in members)
        wrong = sum(not right(member) for member in members)
    term = int(block["certificate"]["term"])
    return Faults(size, lost, wrong, killed_after_s, term, cut_after_s, restarted_after_s)


@dataclass(frozen=True)
class Speed:
    """Of one size: from handing a record in to its being final there; records a second; what the CPUs did."""

    members: int
    p50_ms: float
    p99_ms: float
    latencies: int
    per_second: float
    records: int
    cpu_s_per_1000: float  # of all nodes together


def speed(size: int, *, seconds: float, rate: float) -> Speed:
    """First a steady ``rate`` of records a second, for the time each takes; then as many as can be."""
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder:
        members = found(Path(folder), size, extra=["--patience", "5"])
        with running(members):
            first = entries(0, 1)
            members[0].submit(first)
            until("the first is final", lambda: first[0]["id"] in ids_on(members[0]))
            handed_in = _steadily(members, seconds, rate)
            until("all are final", lambda: all(set(handed_in) <= set(ids_on(m)) for m in (members[0], members[-1])))
            waits = []
            for n, member in enumerate(members):
                final = ids_on(member)
                waits += [1000 * (final[i][1] - at) for i, at in handed_in.items() if int(i[1:]) % size == n]
            busy = _cpu_s(members)
            count, took = _at_once(members, seconds)
            used = _cpu_s(members) - busy
        assert all(right(member) for member in (members[0], members[-1]))
    quantiles = statistics.quantiles(waits, n=100)
    return Speed(size, quantiles[49], quantiles[98], len(waits), count / took, count, 1000 * used / count)


def _steadily(members: Sequence[RealMember], seconds: float, rate: float) -> dict[str, float]:
    """Records one by one, at each member in turn; when each was handed in."""
    handed_in: dict[str, float] = {}
    chance, lock = random.Random(1), threading.Lock()

    def at(n: int) -> None:
        member, number = members[n], 1_000_000 * len(members) + n  # its place in the row is the number's remainder
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            [entry] = entries(number, 1)
            started = time.time()
            if member.submit([entry]):
                with lock:
                    handed_in[entry["id"]] = started
            number += len(members)
            time.sleep(chance.expovariate(rate / len(members)))

    threads = [threading.Thread(target=at, args=(n,)) for n in range(len(members))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return handed_in


def _at_once(members: Sequence[RealMember], seconds: float) -> tuple[int, float]:
    """Batches at each member in turn, so many under way at most; how many became final, in what time."""
    number, begun = FIRST, len(ids_on(members[0]))
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        under_way = number - FIRST - (_count(members[0]) - begun)
        if under_way > MOST_UNDER_WAY - BATCH:
            time.sleep(0.05)
            continue
        if members[(number // BATCH) % len(members)].submit(entries(number, BATCH)):
            number += BATCH
    until("all are final", lambda: _count(members[0]) - begun == number - FIRST, 120)
    return number - FIRST, time.monotonic() - started


def _count(member: RealMember) -> int:
    connection = sqlite3.connect(f"file:{member.folder / 'ledger.sqlite3'}?mode=ro", uri=True)
    [(count,)] = connection.execute("SELECT coalesce(sum(count), 0) FROM ledger_blocks").fetchall()
    connection.close()
    return int(count)


def _cpu_s(members: Sequence[RealMember]) -> float:
    """What the nodes have used since they started."""
    total = 0.0
    for member in members:
        assert member.process is not None
        fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / 100
    return total


@dataclass(frozen=True)
class Alone:
    """One PostgreSQL that chains the same records by hashes: what a single institution would have."""

    p50_ms: float
    p99_ms: float
    per_second: float
    records: int


def hash_chain(seconds: float) -> Alone:
    """One writer; one record a transaction for the time each takes, ``BATCH`` of them for how many a second."""
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder, postgresql(Path(folder)) as server:
        server.psql("CREATE DATABASE bench")
        with psycopg.connect(server.get_uri(database="bench")) as sql:
            sql.execute("CREATE TABLE chain (n bigint PRIMARY KEY, id text UNIQUE, record text, hash text)")
            sql.commit()
            last, n, waits = "", 0, []

            def write(count: int) -> None:
                nonlocal last, n
                rows = []
                for entry in entries(n, count):
                    record = json.dumps(entry)
                    last = hashlib.sha256((last + record).encode()).hexdigest()
                    rows.append((n, entry["id"], record, last))
                    n += 1
                sql.cursor().executemany("INSERT INTO chain VALUES (%s, %s, %s, %s)", rows)
                sql.commit()

            deadline = time.monotonic() + seconds / 2
            while time.monotonic() < deadline:
                started = time.perf_counter()
                write(1)
                waits.append(1000 * (time.perf_counter() - started))
            first, started = n, time.monotonic()
            while time.monotonic() < started + seconds / 2:
                write(BATCH)
            rate = (n - first) / (time.monotonic() - started)
    quantiles = statistics.quantiles(waits, n=100)
    return Alone(quantiles[49], quantiles[98], rate, n - first)
