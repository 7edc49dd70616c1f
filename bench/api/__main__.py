"""``python -m bench.api``: see the package. Each part is a module with ``measure(options, console, bars)``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console

import bench.api
from bench.api import charges, purchases
from bench.bars import Bars
from ivr import log

PARTS = {"purchases": purchases.measure, "charges": charges.measure}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=bench.api.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--purchases", type=int, default=96, help="at each number of buyers")
    parser.add_argument("--batch", type=int, default=2000, help="purchases asked for in batches of 200")
    parser.add_argument("--charges", type=int, default=100, help="of an app, by voice")
    options = parser.parse_args(arguments)
    log.configure("CRITICAL")
    bars, console = Bars(), Console(width=100)
    for part in options.only:
        PARTS[part](options, console, bars)
    console.print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for line in bars.lines:
        print(line)
    return 1 if bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
