"""Who calls: a spoken card with its voice, a keyed card with its PIN, a customer number, an enrolment code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ivr.call.flow import Call, Event
from ivr.call.judging import liveness
from ivr.call.judging.desk import Desk, Verdict
from ivr.call.session import CARD, CODE, PRINTS, SPOKEN_FIRST
from ivr.customers import enrolment, utterances
from ivr.customers.lookup import customer_by_number
from ivr.customers.voiceprints import may_have_voiceprint
from ivr.speech.cards import candidates
from ivr.speech.expect import EndReason
from ivr.speech.pan import SHORTEST
from voiceprint import Outcome

CODE_DIGITS = enrolment.CODE_DIGITS
CUSTOMER_NUMBER_DIGITS = 7
#: Keyed in place of a card by a guardian who wants to manage what her ward may pay.
GUARDIAN_KEY = "9"
#: From here on the caller was saying a number, and another's voice is a failure, not noise.
SPOKEN_ATTEMPT_DIGITS = 8
#: Customer numbers that one caller id, and that all callers without one together, may key in an hour.
KEYED_LOOKUPS, KEYED_LOOKUPS_WITHHELD = 10, 100
#: A PIN is checked also where no card was right: it takes as long, and is as wrong.
NOBODY = ("", "")


def card(desk: Desk, call: Call) -> Verdict:
    """A card said or keyed, or one of the numbers that may be keyed instead of it."""
    keys = desk.heard.keys
    if keys and len(keys) < SHORTEST:
        return _number(desk, call) if desk.heard.end is EndReason.KEYS else Verdict(Event.AGAIN, call)
    said = [keys] if keys else candidates(desk.heard.hypotheses)
    if call.code_keyed and said and (enrolling := _may_enrol(desk, call, said)):
        return enrolling
    return _keyed(desk, call) if keys else _spoken(desk, call, said)


def pin(desk: Desk, call: Call) -> Verdict:
    """The PIN, judged together with the card that was keyed before it. Two of a household may share a card."""
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    for customer_id, card_id in call.keyed_cards or (NOBODY,):
        if desk.right_pin(call, customer_id) and customer_id not in call.mismatched:
            return desk.accept(call, customer_id, card_id, ("keyed card", "pin"))
    holders = [customer_id for customer_id, _ in call.keyed_cards]
    return desk.fail(call, holders or call.customer_ids, pin=False)


def _spoken(desk: Desk, call: Call, said: Sequence[str]) -> Verdict:
    """The voice is matched first; only for whom it matched are the digits compared."""
    if desk.utterance is None:
        return Verdict(Event.AGAIN, call)
    enrolled = {c: print_ for c in call.customer_ids if (print_ := desk.voiceprint(c))}
    decisions = desk.verify(call, enrolled, [desk.utterance])
    replays = {customer_id: liveness.replay(desk, call, customer_id) for customer_id in decisions}
    record: dict[str, object] = {
        "candidates": len(said),
        "confidence": desk.heard.confidence,
        "voice": sorted((d.outcome.value, round(d.llr, 2)) for d in decisions.values()),
        "replay": sorted(r.record for r in replays.values()),
        **liveness.times(desk),
    }
    if played := [c for c, r in replays.items() if r.refuses]:
        return desk.fail(_without_keypad(call, played), played, **record)
    matched = [c for c, d in decisions.items() if d.outcome is Outcome.MATCH]
    for customer_id in matched:
        card_id = desk.card_of(call, customer_id, said)
        if card_id and desk.may_use_voice(call, customer_id) and desk.may_challenge(customer_id):
            desk.store.keep(call.sid, SPOKEN_FIRST, desk.utterance.to_bytes())
            liveness.remember(desk, call, customer_id)
            accepted = desk.accept(call, customer_id, card_id, ("spoken card", "voice"))
            return replace(accepted, decisions={**accepted.decisions, **record, "card": True})
    if any(d.outcome is Outcome.INCONCLUSIVE for d in decisions.values()):
        return Verdict(Event.AGAIN, call, record)
    longest = max((len(h.digits) for h in desk.heard.hypotheses), default=0)
    if longest < SPOKEN_ATTEMPT_DIGITS or (matched and not said):
        return Verdict(Event.AGAIN, call, record)  # not heard well enough to be anyone's failure
    others = [c for c, d in decisions.items() if d.outcome is Outcome.NO_MATCH]
    # Who was recognised has erred; where nobody was, everyone whose voice was compared has been tried.
    return desk.fail(_without_keypad(call, others), matched or [*decisions], **record, card=False if matched else None)


def _without_keypad(call: Call, customer_ids: Sequence[str]) -> Call:
    """It was not they who spoke: in this call the keypad does not stand in for their voice."""
    return replace(call, mismatched=tuple(sorted({*call.mismatched, *customer_ids})))


def _keyed(desk: Desk, call: Call) -> Verdict:
    """Right or not is told after the PIN."""
    found = tuple((c, card_id) for c in call.customer_ids if (card_id := desk.card_of(call, c, [desk.heard.keys])))
    return Verdict(Event.KEYED, replace(call, keyed_cards=found))


def _number(desk: Desk, call: Call) -> Verdict:
    """A customer number, an enrolment code or a guardian's key, and the hash key. Whether it is one is not told."""
    keys = desk.heard.keys
    if keys == GUARDIAN_KEY:
        return Verdict(Event.GUARDIAN, call)
    if len(keys) == CUSTOMER_NUMBER_DIGITS:
        limit = KEYED_LOOKUPS if call.caller_id else KEYED_LOOKUPS_WITHHELD
        within = desk.store.within(f"keyed:{call.line}", limit, 3600)
        customer = customer_by_number(desk.session, keys) if within else None
        if customer is None:
            return Verdict(Event.IDENTIFIED, replace(call, customer_ids=()))
        # For another's telephone the carrier vouches, but not for hers.
        hers = call.attestation if customer.id in call.customer_ids else None
        return Verdict(Event.IDENTIFIED, replace(call, customer_ids=(customer.id,), attestation=hers))
    if len(keys) == CODE_DIGITS:
        desk.store.keep(call.sid, CODE, keys.encode())
        return Verdict(Event.IDENTIFIED, replace(call, code_keyed=True))
    return Verdict(Event.AGAIN, call)


