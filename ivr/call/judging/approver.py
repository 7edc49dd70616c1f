"""A call that we placed: an approver proves who she is, hears of a payment, and answers.

First eight fresh digits are said: the voice must not be the payer's, and where the approver has a voiceprint it must
be hers. Then comes her PIN. Only then is it told who wants to pay what to whom.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ivr.approval import appointments, requests, ringing
from ivr.approval.models import Answer, ApprovalRequest
from ivr.approval.requests import Result
from ivr.call.flow import Call, Event
from ivr.call.judging import liveness
from ivr.call.judging.confirm import was_said
from ivr.call.judging.desk import Desk, Verdict
from ivr.customers import budget
from ivr.customers.models import Bill
from ivr.payments.models import Payment
from voiceprint import Outcome

ANSWERS = {"1": Answer.APPROVE, "2": Answer.REFUSE, "3": Answer.FRAUD}
_EVENTS = {
    Result.APPROVED: Event.AGREED,
    Result.MORE_NEEDED: Event.AGREED,
    Result.REFUSED: Event.DECLINED,
    Result.FROZEN: Event.FROZEN,
}


def say(desk: Desk, call: Call) -> Verdict:
    """Fresh digits, by somebody who is not the payer."""
    assert call.customer_id
    if desk.utterance is None or not desk.heard.hypotheses:
        return Verdict(Event.AGAIN, call)
    payers, own = desk.voiceprint(_request(desk, call).ward_id), desk.voiceprint(call.customer_id)
    payer, hers = (desk.scorer.score(one, [desk.utterance]) if one else None for one in (payers, own))
    known = [decision for decision in (payer, hers) if decision]
    watched = desk.watched(call, [desk.utterance], above=hers.llr if hers else -math.inf)
    said, replay = was_said(call.digits, desk.heard.hypotheses), liveness.replay(desk, call, call.customer_id)
    record: dict[str, object] = {
        "said": said,
        "voice": sorted((d.outcome.value, round(d.llr, 2)) for d in known),
        "replay": [replay.record],
        **liveness.times(desk),
    }
    anothers = (payer and payer.outcome is Outcome.MATCH) or (hers and hers.outcome is Outcome.NO_MATCH)
    if replay.refuses or anothers or watched:
        return desk.fail(call, [call.customer_id], **record)
    if not said or any(d.outcome is Outcome.INCONCLUSIVE for d in known):
        return Verdict(Event.AGAIN, call, record)
    liveness.remember(desk, call, call.customer_id)
    return Verdict(Event.HEARD, call, record)


def pin(desk: Desk, call: Call) -> Verdict:
    """Her own PIN; then she hears what it is about."""
    assert call.customer_id
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    if not desk.right_pin(call, call.customer_id):
        return desk.fail(call, [call.customer_id], pin=False)
    budget.record_success(desk.session, call.customer_id, call.sid, attested=call.attested)
    request = _request(desk, call)
    payment = desk.session.get_one(Payment, request.payment_id)
    if ringing.whom(desk.session, request.id, call.customer_id, desk.now) is None:
        return Verdict(Event.TOO_LATE, call)  # decided meanwhile: nothing is told any more
    standing = appointments.between(desk.session, call.customer_id, request.ward_id, desk.now)
    about: dict[str, str | int] = {
        "id": payment.bill_id,
        "merchant": desk.session.get_one(Bill, payment.bill_id).merchant,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
    }
    return Verdict(Event.PROVED, replace(call, bill=about, payer=standing[0].label), {"pin": True})


def answer(desk: Desk, call: Call) -> Verdict:
    """One key: she agrees, refuses, or says that it is a fraud."""
    assert call.customer_id
    given = ANSWERS.get(desk.heard.keys)
    if given is None:
        return Verdict(Event.AGAIN, call)
    result = requests.answer(
        desk.session, call.request_id, call.customer_id, given, verified_by=f"pin, call {call.sid}", now=desk.now
    )
    return Verdict(_EVENTS.get(result, Event.TOO_LATE), call, {"result": result.value})


def _request(desk: Desk, call: Call) -> ApprovalRequest:
    return desk.session.get_one(ApprovalRequest, call.request_id)
