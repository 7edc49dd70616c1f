"""What happened in a call, in order: for the ladder, the checks and the reports."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ivr.speech.pan import masked

_DIGITS = re.compile(r"\d(?:[ -]?\d){4,}")  # four and less are last fours, challenges and choices


def mask(text: str) -> str:
    """``text`` without secrets: a card number down to its last four digits, a PIN or a code entirely.

    >>> mask("4111 1111 1111 1111#"), mask("271828"), mask("4 7 1 9")
    ('•••• 1111#', '••••', '4 7 1 9')
    """
    return _DIGITS.sub(lambda match: masked(re.sub(r"\D", "", match[0])), text)


@dataclass(frozen=True)
class Event:
    """Something at ``at_s`` seconds of the call."""

    at_s: float


@dataclass(frozen=True)
class Requested(Event):
    """One try of a webhook. ``ms`` is wall time; ``note`` says what the scenario or the network did to it."""

    method: str
    url: str
    status: int | None
    ms: float
    token: str
    note: str = ""
    meant: bool = False  # the scenario wanted this very status: a refusal


@dataclass(frozen=True)
class Heard(Event):
    """A prompt that began to play: its id, or None for words that no prompt has."""

    prompt: str | None
    text: str  # masked


@dataclass(frozen=True)
class Answered(Event):
    """What the caller did: ``kind`` is speech, keys, silence or hangup; ``what`` is masked."""

    kind: str
    what: str
    seconds: float


@dataclass(frozen=True)
class KeysLost(Event):
    """Keys that were typed while nothing listened."""

    count: int


@dataclass(frozen=True)
class Gathered(Event):
    """The end of a ``<Gather>`` or ``<Record>``: how many keys it took."""

    keys: int


@dataclass(frozen=True)
class Streamed(Event):
    """The end of a media stream.

    ``end_of_turn_ms`` is the wall time from sending the last frame with speech in it, or the last key, to the
    service's close; None when the caller hung up, said nothing, or was cut off. It means something at speed 1
    only.
    """

    seconds: float
    frames: int
    closed_by: str  # "service" or "caller"
    end_of_turn_ms: float | None
    cut_off: bool  # the service closed while the caller still spoke


@dataclass(frozen=True)
class Reopened(Event):
    """The service closed a stream that was opened with a token already used, and sent nothing into it."""


@dataclass(frozen=True)
class Dialled(Event):
    number: str


@dataclass(frozen=True)
class Ended(Event):
    """The end of the call. ``by`` says which end hung up."""

    status: str
    by: str


@dataclass(frozen=True)
class Waveform:
    """The outline of something said: from 0 to 1, the loudest sample of every ``WAVE_STEP_S``. Nobody can hear it."""

    at_s: float
    peaks: tuple[float, ...] = field(repr=False)


WAVE_STEP_S = 0.04

E = TypeVar("E", bound=Event)


@dataclass
class CallRecord:
    """One call as the carrier saw it."""

    scenario: str
    call_sid: str
    caller: str
    events: list[Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # of the service, as the carrier would log them
    mismatch: str | None = None  # the prompt expected and those heard instead
    decisions: dict[int, str] = field(default_factory=dict)  # of the service by step, where readable
    told: dict[str, str] = field(default_factory=dict, repr=False)  # values in prompts: the digits to say
    waveforms: list[Waveform] = field(default_factory=list)  # of published recordings only; not in the JSON

    def add(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def heard(self) -> list[str]:
        """Ids of the prompts heard, in order."""
        return [event.prompt for event in self.of(Heard) if event.prompt]

    @property
    def status(self) -> str:
        """The carrier's last CallStatus: completed, busy, no-answer or failed."""
        ended = self.of(Ended)
        return ended[-1].status if ended else "in-progress"

    @property
    def end_of_turn_ms(self) -> list[float]:
        """Of every stream that the service closed after the caller had spoken or keyed."""
        return [event.end_of_turn_ms for event in self.of(Streamed) if event.end_of_turn_ms is not None]

    def as_json(self) -> dict[str, Any]:
        """The whole record as plain values; secrets are masked already."""
        return {
            "scenario": self.scenario,
            "call_sid": self.call_sid,
            "caller": self.caller,
            "status": self.status,
            "events": [{"event": type(event).__name__.lower(), **asdict(event)} for event in self.events],
            "errors": self.errors,
            "mismatch": self.mismatch,
            "decisions": {str(step): decision for step, decision in self.decisions.items()},
        }