def _may_enrol(desk: Desk, call: Call, said: Sequence[str]) -> Verdict | None:
    """A code given over a channel the customer trusts, and an authorised card: together they may enrol.

    None where they are not both right: the call goes on as if no code had been keyed, and tells nothing.
    """
    code = (desk.store.kept(call.sid, CODE) or b"").decode()
    cards = {who: card_id for who in call.customer_ids if (card_id := desk.card_of(call, who, said))}
    # A stranger, who has no card of hers either, learns nothing, and uses up none of her tries.
    customer_id = enrolment.which_customer(
        desk.session, call.customer_ids, code, desk.keyring, desk.now, may_try=cards.keys()
    )
    if not customer_id or desk.is_locked(call, customer_id):
        return None
    card_id = cards.get(customer_id)
    record: dict[str, object] = {}
    if desk.sound:
        replay = liveness.replay(desk, call, customer_id)
        record = {"replay": [replay.record], **liveness.times(desk)}
        if replay.refuses:
            return desk.fail(call, [customer_id], **record)
    if not card_id:
        desk.charge(call, [customer_id])  # whatever follows: with a right code, this was a guess at her card
        return None
    if desk.sound:
        secret = utterances.secret_of(desk.session, customer_id, desk.keyring, desk.now)
        desk.store.keep(call.sid, PRINTS[CARD], desk.sound.fingerprint(secret))
    call = replace(call, customer_ids=(customer_id,), customer_id=customer_id, card_id=card_id)
    voice = may_have_voiceprint(desk.session, customer_id)
    return Verdict(Event.MAY_ENROL if voice else Event.MAY_SET_PIN, call, record)
