"""Moves a call on: asks the pure flow, stores what it said, and only then does it.

Every entry point may be called any number of times with the same step: the first time moves the call, the others
get the first answer. What has to be done (a debit) is done under a key made from the call, after the new state is
stored, and again by whoever comes next if we died in between.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from ivr import metrics
from ivr.approval import gate, ringing
from ivr.approval.requests import NOT_APPROVED, NOT_IN_TIME
from ivr.call import bill_calls, flow, steps
from ivr.call.flow import Call, Event, Speak, State
from ivr.call.judging import Judge
from ivr.call.listening import expectation
from ivr.call.prompts import Line, spoken_addresses, spoken_amount, spoken_choices, spoken_digits
from ivr.call.prompts.guardian import guardian_values
from ivr.call.session import Answer, CallStore, Outcome
from ivr.customers.lookup import customers_for_caller
from ivr.customers.models import Customer
from ivr.locales import LOCALES
from ivr.payments.bank import DeclineReason
from ivr.payments.service import BillNotOpen, PaymentError, payment_by_key
from ivr.payments.states import FAILED
from ivr.payments.states import State as PaymentState
from ivr.speech.expect import EndReason, Heard
from ivr.speech.numbers import varied
from ivr.store.db import Database

log = structlog.get_logger()

#: Questions that one key answers; elsewhere it means nothing.
ONE_KEY = {
    State.BILL, State.KEYPAD_BILL, State.ADDRESS, State.KEYPAD_ADDRESS, State.KEYPAD_CONFIRM, State.CONSENT,
    State.APPROVER_ANSWER, State.GUARD_CHOOSE, State.GUARD_MENU, State.GUARD_CONFIRM,
}  # fmt: skip

# What a caller is told of a payment that failed; of every other reason only that the bank did not take it.
_FAILURES: dict[str, Event] = {
    NOT_APPROVED: Event.NOT_APPROVED,
    NOT_IN_TIME: Event.NOT_IN_TIME,
    DeclineReason.INSUFFICIENT_FUNDS: Event.NO_FUNDS,
    DeclineReason.EXPIRED: Event.CARD_EXPIRED,
    DeclineReason.UNAVAILABLE: Event.ISSUER_AWAY,
}

LOOKUPS_PER_CALLER_ID = 20  # an hour; beyond it the caller is treated as unknown, and hears the same


class NoSuchCall(Exception):
    """A request about a call that never rang here, or long ago, or about a step that it has not reached."""


class Engine:
    """The service's side of all calls. Holds no call: any process can answer any request."""

    def __init__(
        self,
        store: CallStore,
        database: Database,
        judge: Judge,
        clock: Callable[[], datetime],
        *,
        bank: str = "sandbox",
        test_bank: bool = True,
        locale: str = "en",
        heard: tuple[str, ...] = LOCALES,
    ) -> None:
        """``heard``: the languages in which callers may speak; in the others they key everything."""
        self.store = store
        self._database = database
        self._judge = judge
        self._clock = clock
        self._bank = bank
        self._test_bank = test_bank
        self._locale = locale
        self._heard = heard

    def ring(self, sid: str, caller_id: str | None, attestation: str | None, locale: str) -> Answer:
        """A call comes in: whom it may be from is looked up, and not told."""
        if first := self.store.answer(sid, 1):
            return first
        customer_ids: tuple[str, ...] = ()
        call = Call(sid, locale, caller_id, attestation, heard=self._heard)
        if caller_id and self.store.within(f"lookup:{call.line}", LOOKUPS_PER_CALLER_ID, 3600):
            with self._database.snapshot() as session:
                customer_ids = tuple(c.id for c in customers_for_caller(session, caller_id))
        metrics.CALLS.labels("incoming").inc()
        return self._advance(0, Outcome(Event.RANG, replace(call, customer_ids=customer_ids)))

    def ring_approver(self, sid: str, request_id: str, approver_id: str) -> Answer:
        """Somebody took up a call that we placed to an approver. It tells nothing before she has proved who she is."""
        if first := self.store.answer(sid, 1):
            return first
        with self._database.transaction() as session:
            number = ringing.whom(session, request_id, approver_id, self._clock())
            approver = session.get(Customer, approver_id)
        metrics.CALLS.labels("to an approver").inc()
        call = Call(
            sid,
            approver.locale if approver else self._locale,
            attestation=flow.DIALLED,
            customer_ids=(approver_id,),
            customer_id=approver_id,
            request_id=request_id,
            heard=self._heard,
        )
        return self._advance(0, Outcome(Event.ASKED if number else Event.TOO_LATE, call))

    def ring_payer(self, sid: str, bill_id: str) -> Answer:
        """Somebody took up a call that we placed about a bill. It tells nothing before she has proved who she is."""
        if first := self.store.answer(sid, 1):
            return first
        with self._database.transaction() as session:
            wanted = bill_calls.taken_up(session, bill_id, sid, self._clock())
            payer = session.get_one(Customer, wanted.customer_id) if wanted else None
        metrics.CALLS.labels("about a bill").inc()
        call = Call(
            sid,
            payer.locale if payer else self._locale,
            attestation=flow.DIALLED,
            customer_ids=(payer.id,) if payer else (),
            customer_id=payer.id if payer else None,
            rung_about=bill_id,
            heard=self._heard,
        )
        return self._advance(0, Outcome(Event.BILLED if payer else Event.TOO_LATE, call))

    def turn_over(self, sid: str, step: int) -> Answer | None:
        """The listening turn, or the hold, of ``step`` is over: what comes next.

        None while the turn is still being judged: ask again shortly. Raises NoSuchCall.
        """
        call = self._call_at(sid, step)
        if isinstance(call, Answer):
            return call
        if call.state in (State.DEBIT, State.APPROVAL):
            return self._advance(step, self._debit(call))
        outcome = self.store.outcome(sid, step)
        if outcome is None and self.store.stream_opened(sid, step):
            return None
        return self._advance(step, outcome or Outcome(Event.AGAIN, call))

    def give_up_waiting(self, sid: str, step: int) -> Answer:
        """The judgement of a turn never came (the process that heard it died): ask again."""
        call = self._call_at(sid, step)
        if isinstance(call, Answer):
            return call
        self.store.put_outcome(step, Outcome(Event.AGAIN, call))
        return self.turn_over(sid, step) or self.apologise(sid)

    def key_pressed(self, sid: str, step: int, key: str) -> Answer:
        """One key was pressed while the question of ``step`` was being read out. Raises NoSuchCall."""
        call = self._call_at(sid, step)
        if isinstance(call, Answer):
            return call
        if (call.state, Event.CANCEL) not in flow.TABLE:  # nothing is being asked: a replayed request
            raise NoSuchCall(sid)
        event = {"*": Event.CANCEL, "0": Event.AGENT}.get(key, Event.STRAY_KEY)
        if event is Event.STRAY_KEY and call.state in ONE_KEY:
            heard = Heard(EndReason.KEYS, keys=key, answer=expectation(call).keyed_answer(key))
            return self._advance(step, self._judge.conclude(step, call, heard, floor_s=0))
        if call.state is State.CONFIRM and (event is not Event.STRAY_KEY or flow.is_last(call, event)):
            self._judge.charge_abandoned(step, call)
        return self._advance(step, Outcome(event, call))

    def apologise(self, sid: str) -> Answer:
        """Something failed: say so and hang up. Stores nothing; a debit under way goes on."""
        at = self.store.load(sid)
        locale = at[1].locale if at else self._locale
        return Answer(0, State.OVER, (Line.of("apology"),), "hang_up", locale)

    def end(self, sid: str) -> None:
        """The carrier says that the call has ended."""
        at = self.store.load(sid)
        if at and at[1].state is State.CONFIRM:
            outcome = self.store.outcome(sid, at[0])
            if outcome is None or outcome.event is Event.AGAIN:
                self._judge.charge_abandoned(*at)
        self.store.end(sid)
        if at:
            steps.tell(self.store.redis, sid, at[0], steps.ENDED, self._clock())

    def _call_at(self, sid: str, step: int) -> Call | Answer:
        """The call, if it is at this step; what was answered then, if it has moved on. Raises NoSuchCall."""
        if earlier := self.store.answer(sid, step + 1):
            return earlier
        at = self.store.load(sid)
        if at is None or at[0] != step:
            raise NoSuchCall(sid)
        return at[1]

    def _advance(self, step: int, outcome: Outcome) -> Answer:
        fresh = varied(iter(lambda: secrets.choice("0123456789"), ""), 8)
        call, speak = flow.advance(outcome.call, outcome.event, fresh)
        answer = Answer(step + 1, call.state, _lines(call, speak), speak.then, call.locale)
        if not self.store.move(step, call, answer):
            first = self.store.answer(call.sid, step + 1)
            if first is None:
                raise NoSuchCall(call.sid)
            return first
        log.info("step", call=call.sid, step=answer.step, state=str(call.state))
        metrics.STEPS.labels(call.state).inc()
        steps.tell(self.store.redis, call.sid, answer.step, call.state, self._clock())
        if call.state is State.DEBIT:
            self._start_payment(call)
        return answer

    def _payment_key(self, call: Call) -> str:
        return f"call:{call.sid}:{call.bill['id'] if call.bill else ''}"

    def _start_payment(self, call: Call) -> Event:
        """Queue the debit, if that has not been done. PENDING, or why there is none."""
        assert call.bill
        assert call.customer_id
        assert call.card_id
        try:
            with self._database.transaction() as session:
                gate.start(
                    session,
                    bill_id=str(call.bill["id"]),
                    customer_id=call.customer_id,
                    card_id=call.card_id,
                    idempotency_key=self._payment_key(call),
                    call_sid=call.sid,
                    factors=call.evidence,
                    attestation=call.attestation,
                    attested=call.attested,
                    address_id=call.address_id,
                    now=self._clock(),
                    bank=self._bank,
                    test_bank=self._test_bank,
                    limit_minor=call.limit_minor,
                )
        except BillNotOpen:  # paid, or being paid, by another call: to say that nothing was taken would be wrong
            return Event.EXHAUSTED
        except gate.NotAllowed:
            return Event.NOT_ALLOWED
        except PaymentError as error:
            log.warning("payment not started", call=call.sid, reason=type(error).__name__)
            return Event.DECLINED
        return Event.PENDING

    def _debit(self, call: Call) -> Outcome:
        """How the debit stands. Starts it, if whoever should have done so died before."""
        with self._database.snapshot() as session:  # hundreds who wait ask for this, and none may keep a writer waiting
            payment = payment_by_key(session, self._payment_key(call))
        if payment is None:
            return Outcome(self._start_payment(call), call)
        if payment.state in FAILED:
            return Outcome(_FAILURES.get(payment.decline_reason or "", Event.DECLINED), call)
        if payment.state is PaymentState.AWAITING:
            return Outcome(Event.AWAITING, call)
        if payment.state is PaymentState.LINKED:
            return Outcome(Event.LINKED, call)
        if payment.state is PaymentState.HELD:
            return Outcome(Event.HELD, call)
        if payment.state is PaymentState.PAID:
            bill = {**(call.bill or {}), "amount_minor": payment.debit_minor}
            return Outcome(Event.PAID, replace(call, bill=bill, receipt=payment.receipt_number or ""))
        return Outcome(Event.PENDING, call)


def _lines(call: Call, speak: Speak) -> tuple[Line, ...]:
    """The prompts with everything that they may say of this call."""
    values: dict[str, str] = {
        "digits": spoken_digits(call.digits), "last4": spoken_digits(call.last4), "payer": call.payer
    }  # fmt: skip
    if call.bill:
        values["merchant"] = str(call.bill["merchant"])
        values["amount"] = spoken_amount(int(call.bill["amount_minor"]), str(call.bill["currency"]), call.locale)
    if call.bills:
        values["choices"] = spoken_choices(call.bills, call.locale)
    if call.addresses:
        values["choices"] = spoken_addresses([name for name, _ in call.addresses], call.locale)
    if call.ward or call.options:
        values |= guardian_values(call)
    if call.receipt:
        values["receipt"] = spoken_digits(call.receipt)
    return tuple(Line.of(prompt, **values) for prompt in speak.prompts)
