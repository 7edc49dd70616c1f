"""Who calls: a spoken card with its voice, a keyed card with its PIN, a customer number, an enrolment code."""

from __future__ import annotations

from dataclasses import replace

from ivr.call.flow import Call, Event
from ivr.call.judging.desk import Desk, Verdict
from ivr.customers import enrolment, pins
from ivr.customers.lookup import customer_by_number
from ivr.speech.cards import candidates
from voiceprint import Outcome

CODE_DIGITS = 8
CUSTOMER_NUMBER_DIGITS = 7
CARD_DIGITS = range(13, 20)
#: From here on the caller was saying a number, and another's voice is a failure, not noise.
SPOKEN_ATTEMPT_DIGITS = 8

#: A PIN is checked also where no card was right: it takes as long, and is as wrong.
NOBODY = ("", "")

CODE = "enrolment code"
SPOKEN_CARD = "spoken card"


def card(desk: Desk, call: Call) -> Verdict:
    """A card said or keyed, or one of the numbers that may be keyed instead of it."""
    if desk.heard.keys:
        return _keyed(desk, call)
    spoken = candidates(desk.heard.hypotheses)
    if call.code_seal:
        return _to_enrol(desk, call, spoken)
    return _spoken(desk, call, spoken)


def pin(desk: Desk, call: Call) -> Verdict:
    """The PIN, judged together with the card that was keyed before it. Two of a household may share a card."""
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    for customer_id, card_id in call.keyed_cards or (NOBODY,):
        right = pins.check_pin(desk.session, customer_id, desk.heard.keys, desk.keyring)
        if right and customer_id not in call.mismatched and not desk.is_locked(customer_id):
            return desk.accept(call, customer_id, card_id, ("keyed card", "pin"))
    holders = [customer_id for customer_id, _ in call.keyed_cards]
    return desk.fail(call, holders or call.customer_ids, pin=False)


def _spoken(desk: Desk, call: Call, spoken: list[str]) -> Verdict:
    """The voice is matched first; only for whom it matched are the digits compared."""
    assert desk.utterance
    decisions = {
        customer_id: desk.scorer.score(print_, [desk.utterance])
        for customer_id in call.customer_ids
        if (print_ := desk.voiceprint(customer_id))
    }
    record: dict[str, object] = {
        "candidates": len(spoken),
        "voice": sorted((d.outcome.value, round(d.llr, 2)) for d in decisions.values()),
    }
    matched = [c for c, d in decisions.items() if d.outcome is Outcome.MATCH and not desk.is_locked(c)]
    for customer_id in matched:
        if card_id := desk.card_of(customer_id, spoken):
            desk.store.keep(call.sid, SPOKEN_CARD, desk.utterance.to_bytes())
            accepted = desk.accept(call, customer_id, card_id, ("spoken card", "voice"))
            return replace(accepted, decisions={**accepted.decisions, **record, "card": True})
    if any(d.outcome is Outcome.INCONCLUSIVE for d in decisions.values()):
        return Verdict(Event.AGAIN, call, record)
    best = max((len(h.digits) for h in desk.heard.hypotheses), default=0)
    if best < SPOKEN_ATTEMPT_DIGITS or (matched and not spoken):
        return Verdict(Event.AGAIN, call, record)  # not heard well enough to be anyone's failure
    others = [c for c, d in decisions.items() if d.outcome is Outcome.NO_MATCH]
    call = replace(call, mismatched=tuple(sorted({*call.mismatched, *others})))
    return desk.fail(call, call.customer_ids, **record, card=False if matched else None)


def _keyed(desk: Desk, call: Call) -> Verdict:
    keys = desk.heard.keys
    if len(keys) == CUSTOMER_NUMBER_DIGITS:
        customer = customer_by_number(desk.session, keys)
        return Verdict(Event.IDENTIFIED, replace(call, customer_ids=(customer.id,) if customer else ()))
    if len(keys) == CODE_DIGITS:
        desk.store.keep(call.sid, CODE, keys.encode())
        return Verdict(Event.IDENTIFIED, replace(call, code_seal=CODE))
    if len(keys) not in CARD_DIGITS:
        return Verdict(Event.AGAIN, call)
    if call.code_seal:
        return _to_enrol(desk, call, [keys])
    found = tuple((c, card_id) for c in call.customer_ids if (card_id := desk.card_of(c, [keys])))
    return Verdict(Event.KEYED, replace(call, keyed_cards=found))


def _to_enrol(desk: Desk, call: Call, spoken: list[str]) -> Verdict:
    """A code given over a channel the customer trusts, and an authorised card: together they may enrol."""
    if not spoken:
        return Verdict(Event.AGAIN, call)
    code = (desk.store.kept(call.sid, CODE) or b"").decode()
    for customer_id in call.customer_ids:
        code_right = enrolment.check_code(desk.session, customer_id, code, desk.keyring, desk.now)
        card_id = desk.card_of(customer_id, spoken)
        if code_right and card_id and not desk.is_locked(customer_id):
            call = replace(call, customer_ids=(customer_id,), customer_id=customer_id, card_id=card_id)
            return Verdict(Event.MAY_ENROL, call)
    return desk.fail(call, call.customer_ids, enrolment=False)
