"""``ivr demo``: scenes of ``fixtures/calls`` played into a service of its own, and checked."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from ivr.ops.demo import scenes
from ivr.ops.demo.sabotage import PROTECTIONS
from ivr.ops.demo.stage import stage
from ivr.ops.simcarrier import junit, report


@click.command()
@click.option("--break", "sabotage", type=click.Choice(sorted(PROTECTIONS)), help="Switch one protection off.")
@click.option("--speed", default=scenes.SPEED, show_default=True, help="How much faster than life callers speak.")
@click.option("--scene", "only", multiple=True, help="Play only scenes whose file name starts so.")
@click.option("--all", "everything", is_flag=True, help="The whole library of scenes, in the languages of each.")
@click.option("--keep", is_flag=True, help="Keep the folder with database, books and logs.")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write a JUnit report there.")
@click.option("--report", "page", type=click.Path(path_type=Path), help="Write a page with ladders there, as HTML.")
def command(
    sabotage: str | None,
    speed: float,
    only: tuple[str, ...],
    everything: bool,
    keep: bool,
    junit_file: Path | None,
    page: Path | None,
) -> None:
    """Recorded callers pay, fail and attack; each scene is printed as a ladder and checked at the bank."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Starting a sandbox bank and the service, in a folder of their own ...")
    started = time.monotonic()
    with stage(sabotage=sabotage, keep=keep) as running:
        console.print(f"Ready after {time.monotonic() - started:.0f} s: {running.url}, logs in {running.logs}\n")
        results = list(scenes.play_all(running, console, speed, only, datetime.now(UTC), everything=everything))
    calls = [(result.record, result.problems) for result in results]
    if junit_file:
        junit.write(junit_file, calls)
    if page:
        report.write(page, calls, "Scenes of the demo", datetime.now(UTC))
    wrong = [result for result in results if result.problems]
    console.rule()
    for result in results:
        mark = "[red]WRONG[/]" if result.problems else "[green]right[/]"
        console.print(f"{mark}  {result.name}")
        for problem in result.problems:
            console.print(f"       [red]{problem}[/]")
    console.print(f"\n{len(results) - len(wrong)} of {len(results)} scenes right, {time.monotonic() - started:.0f} s")
    sys.exit(1 if wrong else 0)
