"""What must be true when a call is over: as the carrier saw it, and as it stands inside the service."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine, MetaData, Table, inspect, select
from sqlalchemy.orm import Session

from ivr.call.models import Turn
from ivr.customers.lookup import customer_by_number, customers_for_caller, normalise_caller
from ivr.customers.models import Bill, BillStatus
from ivr.ops.simcarrier.record import CallRecord, Dialled, mask
from ivr.ops.simcarrier.scenario import End, Scenario
from ivr.payments.models import Payment
from ivr.payments.states import FINAL, State
from ivr.speech.numbers import DIGIT_OF
from ivr.store.db import Database

SETTLE_S = 15.0  # for the worker to finish a debit that the caller did not wait for
SETTLE_STEP_S = 0.05
#: How each digit may be written out, in any language.
_WORDS = tuple(f"(?:{'|'.join(w for w, d in DIGIT_OF.items() if d == digit)})" for digit in "0123456789")


@dataclass(frozen=True)
class Inside:
    """Handles on the service under test. ``cards`` are the test card numbers by name, never in its repr."""

    database: Database
    redis: redis.Redis
    books: Callable[[], Mapping[str, Any]]  # the sandbox bank's GET /_books
    cards: Mapping[str, str]
    logs: Path | None = None  # a file, or a folder of *.log

    def __repr__(self) -> str:
        return f"Inside({self.database.engine.url!r})"


@dataclass(frozen=True)
class Before:
    """What was so before the call."""

    open_bills: frozenset[str]
    captures: frozenset[int]


def look(inside: Inside) -> Before:
    """The state to compare with after the call."""
    with inside.database.transaction() as session:
        bills = frozenset(session.scalars(select(Bill.id).where(Bill.status == BillStatus.OPEN)))
    return Before(bills, frozenset(capture["id"] for capture in inside.books()["captures"]))


def problems_of(
    scenario: Scenario, record: CallRecord, inside: Inside | None = None, before: Before | None = None
) -> list[str]:
    """Everything that is not as the scenario says; empty when all is well.

    Without ``inside`` only what the carrier saw is checked: see :func:`unchecked`.
    """
    problems = outside(scenario.end, record)
    if inside and before:
        settle(inside.database, record.call_sid)
        record.decisions.update(decisions(inside.database, record.call_sid))
        problems += money(scenario, record, inside, before)
        problems += [f"the number of card {name} stands in {place}" for name, place in leaks(inside)]
    return problems


def unchecked(end: End) -> list[str]:
    """The keys of ``[end]`` that only a look inside the service can check."""
    return [key for key in ("payment", "bill", "debits") if getattr(end, key) is not None]


def outside(end: End, record: CallRecord) -> list[str]:
    """What the carrier itself could see."""
    problems = [record.mismatch] if record.mismatch else []
    problems += record.errors
    problems += [f"{prompt} was not heard" for prompt in end.heard if prompt not in record.heard]
    problems += [f"{prompt} was heard" for prompt in end.never if prompt in record.heard]
    dialled = bool(record.of(Dialled))
    if end.dialled is not None and end.dialled != dialled:
        problems.append("an agent was dialled" if dialled else "no agent was dialled")
    return problems


def settle(database: Database, call_sid: str) -> None:
    """Wait until the debits of a call have come to an end, as far as they do in time."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        with database.transaction() as session:
            states = session.scalars(select(Payment.state).where(Payment.call_sid == call_sid)).all()
        if all(state in FINAL or state is State.LINKED for state in states):
            return
        time.sleep(SETTLE_STEP_S)


