"""How safe, fair and fast the ledger is.

``python -m bench.ledger [--seeds 10000] [--sizes 4 7 16] [--draws 100000] [--seconds 20] [--only PART ...]``
``python -m bench.ledger seed NUMBER`` replays one seed of the simulator; with ``--halts`` one of too many faults.

Parts: ``seeds`` (the simulator), ``growth`` (messages and delays a block, 4 to 256 members), ``fair`` (who holds how
often), ``faults`` (real nodes killed, cut off, restarted), ``speed`` (real nodes, beside one PostgreSQL with a hash
chain). Prints tables, then a line for each bar: ``PASS|MISS name value target n``; exits 1 on a miss. What real nodes
are measured to do depends on what else this machine does: the load is printed beside. Needs the extra ``test``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from bench.ledger import fairness, real, seeds
from bench.ledger.simulator import Broken, simulate, too_many_faulty
from ivr import log

PARTS = ("seeds", "growth", "fair", "faults", "speed")
GROWTH_SIZES = (4, 7, 16, 32, 64, 128, 256)
P99_MS, AT_MEMBERS = 1000.0, 7
PER_SECOND, FASTEST_MEMBERS = 1000.0, 4
UNLIKELY = 0.001
"""A spread of holders that chance makes less often than this is held to be none of chance's."""


class Bars:
    """Lines of PASS and MISS."""

    def __init__(self) -> None:
        self.missed = False
        self._lines: list[str] = []

    def add(self, name: str, passed: bool, value: object, target: object, n: object) -> None:
        self.missed |= not passed
        self._lines.append(f"{'PASS' if passed else 'MISS'} {name} {value} {target} {n}")

    def show(self) -> None:
        for line in self._lines:
            print(line)


def run_seeds(bars: Bars, options: argparse.Namespace, console: Console) -> None:
    found = seeds.run_all(range(options.seeds), halts=False, jobs=options.jobs, what="seeds")
    many = seeds.run_all(range(max(1, options.seeds // 10)), halts=True, jobs=options.jobs, what="too many faulty")
    table = Table("seeds", "with liars", "with lost disks", "blocks", "records", "in term 0, 1, later", "suspended")
    later = sum(count for term, count in found.terms.items() if term > 1)
    terms = f"{found.terms[0]:,}, {found.terms[1]:,}, {later:,}"
    counts = (found.runs, found.with_liars, found.with_lost_disks, found.blocks, found.records)
    table.add_row(*(f"{count:,}" for count in counts), terms, f"{found.suspended:,}")
    console.print(table)
    bars.add("seeds_forked_or_stuck", not found.broken, len(found.broken), 0, found.runs)
    bars.add("seeds_with_too_many_faulty_that_forked_or_went_on", not many.broken, len(many.broken), 0, many.runs)


def run_growth(bars: Bars, options: argparse.Namespace, console: Console) -> None:
    table = Table("members", "messages a block", "for each other member", "message delays until final everywhere")
    for members in GROWTH_SIZES:
        found = seeds.growth(members)
        each = found.messages / (members - 1)
        table.add_row(str(members), f"{found.messages:.0f}", f"{each:.2f}", f"{found.delays:.1f}")
        bars.add(f"messages_a_block_at_{members}_for_each_other", each <= 5, f"{each:.2f}", 5, 5)
    console.print(table)


def run_fair(bars: Bars, options: argparse.Namespace, console: Console) -> None:
    held = fairness.draws(members=7, blocks=options.draws, seed=1)
    probability = fairness.chi_squared(held)
    table = Table("member", f"held, of {options.draws:,} draws with the function of RFC 9381")
    for name, times in sorted(held.items()):
        table.add_row(name, f"{times:,}")
    console.print(table)
    bars.add("chi_squared_probability", probability > UNLIKELY, f"{probability:.3f}", UNLIKELY, options.draws)
    shares = [fairness.withholding(7, options.draws, 2, withholds=w) for w in (False, True)]
    console.print(f"one of 7 makes {shares[0]:.4f} of blocks; withholding those that draw another, {shares[1]:.4f}")
    gained = shares[1] - shares[0]
    bars.add("share_gained_by_withholding", gained <= 0, f"{gained:.4f}", 0, options.draws)


def run_faults(bars: Bars, options: argparse.Namespace, console: Console) -> None:
    table = Table("members", "lost", "wrong chains", "holder killed", "next term", "a third cut off", "all restarted")
    for size in options.sizes:
        found = real.survive(size)
        times = (found.killed_after_s, found.cut_after_s, found.restarted_after_s)
        killed, cut, restarted = (f"{seconds:.1f} s" for seconds in times)
        counts = (found.members, found.lost, found.wrong_chains)
        table.add_row(*map(str, counts), killed, str(found.killed_term), cut, restarted)
        bars.add(f"final_records_lost_at_{size}", found.lost + found.wrong_chains == 0, found.lost, 0, size)
        bars.add(f"term_after_the_holders_death_at_{size}", found.killed_term <= 1, found.killed_term, 1, 1)
    console.print(table)


def run_speed(bars: Bars, options: argparse.Namespace, console: Console) -> None:
    table = Table("members", "p50 ms", "p99 ms", "n", "records a second", "n", "CPU s for 1,000", "load before")
    for size in options.sizes:
        load = os.getloadavg()[0]
        found = real.speed(size, seconds=options.seconds, rate=options.rate)
        times = (f"{found.p50_ms:.0f}", f"{found.p99_ms:.0f}", f"{found.latencies:,}")
        rates = (f"{found.per_second:.0f}", f"{found.records:,}", f"{found.cpu_s_per_1000:.2f}", f"{load:.1f}")
        table.add_row(str(size), *times, *rates)
        if size == AT_MEMBERS:
            bars.add("p99_ms_at_7", found.p99_ms < P99_MS, f"{found.p99_ms:.0f}", f"{P99_MS:g}", found.latencies)
        if size == FASTEST_MEMBERS:
            passed = found.per_second >= PER_SECOND
            bars.add("records_a_second_at_4", passed, f"{found.per_second:.0f}", f"{PER_SECOND:g}", found.records)
    alone = real.hash_chain(options.seconds)
    row = (f"{alone.p50_ms:.0f}", f"{alone.p99_ms:.0f}", "", f"{alone.per_second:.0f}", f"{alone.records:,}", "", "")
    table.add_row("one PostgreSQL", *row)
    console.print(table)


RUN: dict[str, Callable[[Bars, argparse.Namespace, Console], None]] = {
    "seeds": run_seeds,
    "growth": run_growth,
    "fair": run_fair,
    "faults": run_faults,
    "speed": run_speed,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("replay", nargs="*", metavar="seed NUMBER")
    parser.add_argument("--halts", action="store_true")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 7, 16])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of speed")
    parser.add_argument("--rate", type=float, default=10.0, help="records a second while times are measured")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args(arguments)
    log.configure("CRITICAL")
    if options.replay:
        return _replay(int(options.replay[-1]), options.halts)
    bars, console = Bars(), Console(width=120)
    for part in options.only:
        RUN[part](bars, options, console)
    bars.show()
    return bars.missed


def _replay(seed: int, halts: bool) -> int:
    try:
        print(simulate(seed, too_many_faulty(seed) if halts else None, halts=halts))
    except Broken as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
