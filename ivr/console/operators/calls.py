"""Calls live and past, and one call as a ladder. No digits, no audio: none are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flask import Response, abort, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.call import steps
from ivr.call.models import Turn
from ivr.call.session import CALL_TTL_S
from ivr.console.operators.desk import blueprint, desk, noted, now, page, reading, writing
from ivr.payments.models import Payment, PaymentEvent

LIVE = timedelta(seconds=CALL_TTL_S)
MOST_LIVE, MOST_STEPS = 100, 2_000
MOST_PAST, MOST_TURNS = 50, 1_000


@dataclass
class Past:
    """A call by the turns that are on record."""

    sid: str
    ended: Turn  # the last turn
    began: datetime
    turns: int = 1
    payments: list[Payment] = field(default_factory=list)


@dataclass(frozen=True)
class Rung:
    """One line of a ladder."""

    at: datetime
    who: str  # a key of words, after "ladder."
    step: int | None
    what: str
    details: dict[str, Any]
    ms: int | None = None  # since the line before


@blueprint.get("/")
def calls() -> Response:
    client = desk().services.calls.redis
    after = steps.newest(client)  # first: nothing that comes meanwhile is missed
    live = steps.recent(client, now(), LIVE, MOST_STEPS)[:MOST_LIVE]
    with reading() as session:
        past, more = _past(session, _before())
    return page("calls", live=live, after=after, past=past, more=more)


@blueprint.get("/calls/<sid>")
def call(sid: str) -> Response:
    with writing() as session:
        rungs = list(_ladder(session, sid))
        if not rungs:
            abort(404)
        made = list(session.scalars(select(Payment).where(Payment.call_sid == sid).order_by(Payment.created_at)))
        for subject in {payment.customer_id for payment in made} or {sid[:64]}:
            noted(session, "call.viewed", subject, call=sid[:64])
    return page("call", sid=sid, rungs=rungs, payments=made)


def _past(session: Session, before: datetime | None) -> tuple[list[Past], datetime | None]:
    """Calls by their last turn, the newest first, and before when there may be more."""
    query = select(Turn).order_by(Turn.at.desc(), Turn.call_sid).limit(MOST_TURNS)
    found: dict[str, Past] = {}
    last = None
    for turn in session.scalars(query.where(Turn.at < before) if before else query):
        if turn.call_sid not in found and len(found) == MOST_PAST:
            break
        last = turn.at
        if known := found.get(turn.call_sid):
            known.began, known.turns = turn.at, known.turns + 1
        else:
            found[turn.call_sid] = Past(turn.call_sid, turn, turn.at)
    for payment in session.scalars(select(Payment).where(Payment.call_sid.in_(found))):
        found[payment.call_sid].payments.append(payment)
    return list(found.values()), last if len(found) == MOST_PAST else None


def _ladder(session: Session, sid: str) -> Iterator[Rung]:
    """What we asked (for an hour), what the turns came to and why, what became of payments: by time."""
    lines = [*_asked(sid), *_turns(session, sid), *_payments(session, sid)]
    before: datetime | None = None
    for line in sorted(lines, key=lambda line: line.at):
        ms = round((line.at - before).total_seconds() * 1000) if before else None
        yield Rung(line.at, line.who, line.step, line.what, line.details, ms)
        before = line.at


def _asked(sid: str) -> Iterator[Rung]:
    store = desk().services.calls
    told = steps.of_call(store.redis, sid, now(), LIVE, steps.KEPT)
    once = {(step.step, step.state): step for step in reversed(told)}  # the carrier may tell an end twice
    for step in once.values():
        answer = store.answer(sid, step.step) if step.state != steps.ENDED else None
        # The names of prompts only: what fills them may be digits, amounts, names.
        said = {"says": [line.prompt for line in answer.lines], "then": answer.then} if answer else {}
        yield Rung(step.at, "service", step.step, step.state, said)


def _turns(session: Session, sid: str) -> Iterator[Rung]:
    for turn in session.scalars(select(Turn).where(Turn.call_sid == sid).order_by(Turn.step)):
        yield Rung(turn.at, "caller", turn.step, f"{turn.state} → {turn.event}", turn.decisions)


def _payments(session: Session, sid: str) -> Iterator[Rung]:
    query = select(PaymentEvent).join(Payment, Payment.id == PaymentEvent.payment_id).where(Payment.call_sid == sid)
    for moved in session.scalars(query.order_by(PaymentEvent.id)):
        what = f"{moved.from_state.value} → {moved.to_state.value}" if moved.from_state else moved.to_state.value
        yield Rung(moved.at, "payment", None, what, {"by": moved.who, "why": moved.why})


def _before() -> datetime | None:
    try:
        before = datetime.fromisoformat(request.args["before"])
    except (KeyError, ValueError):
        return None
    return before if before.tzinfo else None