def money(scenario: Scenario, record: CallRecord, inside: Inside, before: Before) -> list[str]:
    """Payments, bills and the bank's books against what the scenario says."""
    end, problems = scenario.end, []
    with inside.database.transaction() as session:
        payments = session.scalars(select(Payment).where(Payment.call_sid == record.call_sid)).all()
        customers = _customers(session, scenario)
        bills = session.scalars(select(Bill).where(Bill.id.in_(before.open_bills))).all()
        references = session.scalars(select(Payment.id).where(Payment.customer_id.in_(customers))).all()
        strangers = set(session.scalars(select(Payment.id))) - {*references, *(p.id for p in payments)}
    states = sorted(str(payment.state) for payment in payments)
    wanted = [] if end.payment == "none" else [end.payment]  # the scenario's words are the states' own
    if end.payment is not None and states != wanted:
        problems.append(f"payments of the call: {', '.join(states) or 'none'}, not {end.payment}")
    mine = [bill for bill in bills if bill.customer_id in customers]
    paid = [bill for bill in mine if bill.status is BillStatus.PAID]
    if end.bill == "paid" and len(paid) != 1:
        problems.append(f"{len(paid)} bills were paid, not one")
    if end.bill == "open" and (paid or not mine):
        problems.append("the bill was paid" if paid else "there was no open bill")
    # Captures for payments that we know nothing of count too: they would be debits all the same.
    captures = [c for c in inside.books()["captures"] if c["id"] not in before.captures]
    debits = sum(capture["reference"] not in strangers for capture in captures)
    if end.debits is not None and debits != end.debits:
        problems.append(f"{debits} debits in the bank's books, not {end.debits}")
    return problems


def decisions(database: Database, call_sid: str) -> dict[int, str]:
    """What the service decided in each turn and told nobody: "match 8.1, card"."""
    with database.transaction() as session:
        turns = session.scalars(select(Turn).where(Turn.call_sid == call_sid)).all()
        return {turn.step: _in_words(turn) for turn in turns}


def leaks(inside: Inside) -> Iterator[tuple[str, str]]:
    """Card names and the places where their numbers stand: log files, tables, Redis keys."""
    patterns = {name: _pattern(number) for name, number in inside.cards.items()}
    for place, data in _everything_kept(inside):
        yield from ((name, place) for name, pattern in patterns.items() if pattern.search(data))


def _customers(session: Session, scenario: Scenario) -> set[str]:
    if scenario.end.customer is not None:
        customer = customer_by_number(session, scenario.end.customer)
        return {customer.id} if customer else set()
    return {c.id for c in customers_for_caller(session, normalise_caller(scenario.caller.from_))}


def _in_words(turn: Turn) -> str:
    words = []
    for name, value in turn.decisions.items():
        if name == "voice":
            words += [f"voice {outcome} {llr:+.1f}" for outcome, llr in value]
        elif name == "replay":
            words += [f"{verdict} {likeness:.2f}" for verdict, likeness in value]
        elif isinstance(value, bool):
            words.append(f"{name} {'right' if value else 'wrong'}")
    return f"{turn.event}: {', '.join(words) or turn.decisions.get('end', '')}"


def _pattern(number: str) -> re.Pattern[bytes]:
    """The number in figures, also in groups, or in words."""
    figures = r"[ .,-]?".join(number)
    words = r"[\s,.\"'-]+".join(_WORDS[int(digit)] for digit in number)
    return re.compile(f"{figures}|{words}".encode(), re.IGNORECASE)


def _everything_kept(inside: Inside) -> Iterator[tuple[str, bytes]]:
    if inside.logs:
        logs = sorted(inside.logs.rglob("*.log")) if inside.logs.is_dir() else [inside.logs]
        yield from ((f"the log {path.name}", path.read_bytes()) for path in logs)
    yield from _tables(inside.database.engine)
    yield from _redis_keys(inside.redis)


def _tables(engine: Engine) -> Iterator[tuple[str, bytes]]:
    """Every table as it is, not as our models see it."""
    metadata = MetaData()
    with engine.connect() as connection:
        for name in inspect(connection).get_table_names():
            rows = connection.execute(select(Table(name, metadata, autoload_with=connection))).all()
            yield f"the table {name}", b"\n".join(_bytes(value) for row in rows for value in row)


def _redis_keys(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    readers: dict[Any, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    for key in client.scan_iter():
        read = readers.get(client.type(key))
        yield (
            f"the Redis key {mask(key.decode(errors='replace'))}",
            key + b"\n" + _bytes(read(key) if read else b""),
        )


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        return b"\n".join(_bytes(part) for pair in value.items() for part in pair)
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return b"\n".join(map(_bytes, value))
    return str(value).encode(errors="replace")
