"""A call as a ladder on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ivr.ops.simcarrier.record import CallRecord
from ivr.ops.simcarrier.rungs import Rung, rungs

MAX_TEXT = 90
_TONES = {"": "", "said": "bold", "quiet": "dim", "odd": "yellow", "wrong": "red", "decided": "magenta"}
_WHO = {"service": "cyan", "caller": "green", "carrier": "dim", "": ""}


def ladder(record: CallRecord) -> RenderableType:
    """The call for ``rich.print``; what is secret was masked when it was recorded."""
    table = Table(box=box.SIMPLE_HEAD, title=record.scenario, title_justify="left", title_style="bold")
    table.add_column("s", justify="right", style="dim", no_wrap=True)
    table.add_column("who", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("ms", justify="right", no_wrap=True)
    for rung in rungs(record):
        at = "" if rung.at_s is None else f"{rung.at_s:.1f}"
        table.add_row(
            at, Text(rung.who, style=_WHO[rung.who]), _what(rung), "" if rung.ms is None else f"{rung.ms:.0f}"
        )
    lines: list[RenderableType] = [table]
    lines += [Text(f"error   {error}", style="red") for error in record.errors]
    if record.mismatch:
        lines.append(Text(f"wrong   {record.mismatch}", style="red"))
    return Group(*lines)


def _what(rung: Rung) -> Text:
    what = Text(rung.what, style=_TONES[rung.tone])
    if rung.more:
        more = rung.more if len(rung.more) <= MAX_TEXT else rung.more[: MAX_TEXT - 1] + "…"
        what.append(f"  {more}", style="not bold dim" if rung.tone == "said" else "yellow")
    return what
