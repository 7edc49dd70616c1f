"""A call as a ladder that a person can read: who did what, when, and how long the service took."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ivr.ops.simcarrier.record import (
    Answered,
    CallRecord,
    Dialled,
    Ended,
    Event,
    Gathered,
    Heard,
    KeysLost,
    Requested,
    Streamed,
)

MAX_TEXT = 90
_STEP = re.compile(r"/voice/turn/(\d+)")
_DEEDS = {"speech": "says", "keys": "keys", "silence": "is silent", "hangup": "hangs up"}


def ladder(record: CallRecord) -> RenderableType:
    """The call for ``rich.print``; what is secret was masked when it was recorded."""
    table = Table(box=box.SIMPLE_HEAD, title=record.scenario, title_justify="left", title_style="bold")
    table.add_column("s", justify="right", style="dim", no_wrap=True)
    table.add_column("who", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("ms", justify="right", no_wrap=True)
    decided = dict(record.decisions)
    for event in sorted(record.events, key=lambda event: event.at_s):
        who, what, ms = _row(event)
        table.add_row(f"{event.at_s:.1f}", who, what, ms)
        step = _STEP.search(event.url) if isinstance(event, Requested) else None
        if step and (decision := decided.pop(int(step[1]), None)):
            table.add_row("", "", Text(f"decided: {decision}", style="magenta"), "")
    lines: list[RenderableType] = [table]
    lines += [Text(f"error   {error}", style="red") for error in record.errors]
    if record.mismatch:
        lines.append(Text(f"wrong   {record.mismatch}", style="red"))
    return Group(*lines)


def _row(event: Event) -> tuple[Text, Text, str]:
    match event:
        case Requested():
            return _requested(event)
        case Heard():
            what = Text(event.prompt or "(no prompt of ours)", style="bold")
            if event.text:
                text = event.text if len(event.text) <= MAX_TEXT else event.text[: MAX_TEXT - 1] + "…"
                what.append(f"  {text}", style="not bold dim")
            return Text("service", style="cyan"), what, ""
        case Answered():
            deed = f"{_DEEDS[event.kind]} {event.what}".strip()
            deed += f"  {event.seconds:.1f} s" if event.seconds else ""
            return Text("caller", style="green"), Text(deed), ""
        case KeysLost():
            return Text("carrier"), Text(f"loses {event.count} keys: nothing listens", style="yellow"), ""
        case Gathered():
            return Text("carrier", style="dim"), Text(f"gathered {event.keys} keys", style="dim"), ""
        case Streamed():
            return _streamed(event)
        case Dialled():
            return Text("carrier"), Text(f"dials {event.number}"), ""
        case Ended():
            return Text(event.by, style="dim"), Text(f"the call is over: {event.status}", style="dim"), ""
    raise TypeError(f"no row for {type(event).__name__}")


def _requested(event: Requested) -> tuple[Text, Text, str]:
    what = Text(f"{event.method} {urlsplit(event.url).path}", style="dim")
    if event.status is not None:
        what.append(f" → {event.status}", style="dim" if event.status < 300 else "red")
    if event.note:
        what.append(f"  {event.note}", style="yellow")
    return Text("carrier", style="dim"), what, f"{event.ms:.0f}"


def _streamed(event: Streamed) -> tuple[Text, Text, str]:
    what = f"ends the stream after {event.seconds:.1f} s"
    if event.cut_off:
        what += ", while the caller still spoke"
    ms = "" if event.end_of_turn_ms is None else f"{event.end_of_turn_ms:.0f}"
    who = Text("service", style="cyan") if event.closed_by == "service" else Text("caller", style="green")
    return who, Text(what), ms
