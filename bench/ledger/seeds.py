"""Ten thousand consortia in the simulator, and how much it takes to agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from rich.progress import track

from bench.ledger.simulator import Broken, Plan, simulate, too_many_faulty

DELAY_S = 0.02


@dataclass
class Seeds:
    """What came of many runs."""

    runs: int = 0
    broken: list[str] = field(default_factory=list)
    blocks: int = 0
    records: int = 0
    terms: Counter[int] = field(default_factory=Counter)
    suspended: int = 0
    with_liars: int = 0
    with_lost_disks: int = 0


def run_all(seeds: Iterable[int], *, halts: bool, jobs: int, what: str) -> Seeds:
    """Every seed; a broken one is kept with its seed, by which it replays."""
    found, seeds = Seeds(), list(seeds)
    with ProcessPoolExecutor(jobs) as pool:
        for each in track(pool.map(partial(_one, halts=halts), seeds, chunksize=20), what, total=len(seeds)):
            found.runs += 1
            if isinstance(each, str):
                found.broken.append(each)
                command = f"python -m bench.ledger seed {each.split()[1].rstrip(':')}{' --halts' if halts else ''}"
                print(f"BROKEN {each}; replay: {command}", flush=True)
                continue
            height, records, terms, suspended, plan = each
            found.blocks, found.records = found.blocks + height, found.records + records
            found.terms += Counter(terms)
            found.suspended += suspended
            found.with_liars += plan.liars > 0
            found.with_lost_disks += plan.disks_lost > 0
    return found


def _one(seed: int, *, halts: bool) -> str | tuple[int, int, dict[int, int], int, Plan]:
    try:
        outcome = simulate(seed, too_many_faulty(seed) if halts else None, halts=halts)
    except Broken as error:
        return str(error)
    return outcome.height, outcome.final_records, dict(outcome.terms), outcome.suspended, outcome.plan


@dataclass(frozen=True)
class Growth:
    """Of one size of consortium, without a fault: a block's messages, and message delays until it is final."""

    members: int
    messages: float
    delays: float


def growth(members: int) -> Growth:
    """One record, one block; every message takes the same time. What tells of records and heights is left out."""
    plan = Plan(members=members, records=1, least_delay_s=DELAY_S, delay_s=DELAY_S, faults_s=1.0)
    outcome = simulate(1, plan)
    counted = sum(outcome.messages[kind] for kind in ("proposal", "vote", "certificate"))
    return Growth(members, counted / outcome.height, (outcome.finals_s[0] - outcome.submitted_s[0]) / DELAY_S)
