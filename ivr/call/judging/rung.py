"""A call that we placed about a bill: the customer proves who she is, and only then hears what it is about.

She names the last four digits of a card, says eight fresh digits and keys her PIN. What was wrong of the first two is
judged together and not told. No card number is asked for: whoever rings people up and wants one is a fraud.
"""

from __future__ import annotations

from dataclasses import replace

from ivr.call.flow import Call, Event
from ivr.call.judging import liveness
from ivr.call.judging.confirm import was_said
from ivr.call.judging.desk import Desk, Verdict, facts_of
from ivr.call.session import SPOKEN_FIRST
from ivr.customers.bills import open_bills
from ivr.customers.cards import authorised_cards
from voiceprint import Outcome


def last4(desk: Desk, call: Call) -> Verdict:
    """Said or keyed. Right or not is told to nobody; the card is remembered, or that there is none."""
    assert call.customer_id
    keys, hypotheses = desk.heard.keys, desk.heard.hypotheses
    if not keys and not hypotheses:
        return Verdict(Event.AGAIN, call)
    cards = authorised_cards(desk.session, call.customer_id, desk.now.date())
    named = [c.id for c in cards if (c.last4 == keys if keys else was_said(c.last4, hypotheses))]
    return Verdict(Event.HEARD, replace(call, card_id=named[0] if named else None))


def say(desk: Desk, call: Call) -> Verdict:
    """Eight fresh digits: her voice, and the card named before."""
    assert call.customer_id
    print_ = desk.voiceprint(call.customer_id)
    if desk.utterance is None or print_ is None or not desk.heard.hypotheses:
        return Verdict(Event.AGAIN, call)
    voice = desk.verify(call, {call.customer_id: print_}, [desk.utterance])[call.customer_id]
    said, replay = was_said(call.digits, desk.heard.hypotheses), liveness.replay(desk, call, call.customer_id)
    record: dict[str, object] = {
        "said": said,
        "card": call.card_id is not None,
        "voice": [(voice.outcome.value, round(voice.llr, 2))],
        "replay": [replay.record],
        **liveness.times(desk),
    }
    if replay.refuses or voice.outcome is Outcome.NO_MATCH:
        return desk.fail(call, [call.customer_id], **record)
    if voice.outcome is Outcome.INCONCLUSIVE or not said:
        return Verdict(Event.AGAIN, call, record)  # not heard well enough to be anyone's failure
    may_go_on = desk.may_use_voice(call, call.customer_id) and desk.may_challenge(call.customer_id)
    if call.card_id is None or not may_go_on:
        return desk.fail(call, [call.customer_id], **record)
    desk.store.keep(call.sid, SPOKEN_FIRST, desk.utterance.to_bytes())
    liveness.remember(desk, call, call.customer_id)
    return Verdict(Event.HEARD, call, record)


def pin(desk: Desk, call: Call) -> Verdict:
    """Her PIN; then she hears of the bill, and pays it as in a call of her own."""
    assert call.customer_id
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    if not desk.right_pin(call, call.customer_id):
        return desk.fail(call, [call.customer_id], pin=False)
    cards = authorised_cards(desk.session, call.customer_id, desk.now.date())
    card = next((c for c in cards if c.id == call.card_id), None)
    bill = next((b for b in open_bills(desk.session, call.customer_id) if b.id == call.rung_about), None)
    if card is None or bill is None:
        return Verdict(Event.TOO_LATE, call)  # paid or withdrawn meanwhile
    call = replace(call, last4=card.last4, evidence=("voice", "pin"), bills=(facts_of(bill),))
    verdict = desk.choose(call, 0, Event.ONE_BILL)
    return replace(verdict, decisions={**verdict.decisions, "pin": True})
