"""Scenarios: one TOML file is one call. See docs/calls.md."""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ivr.locales import Locale

Keys = Annotated[str, StringConstraints(min_length=1, pattern=r"^(\{[\w.-]+\}|[0-9*#])+$")]


class ScenarioError(Exception):
    """A scenario file that cannot be played; the message names the file, the key and what is wrong."""


class _Part(BaseModel):
    # A validation error must not quote keys: they may be a card number or a PIN.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)


class Repeat(_Part):
    """The same request again, after its answer."""

    times: int = Field(default=1, ge=1, le=20)
    delay_s: float = Field(default=0.0, ge=0)
    fresh_token: bool = False  # replayed by somebody else: same signature, another idempotency token


class Faults(_Part):
    """What the network does to the next webhook."""

    repeat_request: Repeat | None = None
    delay_request_s: float = Field(default=0.0, ge=0)  # it arrives late
    drop_request: bool = False  # it never arrives, and is tried again with the same token
    drop_response: bool = False  # its answer never arrives, and it is tried again with the same token


NO_FAULTS = Faults()


class CallerSpec(_Part):
    """Who calls, from where."""

    from_: str = Field(alias="from")
    attestation: str | None = None
    rung: str | None = None  # she does not call: the service has her rung, and this page, with {values}, asked
    answered_by: str = "human"  # when she is rung: human, or machine_start and the like
    voice: str | None = None  # folder of this person's clips
    seed: int | None = None  # of takes and gaps; default: from the scenario's name
    dialled_for_s: float = Field(default=5.0, ge=0)  # how long an agent talks with the caller


class Turn(Faults):
    """What the caller waits for, and what she does then."""

    expect: str | None = None
    play: str | None = None
    say: str | None = None
    keys: Keys | None = None
    silence: float | None = Field(default=None, ge=0)
    noise: str | None = None
    through: Literal["alaw", "gsm"] | None = None  # what is said was recorded, and is played over another line
    gain_db: float = Field(default=0.0, ge=-40, le=20)
    hangup: bool = False
    barge: bool = False
    key_gap_ms: int = Field(default=150, ge=10)

    @property
    def faults(self) -> Faults:
        return Faults(**{name: getattr(self, name) for name in Faults.model_fields})

    @property
    def speaks(self) -> bool:
        return self.play is not None or self.say is not None

    @property
    def only_listens(self) -> bool:
        return not (self.speaks or self.keys or self.silence is not None or self.hangup or self.noise)

    @model_validator(mode="after")
    def _one_thing_at_a_time(self) -> Turn:
        done = [name for name in ("play", "say", "keys", "silence") if getattr(self, name) is not None]
        if len(done) > 1:
            raise ValueError(f"{' and '.join(done)} cannot stand in one turn")
        if self.noise and self.silence is None and not self.speaks:
            raise ValueError("noise needs silence = SECONDS, or something said over it")
        if (self.through or self.gain_db) and not self.speaks:
            raise ValueError("through and gain_db need something said")
        if self.only_listens and self.expect is None:
            raise ValueError("nothing is expected and nothing done")
        return self


class Carrier(_Part):
    """What the carrier does all through the call."""

    repeat_every_request: Repeat | None = None
    forge_stream_token: bool = False  # streams come with a token that the service did not give
    reopen_every_stream: bool = False  # somebody opens each stream once more, with the token that it came with
    alter_every_request: bool = False  # each is sent again with another form under its signature: 403, or it is wrong


class End(_Part):
    """What must be true when the call is over; what is absent is not checked."""

    payment: Literal["paid", "none", "refused", "linked"] | None = None
    bill: Literal["open", "paid"] | None = None
    debits: int | None = Field(default=None, ge=0)  # captures that this call added to the bank's books
    customer: str | None = None  # customer number, where the caller id does not tell
    heard: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    dialled: bool | None = None


class Scenario(_Part):
    """One call: a frozen, checked TOML file."""

    name: str
    locales: tuple[Locale, ...] = ("en",)  # of a service in which the call goes as it is written here
    caller: CallerSpec
    carrier: Carrier = Carrier()
    turns: tuple[Turn, ...] = Field(default=(), alias="turn")
    whenever: tuple[Turn, ...] = ()  # what she does at a prompt, as often as she hears it and no turn is due
    end: End = End()
    folder: Path = Path()  # where the file lay; its own recordings are looked for there

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode()) if self.caller.seed is None else self.caller.seed

    @model_validator(mode="after")
    def _whenever_what(self) -> Scenario:
        if any(turn.expect is None for turn in self.whenever):
            raise ValueError("a [[whenever]] needs the prompt that it expects")
        return self


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises ScenarioError."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    return parse(table, str(path), path.parent)


def parse(table: Mapping[str, object], source: str, folder: Path = Path()) -> Scenario:
    """A scenario from a table as TOML gives it. ``source`` is named in a ScenarioError."""
    try:
        return Scenario.model_validate({**table, "folder": folder})
    except ValidationError as error:
        problems = [f"{source}: {_key(problem['loc'])}: {_what(problem)}" for problem in error.errors()]
        raise ScenarioError("\n".join(problems)) from None


def _key(location: tuple[str | int, ...]) -> str:
    """("turn", 1, "keys") is the second [[turn]]'s keys: "turn 2, keys"."""
    words: list[str] = []
    for part in location:
        if isinstance(part, int) and words:
            words[-1] += f" {part + 1}"
        else:
            words.append(str(part))
    return ", ".join(words) or "the file"


def _what(problem: Mapping[str, object]) -> str:
    if problem["type"] == "extra_forbidden":
        return "no such key"
    if problem["type"] == "string_pattern_mismatch":
        return "only the keys 0-9 * # and {values}"
    return str(problem["msg"]).removeprefix("Value error, ").removesuffix(" - hidden")
