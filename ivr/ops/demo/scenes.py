"""The scenes of the demo: who is needed for each, and what must be true after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from ivr.customers.enrolment import issue_code
from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage
from ivr.ops.simcarrier.checks import Inside, look, problems_of
from ivr.ops.simcarrier.ladder import ladder
from ivr.ops.simcarrier.record import CallRecord
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import Scenario, load
from ivr.resources import shipped
from ivr.store import redis

SPEED = 16.0
MERCHANT = "Corner Bookshop"


@dataclass(frozen=True)
class Result:
    """One scene, played."""

    name: str
    record: CallRecord
    problems: list[str]


class Players:
    """Makes the customers that a scene needs, and remembers what a later scene needs to know."""

    def __init__(self, stage: Stage, now: datetime) -> None:
        self.stage = stage
        self.now = now
        self.values = {f"card.{name}": pan for name, pan in cast.pans().items()}
        self._known: dict[str, cast.Member] = {}

    def prepare(self, scenario: Scenario, kind: str) -> None:
        """The customer behind the scene's telephone number, once, and a bill."""
        PREPARATIONS[kind](self, scenario.caller.from_)

    def alice(self, phone: str, *, test: bool = True) -> None:
        """A customer with two cards, a voiceprint that is no longer new, a PIN, and one bill."""
        if phone not in self._known:
            self._known[phone] = cast.member(
                self.stage,
                phone,
                self._cards("alice", "alice_second"),
                self.now,
                voices=[shipped(f"fixtures/audio/alice/enrol_{i}.wav") for i in (1, 2, 3)],
                pin=cast.PIN,
                test=test,
            )
        self.owes(phone, 4210, MERCHANT)

    def real(self, phone: str) -> None:
        """The same, but no test customer: recordings are not let through for her, nor can the sandbox debit her."""
        self.alice(phone, test=False)

    def dora(self, phone: str) -> None:
        """A customer who never gave a voiceprint."""
        self._known[phone] = cast.member(self.stage, phone, self._cards("dora"), self.now, pin=cast.PIN)
        self.owes(phone, 4210, MERCHANT)

    def wei(self, phone: str) -> None:
        """A customer who speaks Mandarin, with a voiceprint that is no longer new."""
        self._known[phone] = cast.member(
            self.stage,
            phone,
            self._cards("dora"),
            self.now,
            voices=[shipped(f"fixtures/audio/wei/enrol_{i}.wav") for i in (1, 2, 3)],
            locale="zh",
        )
        self.owes(phone, 4210, MERCHANT)

    def keying_in_chinese(self, phone: str) -> None:
        """The same customer without a voiceprint."""
        self._known[phone] = cast.member(
            self.stage, phone, self._cards("dora"), self.now, pin=cast.PIN, locale="zh"
        )
        self.owes(phone, 4210, MERCHANT)

    def newcomer(self, phone: str) -> None:
        """A customer with a card and nothing else, whom the operator has given a code."""
        self._known[phone] = new = cast.member(self.stage, phone, self._cards("alice"), self.now)
        with self.stage.database.transaction() as session:
            self.values["code"] = issue_code(session, new.customer_id, self.stage.keyring, self.now)

    def returning(self, phone: str) -> None:
        """The newcomer, enrolled by now, with three bills."""
        for amount_minor, merchant in ((1999, MERCHANT), (1250, "Green Grocer"), (700, "Tea House")):
            self.owes(phone, amount_minor, merchant)

    def nobody(self, phone: str) -> None:
        """A number that no customer has."""

    def nobody_new(self, phone: str) -> None:
        """The customer of the scene before, who owes what she owed."""

    def _cards(self, *names: str) -> list[str]:
        return [self.values[f"card.{name}"] for name in names]

    def owes(self, phone: str, amount_minor: int, merchant: str) -> None:
        cast.bill(self.stage, self._known[phone].customer_id, amount_minor, merchant, self.now)

    def remember(self, record: CallRecord) -> None:
        """What a recording of this call would play back tomorrow."""
        self.values.update({f"yesterday.{name}": value for name, value in record.told.items()})


PREPARATIONS: dict[str, Callable[[Players, str], None]] = {
    "04": Players.nobody,
    "06": Players.dora,
    "13": Players.dora,
    "11": Players.newcomer,
    "12": Players.returning,
    "20": Players.wei,
    "21": Players.keying_in_chinese,
    "14": Players.real,
    "15": Players.nobody_new,
    **dict.fromkeys(("01", "02", "03", "05", "07", "08", "09", "10"), Players.alice),
}

#: Scenes of a service that speaks Chinese, which the demo does not start.
IN_CHINESE = ("20", "21")

#: Scenes that go on where another ended.
AFTER = {"08": "01", "12": "11", "15": "14"}


def play_all(stage: Stage, console: Console, speed: float, only: tuple[str, ...], now: datetime) -> Iterator[Result]:
    """Play scenes in order, print each as a ladder, and check it. ``only``: the numbers wanted; else all in English."""
    players = Players(stage, now)
    inside = Inside(stage.database, redis.connect(stage.settings), stage.books, cast.pans(), stage.logs)
    wanted = {*only, *(AFTER[number] for number in only if number in AFTER)}
    for path in sorted(shipped("fixtures/calls").glob("*.toml")):
        kind = path.name[:2]
        if kind in PREPARATIONS and (kind in wanted if wanted else kind not in IN_CHINESE):
            yield _play(path, kind, players, inside, console, speed)


def _play(path: Path, kind: str, players: Players, inside: Inside, console: Console, speed: float) -> Result:
    scenario = load(path)
    players.prepare(scenario, kind)
    before = look(inside)
    stage = players.stage
    record = run_call(
        scenario,
        base_url=stage.url,
        account_sid=stage.settings.account_sid,
        auth_token=stage.settings.auth_token.get_secret_value(),
        speed=speed,
        audio=shipped("fixtures/audio"),
        values=players.values,
    )
    problems = problems_of(scenario, record, inside, before)
    players.remember(record)
    console.print(ladder(record))
    return Result(scenario.name, record, problems)
