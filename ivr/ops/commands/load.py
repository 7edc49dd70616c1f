"""``ivr load``: how many calls at once this machine holds."""

from __future__ import annotations

import sys

import click
import numpy as np
from rich.progress import Progress

from ivr.ops import load
from ivr.settings import Settings, settings

LOCAL_URL = "http://127.0.0.1:8400"


@click.command()
@click.option("--calls", default=40, show_default=True, type=click.IntRange(1, 2000), help="At once.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 1000), help="Calls of each caller.")
@click.option("--find", is_flag=True, help="Begin with so many and go on with half as many more, until it is too slow.")
@click.option("--url", default=LOCAL_URL, show_default=True, help="The service, which uses the settings of this shell.")
def command(calls: int, rounds: int, find: bool, url: str) -> None:
    """Have many recorded callers pay at once, at the pace of life, and print what a caller waits and what it costs.

    Who hangs up is followed by another at once, so that as many speak all the time.

    Makes test customers in the service's database; refuses a service whose bank is no bank of play money. Exits 1
    when a call fails or one turn in twenty takes longer than 0.8 s.
    """
    given = settings()
    most = 0
    while True:
        found = _ring(given, url, calls, rounds)
        _print(found)
        if found.held:
            most = calls
        if not (find and found.held):
            break
        calls = calls + max(1, calls // 2)
    if find:
        click.echo(f"this machine holds {most} calls at once before p95 passes {load.SLOW_S} s")
    sys.exit(0 if most else 1)


def _ring(given: Settings, url: str, calls: int, rounds: int) -> load.Load:
    try:
        numbers = load.callers(given, calls * rounds)
    except load.LiveBank as error:
        raise click.ClickException(str(error)) from None
    with Progress(transient=True) as progress:
        task = progress.add_task(f"{calls} calls at once", total=len(numbers))
        return load.ring(given, url, numbers, lambda: progress.advance(task), at_once=calls)


def _print(found: load.Load) -> None:
    click.echo(
        f"{found.at_once} calls at once, {found.calls} in all, {found.failed} failed, in {found.seconds:.0f} s"
    )
    if found.turns_ms:
        p50, p95, p99 = np.percentile(found.turns_ms, [50, 95, 99])
        n = len(found.turns_ms)
        click.echo(f"  a turn's end to its answer: p50 {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f} (n {n})")
        click.echo(f"  webhooks: p95 {np.percentile(found.webhooks_ms, 95):.0f} ms (n {len(found.webhooks_ms)})")
    if found.before_mb:
        click.echo(
            f"  the service: {found.cpu_s / found.calls:.2f} s of processor a call, "
            f"{found.memory_mb / found.at_once:.1f} MB for each at once on top of {found.before_mb:.0f} MB"
        )
    word = "PASS" if found.held else "MISS"
    click.echo(f"{word} turn_p95_ms {found.p95_ms:.0f} {1000 * load.SLOW_S:.0f} {len(found.turns_ms)}")
