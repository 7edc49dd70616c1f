"""Judges a finished listening turn: embeds the voice, then decides in one database transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from ivr import metrics, tracing
from ivr.call.flow import Call, Event, State
from ivr.call.judging import approver, confirm, enrol, guardian, identify, rung
from ivr.call.judging.desk import Desk, Verdict
from ivr.call.models import Turn
from ivr.call.session import CallStore, Outcome
from ivr.customers import budget
from ivr.keys import Keyring
from ivr.speech.audio import Pcm
from ivr.speech.expect import EndReason, Heard
from ivr.store.db import Database
from voiceprint import Encoder, Scorer, Utterance
from voiceprint.replay import Sound

log = structlog.get_logger()


@dataclass(frozen=True)
class Rule:
    """What judges a state's turns, and the events it may come to besides AGAIN."""

    judge: Callable[[Desk, Call], Verdict]
    events: frozenset[Event]


def _rule(judge: Callable[[Desk, Call], Verdict], *events: Event) -> Rule:
    return Rule(judge, frozenset((Event.AGAIN, *events)))


_ACCEPTED = (Event.NO_BILL, Event.ONE_BILL, Event.SEVERAL_BILLS, Event.ADDRESSES, Event.TOO_LARGE)
_KEYED = (Event.IDENTIFIED, Event.KEYED, Event.GUARDIAN, Event.MAY_ENROL, Event.MAY_SET_PIN)
_MENU = (
    *(Event.LIMITS, Event.AMOUNT, Event.MERCHANTS, Event.BOOK, Event.CHOSEN, Event.NONE),
    *(Event.OPERATORS, Event.TOO_LATE),
)

RULES: dict[State, Rule] = {
    State.CARD: _rule(identify.card, *_KEYED, *_ACCEPTED),
    State.KEYPAD_CARD: _rule(identify.card, *_KEYED),
    State.PIN: _rule(identify.pin, *_ACCEPTED),
    State.BILL: _rule(confirm.bill, Event.CHOSEN, Event.ADDRESSES, Event.TOO_LARGE),
    State.KEYPAD_BILL: _rule(confirm.bill, Event.CHOSEN, Event.ADDRESSES, Event.TOO_LARGE),
    State.ADDRESS: _rule(confirm.address, Event.CHOSEN, Event.TOO_LARGE),
    State.KEYPAD_ADDRESS: _rule(confirm.address, Event.CHOSEN, Event.TOO_LARGE),
    State.CONFIRM: _rule(confirm.challenge, Event.CONFIRMED, Event.NEEDS_PIN),
    State.KEYPAD_CONFIRM: _rule(confirm.key, Event.CONFIRMED),
    State.EXTRA_PIN: _rule(confirm.extra_pin, Event.CONFIRMED),
    State.RUNG_LAST4: _rule(rung.last4, Event.HEARD),
    State.RUNG_SAY: _rule(rung.say, Event.HEARD),
    State.RUNG_PIN: _rule(rung.pin, Event.ONE_BILL, Event.ADDRESSES, Event.TOO_LARGE, Event.TOO_LATE),
    State.APPROVER_SAY: _rule(approver.say, Event.HEARD),
    State.APPROVER_PIN: _rule(approver.pin, Event.PROVED, Event.TOO_LATE),
    State.APPROVER_ANSWER: _rule(approver.answer, Event.AGREED, Event.DECLINED, Event.FROZEN, Event.TOO_LATE),
    State.GUARD_PIN: _rule(guardian.pin, Event.WARDS, Event.PROVED),
    State.GUARD_CHOOSE: _rule(guardian.choose, Event.PROVED, Event.CHOSEN),
    State.GUARD_MENU: _rule(guardian.menu, *_MENU),
    State.GUARD_AMOUNT: _rule(guardian.amount, Event.CHOSEN),
    State.GUARD_CONFIRM: _rule(guardian.confirm, Event.SET, Event.NO, Event.OPERATORS, Event.TOO_LATE),
    State.CONSENT: _rule(enrol.consent, Event.YES, Event.NO),
    State.ENROL_1: _rule(enrol.string, Event.HEARD),
    State.ENROL_2: _rule(enrol.string, Event.HEARD),
    State.ENROL_3: _rule(enrol.string, Event.HEARD, Event.POOR),
    State.NEW_PIN: _rule(enrol.new_pin, Event.TRIVIAL, Event.NEW),
    State.REPEAT_PIN: _rule(enrol.repeated_pin, Event.DIFFERS, Event.SET, Event.EXHAUSTED),
}

VOICED = {
    State.CARD, State.CONFIRM, State.RUNG_SAY, State.APPROVER_SAY, State.ENROL_1, State.ENROL_2, State.ENROL_3,
}  # fmt: skip

#: Deciding never takes less than this, so that the time taken does not tell how far it got. How long embedding
#: took before depends on the length of the recording alone.
FLOOR_S = 0.06

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
        """The outcome of the turn of ``step``, kept for the request that the carrier makes next.

        A fault of ours counts as a turn in which nothing was heard, and takes as long.
        """
        embedded = started = time.monotonic()
        try:
            with tracing.span("embed", call.sid):
                utterance, sound = self._voice(call, heard)
            embedded = time.monotonic()
            with tracing.span("judge", call.sid):
                verdict = self._judge(step, call, heard, utterance, sound)
        except Exception:
            log.exception("turn not judged", call=call.sid, step=step)
            verdict = Verdict(Event.AGAIN, call)
        time.sleep(max(0.0, floor_s - (time.monotonic() - max(embedded, started))))
        metrics.TURNS.labels(call.state, verdict.event).inc()
        outcome = Outcome(verdict.event, verdict.call)
        self._store.put_outcome(step, outcome)
        return outcome

    def charge_abandoned(self, step: int, call: Call) -> None:
        """A challenge that was heard and not answered is a failure: else it could be asked for until it suits."""
        if call.customer_id:
            with self._database.transaction() as session:
                budget.record_failure(
                    session, [call.customer_id], call.sid, str(step), self._clock(), attested=call.attested
                )

    def _voice(self, call: Call, heard: Heard) -> tuple[Utterance | None, Sound | None]:
        voiced = call.state in VOICED and not heard.keys and heard.end not in _ENDS
        return self.embed(heard.pcm) if voiced else (None, None)

    def embed(self, pcm: Pcm) -> tuple[Utterance, Sound]:
        """The voice of a turn, and what to compare with what was said before."""
        with metrics.EMBEDDING.track_inprogress():
            return self._encoder.embed(pcm), Sound(pcm)

    def desk(
        self, session: Session, step: int, heard: Heard, utterance: Utterance | None = None, sound: Sound | None = None
    ) -> Desk:
        """To judge a turn at, within a transaction."""
        return Desk(
            session=session,
            store=self._store,
            keyring=self._keyring,
            encoder=self._encoder,
            scorer=self._scorer,
            now=self._clock(),
            step=step,
            heard=heard,
            utterance=utterance,
            sound=sound,
        )

    def _judge(self, step: int, call: Call, heard: Heard, utterance: Utterance | None, sound: Sound | None) -> Verdict:
        with self._database.transaction() as session:
            desk = self.desk(session, step, heard, utterance, sound)
            ended = _ENDS.get(heard.end)
            if ended is None:
                budget.hold(session, call.customer_ids)  # calls at the same time must not guess more than in turn
            if ended is None:
                verdict = RULES[call.state].judge(desk, call)
            elif call.state is State.CONFIRM:
                verdict = confirm.unanswered(desk, call, ended)
            else:
                verdict = Verdict(ended, call)
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
