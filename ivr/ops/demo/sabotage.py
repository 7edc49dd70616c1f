"""Switches one protection off, to show that the scenes would notice.

``python -m ivr.ops.demo.sabotage voice|digits|replay|token|idempotency`` serves like ``ivr serve``, one protection
less. It lives with the demo: the service itself has no such switch.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask

from ivr.settings import settings
from ivr.store.db import Database


def voice() -> None:
    """Everybody's voice matches."""
    from voiceprint import Decision, Outcome, Scorer

    def match(*_: object) -> Decision:
        return Decision(Outcome.MATCH, 99.0, "sabotaged")

    for method in ("score", "same_speaker"):
        setattr(Scorer, method, match)


def digits() -> None:
    """Whatever number is said, it is the customer's first card; whatever answers a challenge, it is right."""
    from ivr.call.judging import confirm, desk

    def first_card(candidates: Sequence[str], customer_id: str, cards: Sequence[Any], keys: object) -> str | None:
        return cards[0].card_id if candidates and cards else None

    desk.which_card = first_card  # type: ignore[attr-defined]
    confirm.was_said = lambda *_: True


def replay() -> None:
    """No recording is known again."""
    from voiceprint.replay import Sound

    Sound.likeness = lambda *_: 0.0  # type: ignore[method-assign]


def token() -> None:
    """A stream needs no token of ours."""
    from ivr.call.session import CallStore

    CallStore.open_stream = lambda *_: True  # type: ignore[method-assign]


def idempotency() -> None:
    """A repeated request is done again, and nothing else stands in the way of a second debit."""
    from ivr.approval import gate
    from ivr.call.engine import Engine
    from ivr.call.session import CallStore
    from ivr.payments import service

    def turn_over(engine: Engine, sid: str, step: int, once: Any = Engine.turn_over) -> Any:
        outcome = engine.store.outcome(sid, step)
        return engine._advance(step, outcome) if outcome else once(engine, sid, step)

    def move(store: CallStore, before: int, call: Any, answer: Any, once: Any = CallStore.move) -> bool:
        return once(store, before, call, answer) or True

    Engine.turn_over = turn_over  # type: ignore[method-assign,assignment]
    Engine._payment_key = lambda *_: secrets.token_hex(8)  # type: ignore[method-assign]
    CallStore.move = move  # type: ignore[method-assign,assignment]
    service.has_live_payment = gate.has_live_payment = lambda *_: False  # type: ignore[attr-defined]
    service._check_bill = lambda _session, bill, _customer: bill  # type: ignore  # paid by then, perhaps


def without_the_databases_guard(database: Database) -> None:
    """One live payment a bill is also an index."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX IF EXISTS uq_payments_live_bill")


PROTECTIONS: dict[str, Callable[[], None]] = {
    "voice": voice,
    "digits": digits,
    "replay": replay,
    "token": token,
    "idempotency": idempotency,
}


def create_app() -> Flask:
    """The application without the protection that the environment names. For the sandbox bank only."""
    from ivr.app import create_app as create

    if settings().bank != "sandbox":
        raise RuntimeError("protections are switched off for demonstrations at the sandbox bank only")
    PROTECTIONS[os.environ["IVR_DEMO_BREAK"]]()
    app = create()
    if os.environ["IVR_DEMO_BREAK"] == "idempotency":
        without_the_databases_guard(app.extensions["ivr"].database)
    return app


if __name__ == "__main__":
    from ivr.ops.commands import serve

    os.environ["IVR_DEMO_BREAK"] = sys.argv.pop(1)
    serve.APP = "ivr.ops.demo.sabotage:create_app()"
    serve.command()
