"""Which bill, and whether she means it: a choice, a spoken challenge, a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ivr.approval.policy import Factor
from ivr.call.flow import Call, Event, is_last
from ivr.call.judging import liveness
from ivr.call.judging.desk import Desk, Verdict
from ivr.call.session import SPOKEN_FIRST
from ivr.customers import budget
from ivr.customers.voiceprints import count_authenticated_call
from ivr.speech.numbers import Hypothesis
from voiceprint import Outcome, Utterance

#: A reading of the challenge counts if it lies this near to the best one. On training speakers set aside from
#: training 0.9 of the right answers do, and 3 in 10,000 of the wrong ones.
CHALLENGE_MARGIN_NATS = 4.0


def bill(desk: Desk, call: Call) -> Verdict:
    """One, two, three: said or pressed."""
    number = desk.heard.answer
    if not isinstance(number, int):
        return Verdict(Event.AGAIN, call)
    return desk.choose(call, number - 1, Event.CHOSEN)


def address(desk: Desk, call: Call) -> Verdict:
    """Where the goods go: one, two, three, said or pressed."""
    number = desk.heard.answer
    if not isinstance(number, int) or not 1 <= number <= len(call.addresses):
        return Verdict(Event.AGAIN, call)
    return desk.allow(replace(call, address_id=call.addresses[number - 1][1]), Event.CHOSEN)


def was_said(digits: str, hypotheses: Sequence[Hypothesis]) -> bool:
    """Whether exactly these digits are among the readings that are nearly as good as the best."""
    best = max((h.score for h in hypotheses), default=0.0)
    return any(h.digits == digits for h in hypotheses if best - h.score <= CHALLENGE_MARGIN_NATS)


def challenge(desk: Desk, call: Call) -> Verdict:
    """The fresh digits, by the voice that spoke before: she is there, now, and agrees."""
    assert call.customer_id
    if desk.utterance is None:
        return _again(desk, call, {})  # keyed: a challenge is to be said
    said = was_said(call.digits, desk.heard.hypotheses)
    replay = liveness.replay(desk, call, call.customer_id)
    record: dict[str, object] = {"said": said, "confidence": desk.heard.confidence, "replay": [replay.record]}
    record |= liveness.times(desk)
    kept, print_ = desk.store.kept(call.sid, SPOKEN_FIRST), desk.voiceprint(call.customer_id)
    if kept is None or print_ is None or not desk.heard.hypotheses:
        return _again(desk, call, record)
    before = Utterance.from_bytes(kept)
    voice = desk.verify(call, {call.customer_id: print_}, [before, desk.utterance])[call.customer_id]
    same = desk.scorer.same_speaker(before, desk.utterance)
    record |= {
        "voice": [(voice.outcome.value, round(voice.llr, 2))],
        "same_speaker": (same.outcome.value, round(same.llr, 2)),
    }
    if replay.refuses:
        return desk.fail(call, [call.customer_id], **record)
    if Outcome.INCONCLUSIVE in (voice.outcome, same.outcome) or liveness.is_late(desk):
        return _again(desk, call, record)
    hers = voice.outcome is Outcome.MATCH and same.outcome is Outcome.MATCH
    if said and hers and desk.may_use_voice(call, call.customer_id):
        liveness.remember(desk, call, call.customer_id)
        return _confirmed(desk, replace(call, evidence=(*call.evidence, "challenge")), record)
    return desk.fail(call, [call.customer_id], **record)


def unanswered(desk: Desk, call: Call, event: Event) -> Verdict:
    """The digits were heard and not said. To leave then is a failure: else they could be asked for until they suit."""
    assert call.customer_id
    if event is Event.AGAIN and not is_last(call, event):
        return _again(desk, call, {})
    desk.charge(call, [call.customer_id])
    return Verdict(event, call)


def _again(desk: Desk, call: Call, record: dict[str, object]) -> Verdict:
    """Nobody's failure, as long as there were few challenges: other digits are asked for."""
    assert call.customer_id
    if not desk.may_challenge(call.customer_id):
        return desk.fail(call, [call.customer_id], **record)
    return Verdict(Event.AGAIN, call, record)


def key(desk: Desk, call: Call) -> Verdict:
    """Card and PIN have been given: one key confirms."""
    if desk.heard.keys != "1":
        return Verdict(Event.AGAIN, call)
    return _confirmed(desk, replace(call, evidence=(*call.evidence, "key")), {})


def extra_pin(desk: Desk, call: Call) -> Verdict:
    """The payment password of somebody who has spoken."""
    assert call.customer_id
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    if desk.right_pin(call, call.customer_id):
        return _confirmed(desk, replace(call, evidence=(*call.evidence, "pin")), {})
    return desk.fail(call, [call.customer_id], pin=False)


def _confirmed(desk: Desk, call: Call, record: dict[str, object]) -> Verdict:
    """She agrees, by all that was asked of her; where her policy wants more, that is asked now."""
    assert call.customer_id
    if Factor.PIN in desk.missing(call):
        return Verdict(Event.NEEDS_PIN, call, record)
    budget.record_success(desk.session, call.customer_id, call.sid, attested=call.attested)
    count_authenticated_call(desk.session, call.customer_id, call.sid, desk.now)
    return Verdict(Event.CONFIRMED, call, record)
