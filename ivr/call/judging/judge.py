"""Judges a finished listening turn: embeds the voice, then decides in one database transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import structlog

from ivr.call.flow import Call, Event, State
from ivr.call.judging import confirm, enrol, identify
from ivr.call.judging.desk import Desk, Verdict
from ivr.call.models import Turn
from ivr.call.session import CallStore, Outcome
from ivr.keys import Keyring
from ivr.speech.expect import EndReason, Heard
from ivr.store.db import Database
from voiceprint import Encoder, Scorer

log = structlog.get_logger()

RULES: dict[State, Callable[[Desk, Call], Verdict]] = {
    State.CARD: identify.card,
    State.KEYPAD_CARD: identify.card,
    State.PIN: identify.pin,
    State.BILL: confirm.bill,
    State.KEYPAD_BILL: confirm.bill,
    State.CONFIRM: confirm.challenge,
    State.KEYPAD_CONFIRM: confirm.key,
    State.CONSENT: enrol.consent,
    State.ENROL_1: enrol.string,
    State.ENROL_2: enrol.string,
    State.ENROL_3: enrol.string,
    State.NEW_PIN: enrol.new_pin,
    State.REPEAT_PIN: enrol.repeated_pin,
}

VOICED = {State.CARD, State.CONFIRM, State.ENROL_1, State.ENROL_2, State.ENROL_3}

#: A turn is never judged faster than this, so that the time taken does not tell how far the judging got.
FLOOR_S = 0.2

_ENDS = {EndReason.CANCEL: Event.CANCEL, EndReason.AGENT: Event.AGENT, EndReason.NOTHING: Event.AGAIN}


class Judge:
    """Decides what turns came to. One a process, shared by its threads."""

    def __init__(
        self,
        database: Database,
        store: CallStore,
        keyring: Keyring,
        encoder: Encoder,
        scorer: Scorer,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._keyring = keyring
        self._encoder = encoder
        self._scorer = scorer
        self._clock = clock

    def conclude(self, step: int, call: Call, heard: Heard, floor_s: float = FLOOR_S) -> Outcome:
        """The outcome of the turn of ``step``, kept for the request that the carrier makes next."""
        started = time.monotonic()
        verdict = self._judge(step, call, heard)
        time.sleep(max(0.0, floor_s - (time.monotonic() - started)))
        outcome = Outcome(verdict.event, verdict.call)
        self._store.put_outcome(step, outcome)
        return outcome

    def _judge(self, step: int, call: Call, heard: Heard) -> Verdict:
        voiced = call.state in VOICED and not heard.keys and heard.end not in _ENDS
        utterance = self._encoder.embed(heard.pcm) if voiced else None
        with self._database.transaction() as session:
            desk = Desk(
                session=session,
                store=self._store,
                keyring=self._keyring,
                encoder=self._encoder,
                scorer=self._scorer,
                now=self._clock(),
                step=step,
                heard=heard,
                utterance=utterance,
            )
            ended = _ENDS.get(heard.end)
            verdict = Verdict(ended, call) if ended else RULES[call.state](desk, call)
            session.merge(
                Turn(
                    call_sid=call.sid,
                    step=step,
                    at=desk.now,
                    state=call.state,
                    event=verdict.event,
                    decisions={"end": str(heard.end), **verdict.decisions},
                )
            )
        log.info("turn", call=call.sid, step=step, state=str(call.state), came_to=str(verdict.event))
        return verdict
