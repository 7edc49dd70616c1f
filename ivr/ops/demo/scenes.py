"""The scenes of the demo: who is needed for each, and what must be true after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from ivr.approval import freezes, policies
from ivr.approval.policy import Role
from ivr.approval.wards import WardSettings, policy_of
from ivr.call import bill_calls
from ivr.customers.enrolment import issue_code
from ivr.ops.demo import cast
from ivr.ops.demo.approver import PIN, Approver
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
HOME, SCHOOL, NEW = "1 Main Street, Springfield", "2 School Lane, Springfield", "9 New Road, Shelbyville"
LOWERED = policy_of(WardSettings(small=1_500))  # by the guardian who calls


@dataclass(frozen=True)
class Result:
    """One scene, played."""

    name: str
    record: CallRecord
    problems: list[str]


def approver_of(phone: str) -> str:
    """The e-mail address of whoever looks after the customer with this telephone."""
    return f"approver{phone[1:]}@example.com"


def telephone_of(ward: str) -> str:
    """The telephone of whoever looks after the customer with that one."""
    return ward.replace("+1415", "+1416")


def ward_of(telephone: str) -> str:
    """The other way round."""
    return telephone.replace("+1416", "+1415")


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
        self._alice(phone, test=test)
        self.owes(phone, 4210, MERCHANT)

    def _alice(self, phone: str, *, test: bool = True) -> None:
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

    def ward(self, phone: str, role: Role = Role.GUARDIAN) -> None:
        """The same without a bill, with somebody who looks after her, and two addresses."""
        self._alice(phone)
        approver = cast.member(
            self.stage, telephone_of(phone), (), self.now, pin=PIN, emails=[approver_of(phone)]
        )
        cast.looks_after(self.stage, role, approver, self._known[phone], self.now)
        cast.lives_at(self.stage, self._known[phone], self.now, home=HOME, school=SCHOOL)

    def small_to_a_known_address(self, phone: str) -> None:
        self.ward(phone)
        self.owes(phone, 1250, MERCHANT, HOME)

    def small_to_a_new_address(self, phone: str) -> None:
        self.ward(phone)
        self.owes(phone, 1250, MERCHANT, NEW)

    def large(self, phone: str) -> None:
        self.ward(phone)
        self.owes(phone, 31000, MERCHANT)

    def under_pressure(self, phone: str) -> None:
        """A grown-up who has named a supervisor for all her payments."""
        self.ward(phone, Role.SUPERVISOR)
        self.owes(phone, 4900, "Urgent Help Desk")

    def rung(self, phone: str) -> None:
        """A customer who agreed to be rung up about bills, and has one that rings."""
        self._alice(phone)
        payer = self._known[phone].customer_id
        self.values["bill"] = cast.bill(self.stage, payer, 4210, MERCHANT, self.now).id
        with self.stage.database.transaction() as session:
            bill_calls.agree(session, payer, who="the demo", channel="the demo", now=self.now)

    def guardian(self, phone: str) -> None:
        """Somebody who looks after a ward, and calls herself."""
        self.ward(ward_of(phone))

    def nobody(self, phone: str) -> None:
        """A number that no customer has."""

    def nobody_new(self, phone: str) -> None:
        """The customer of the scene before, who owes what she owed."""

    def _cards(self, *names: str) -> list[str]:
        return [self.values[f"card.{name}"] for name in names]

    def owes(self, phone: str, amount_minor: int, merchant: str, ship_to: str | None = None) -> None:
        cast.bill(self.stage, self._known[phone].customer_id, amount_minor, merchant, self.now, ship_to)

    def problems(self, kind: str, phone: str) -> list[str]:
        """What a scene must have left behind besides what its file says."""
        with self.stage.database.transaction() as session:
            if kind == "19" and not freezes.is_frozen(session, self._known[phone].customer_id):
                return ["her payments were not stopped"]
            if kind == "22" and policies.own(session, self._known[ward_of(phone)].customer_id)[1] != LOWERED:
                return ["the ward's limits were not changed"]
        return []

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
    "16": Players.small_to_a_known_address,
    "17": Players.small_to_a_new_address,
    "18": Players.large,
    "19": Players.under_pressure,
    "22": Players.guardian,
    "23": Players.rung,
    **dict.fromkeys(("01", "02", "03", "05", "07", "08", "09", "10"), Players.alice),
}

#: What whoever looks after the payer answers, on the page, while the call goes on.
ANSWERS = {"17": "approve", "18": "approve", "19": "fraud"}

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
    stage, approver = players.stage, None
    if answer := ANSWERS.get(kind):
        approver = Approver(stage, approver_of(scenario.caller.from_), answer)
        approver.start()
    record = run_call(
        scenario,
        base_url=stage.url,
        account_sid=stage.settings.account_sid,
        auth_token=stage.settings.auth_token.get_secret_value(),
        speed=speed,
        audio=shipped("fixtures/audio"),
        values=players.values,
        waveforms=True,
    )
    problems = problems_of(scenario, record, inside, before)
    if approver:
        approver.join()
        problems += [f"the approver: {approver.problem}"] * bool(approver.problem)
    problems += players.problems(kind, scenario.caller.from_)
    players.remember(record)
    console.print(ladder(record))
    return Result(scenario.name, record, problems)
