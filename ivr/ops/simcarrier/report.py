"""Calls as one HTML page: a table of scenes, and of each call its timeline, with outlines of what was said, and ladder.

The page needs nothing beside it: no script, no other file. Outlines are drawn of recordings that are known to hold
published test numbers alone (``Voices.published``), and of calls into a service of this machine alone
(``run_call(waveforms=True)``); no sound is in it at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ivr.log import scrub
from ivr.ops.simcarrier.record import WAVE_STEP_S, Answered, CallRecord, Ended, Event, Heard, Requested, Waveform
from ivr.ops.simcarrier.rungs import Rung, rungs

WIDTH = 1000.0  # of a timeline, in its own units
LEAST_S = 8.0  # that a timeline shows, however short the call
CHARACTER = 5.8  # of a label
WAVE_MIDDLE, WAVE_HALF = 56.0, 22.0
TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300)  # seconds between two marks of the axis
MOST_TICKS = 14


@dataclass(frozen=True)
class Bar:
    """Something that lasts, from ``x`` to ``x + width``."""

    kind: str
    x: float
    width: float
    title: str

    @property
    def label(self) -> str:
        """Its title where there is room for it, or what of it has room."""
        room = int((self.width - 8) / CHARACTER)
        if room >= len(self.title):
            return self.title
        return f"{self.title[: room - 1]}…" if room >= 5 else ""


@dataclass(frozen=True)
class Mark:
    """Something at one moment."""

    kind: str
    x: float
    title: str


@dataclass(frozen=True)
class Timeline:
    seconds: float
    bars: tuple[Bar, ...]
    waves: tuple[str, ...]  # paths of SVG
    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Scene:
    """One call of the page."""

    name: str
    caller: str
    seconds: float
    problems: tuple[str, ...]
    rungs: tuple[Rung, ...]
    timeline: Timeline


def write(path: Path, calls: Sequence[tuple[CallRecord, Sequence[str]]], title: str, made_at: datetime) -> None:
    """The page of these calls and their problems."""
    scenes = [_scene(record, problems) for record, problems in calls]
    page = _template().render(title=title, made_at=made_at, scenes=scenes)
    path.write_text(page, encoding="utf-8")


def timeline(record: CallRecord, problems: Sequence[str] = ()) -> Timeline:
    """The call from left to right."""
    events = sorted(record.events, key=lambda event: event.at_s)
    seconds = max([LEAST_S, *(event.at_s for event in events)])
    scale = WIDTH / seconds
    ends = max((event.at_s for event in events), default=0.0)
    return Timeline(
        seconds=seconds,
        bars=tuple(_bars(events, scale)),
        waves=tuple(_path(wave, scale, _until(wave, events)) for wave in record.waveforms),
        marks=tuple(_marks(record, events, scale)) + tuple(Mark("wrong", ends * scale, p) for p in problems[:1]),
        ticks=tuple(_ticks(seconds, scale)),
    )


def _scene(record: CallRecord, problems: Sequence[str]) -> Scene:
    # Everything was masked when it was recorded; the scrubber of the logs is the second pair of eyes.
    said = tuple(scrub(problem) for problem in problems)
    seconds = sum(ended.at_s for ended in record.of(Ended))
    return Scene(record.scenario, record.caller, seconds, said, tuple(rungs(record)), timeline(record, said))


def _bars(events: Sequence[Event], scale: float) -> Iterator[Bar]:
    for number, event in enumerate(events):
        if isinstance(event, Heard):
            following = next((e.at_s for e in events[number + 1 :] if e.at_s > event.at_s), event.at_s + 1)
            title = event.prompt or "(no prompt of ours)"
            yield Bar("prompt", event.at_s * scale, max(2.0, (following - event.at_s) * scale), title)
        elif isinstance(event, Answered) and event.kind != "hangup":
            yield Bar(event.kind, event.at_s * scale, max(3.0, event.seconds * scale), f"{event.kind} {event.what}")


def _marks(record: CallRecord, events: Sequence[Event], scale: float) -> Iterator[Mark]:
    at_s = 0.0
    for rung in rungs(record):
        at_s = rung.at_s if rung.at_s is not None else at_s
        if rung.tone == "decided":
            yield Mark("decided", at_s * scale, rung.what)
    for event in events:
        if isinstance(event, Requested):
            bad = event.status is None or (event.status >= 300 and not event.meant)
            kind = "wrong" if bad and not event.note else "odd" if event.note else "request"
            yield Mark(kind, event.at_s * scale, f"{event.method}, {event.ms:.0f} ms {event.note}".strip())
        elif isinstance(event, Answered) and event.kind == "hangup":
            yield Mark("hangup", event.at_s * scale, "hangs up")


def _until(wave: Waveform, events: Sequence[Event]) -> float:
    """When somebody stopped listening to it: what she went on to say then, nobody heard."""
    return next((e.at_s for e in events if e.at_s > wave.at_s and not isinstance(e, Heard | Answered)), wave.at_s + 60)


def _path(wave: Waveform, scale: float, until_s: float) -> str:
    """The outline, there and back; loud and soft speech shall both be seen, so its loudest point fills the lane."""
    loudest = max(wave.peaks, default=0.0) or 1.0
    heard = wave.peaks[: max(2, int((until_s - wave.at_s) / WAVE_STEP_S) + 1)]
    points = [((wave.at_s + i * WAVE_STEP_S) * scale, peak / loudest * WAVE_HALF) for i, peak in enumerate(heard)]
    there = " ".join(f"{x:.1f},{WAVE_MIDDLE - height:.1f}" for x, height in points)
    back = " ".join(f"{x:.1f},{WAVE_MIDDLE + height:.1f}" for x, height in reversed(points))
    return f"M{there} L{back} Z"


def _ticks(seconds: float, scale: float) -> Iterator[tuple[float, int]]:
    apart = next((tick for tick in TICKS if seconds / tick <= MOST_TICKS), TICKS[-1])
    yield from ((second * scale, second) for second in range(0, int(seconds) + 1, apart))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ivr.ops.simcarrier", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["language"] = _language
    return environment.get_template("report.html")


def _language(text: str) -> str:
    """The language of a prompt's words, for whoever has the page read out."""
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
