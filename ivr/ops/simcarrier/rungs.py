"""A call as the rungs of a ladder, for the terminal and the page: who did what, when, how long the service took."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ivr.ops.simcarrier.record import (
    Answered,
    CallRecord,
    Dialled,
    Ended,
    Event,
    Gathered,
    Heard,
    KeysLost,
    Reopened,
    Requested,
    Streamed,
)

Who = Literal["service", "caller", "carrier", ""]
#: "said" is a prompt; "quiet" the machinery; "odd" what was done to it on the way; "wrong" what should not be.
Tone = Literal["", "said", "quiet", "odd", "wrong", "decided"]

_STEP = re.compile(r"/voice/turn/(\d+)")
_DEEDS = {"speech": "says", "keys": "keys", "silence": "is silent", "hangup": "hangs up"}


@dataclass(frozen=True)
class Rung:
    """One line. What is secret was masked when it was recorded."""

    at_s: float | None  # None: with the line before
    who: Who
    what: str
    more: str = ""  # the words of a prompt, the fate of a request
    tone: Tone = ""
    ms: float | None = None


def rungs(record: CallRecord) -> Iterator[Rung]:
    """The whole call, in order."""
    decided = dict(record.decisions)
    for event in sorted(record.events, key=lambda event: event.at_s):
        yield _rung(event)
        answered = isinstance(event, Requested) and event.status is not None and event.status < 300
        step = _STEP.search(event.url) if isinstance(event, Requested) and answered else None
        if step and (decision := decided.pop(int(step[1]), None)):
            yield Rung(None, "", f"decided: {decision}", tone="decided")


def _rung(event: Event) -> Rung:
    at_s = event.at_s
    match event:
        case Requested():
            what = f"{event.method} {urlsplit(event.url).path}"
            if event.status is not None:
                what += f" → {event.status}"
            tone: Tone = "wrong" if event.status and event.status >= 300 and not event.meant else "quiet"
            return Rung(at_s, "carrier", what, event.note, tone, event.ms)
        case Heard():
            return Rung(at_s, "service", event.prompt or "(no prompt of ours)", event.text, "said")
        case Answered():
            seconds = f", {event.seconds:.1f} s" if event.seconds else ""
            return Rung(at_s, "caller", f"{_DEEDS[event.kind]} {event.what}".strip() + seconds)
        case KeysLost():
            return Rung(at_s, "carrier", f"loses {event.count} keys: nothing listens", tone="odd")
        case Gathered():
            return Rung(at_s, "carrier", f"gathered {event.keys} keys", tone="quiet")
        case Streamed():
            what = f"ends the stream after {event.seconds:.1f} s"
            if event.cut_off:
                what += ", while the caller still spoke"
            return Rung(at_s, "service" if event.closed_by == "service" else "caller", what, ms=event.end_of_turn_ms)
        case Reopened():
            return Rung(at_s, "service", "closes a stream that was opened with a used token", tone="odd")
        case Dialled():
            return Rung(at_s, "carrier", f"dials {event.number}")
        case Ended():
            who: Who = "service" if event.by == "service" else "caller"
            return Rung(at_s, who, f"the call is over: {event.status}", tone="quiet")
    raise TypeError(f"no rung for {type(event).__name__}")
