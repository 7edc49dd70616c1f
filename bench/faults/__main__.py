"""``python -m bench.faults``: see the package."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench.faults
from bench.faults.kinds import FAULTS
from bench.faults.processes import postgresql
from bench.faults.records import Result
from bench.faults.run import run
from ivr import log

RESULTS = Path(__file__).parents[1] / "results" / "faults.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=bench.faults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--payments", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", help="faults whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if not options.only or any(part in fault.name for part in options.only)]
    if options.list:
        print("\n".join(fault.name for fault in chosen))
        return
    log.configure("CRITICAL")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    results = []
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder, postgresql(Path(folder)) as server:
        for number, fault in enumerate(chosen):
            result = run(fault, server, Path(folder) / str(number), options.payments, options.workers)
            print(json.dumps(vars(result)), file=sys.stderr, flush=True)
            results.append(result)
    print_table(results)
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps([vars(result) for result in results], indent=1) + "\n")
    sys.exit(any(result.lost or result.twice or result.unproven for result in results))


def print_table(results: list[Result]) -> None:
    table = Table()
    columns = (
        "fault",
        "payments",
        "paid",
        "refused",
        "voided",
        "lost",
        "twice",
        "unproven",
        "workers killed",
        "strikes",
    )
    for column in (*columns, "webhooks", "sent again", "s"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for result in results:
        table.add_row(*(str(value) for value in vars(result).values()))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
