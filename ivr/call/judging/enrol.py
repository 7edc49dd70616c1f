"""Consent, three random digit strings, a PIN: nothing is changed before the last of them, and then all at once."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from dataclasses import replace

from ivr.call.flow import Call, Event, State
from ivr.call.judging import liveness
from ivr.call.judging.desk import Desk, Verdict
from ivr.call.session import CODE, NEW_PIN, PRINTS, STRINGS, VOICEPRINT
from ivr.customers import enrolment, pins, utterances
from ivr.customers.notices import notify
from ivr.customers.voiceprints import (
    CONSENT_TEXT_VERSION,
    delete_voiceprint,
    provisional_until,
    record_consent,
    store_voiceprint,
)
from voiceprint import PoorQuality, Utterance, Voiceprint, enrol, extend

_KEPT_AS = dict(zip((State.ENROL_1, State.ENROL_2, State.ENROL_3), STRINGS, strict=True))


def consent(desk: Desk, call: Call) -> Verdict:
    """Yes or no to a voiceprint, said or pressed."""
    answer = desk.heard.answer
    if answer == "yes":
        return Verdict(Event.YES, replace(call, consented=True))
    return Verdict(Event.NO if answer == "no" else Event.AGAIN, call)


def string(desk: Desk, call: Call) -> Verdict:
    """One of the three strings; with the third, the voiceprint."""
    readings = desk.heard.hypotheses[:3]
    if desk.utterance is None or not any(_nearly(h.digits, call.digits) for h in readings):
        return Verdict(Event.AGAIN, call)
    assert call.customer_id
    assert desk.sound
    replay = liveness.replay(desk, call, call.customer_id)
    record = {"replay": [replay.record], **liveness.times(desk)}
    if replay.refuses:
        return desk.fail(call, [call.customer_id], **record)
    name = _KEPT_AS[call.state]
    secret = utterances.secret_of(desk.session, call.customer_id, desk.keyring, desk.now)
    desk.store.keep(call.sid, name, desk.utterance.to_bytes())
    desk.store.keep(call.sid, PRINTS[name], desk.sound.fingerprint(secret))
    if call.state is not State.ENROL_3:
        return Verdict(Event.HEARD, call, record)
    kept = [Utterance.from_bytes(blob) for name in STRINGS if (blob := desk.store.kept(call.sid, name))]
    if watched := desk.watched(call, kept):  # once enrolled, she would fit herself better
        return desk.fail(call, [call.customer_id], watched=round(watched.llr, 2), **record)
    try:
        voiceprint = enrol(kept, desk.scorer.enrolment_limits, desk.scorer.llr)
    except PoorQuality as poor:
        return Verdict(Event.POOR, call, {"quality": str(poor.advice), **record})
    desk.store.keep(call.sid, VOICEPRINT, voiceprint.to_bytes())
    return Verdict(Event.HEARD, call, record)


def new_pin(desk: Desk, call: Call) -> Verdict:
    """A PIN that is not easy to guess; until it is repeated, only its keyed hash is kept."""
    pin = desk.heard.keys
    if len(pin) != pins.PIN_DIGITS:
        return Verdict(Event.AGAIN, call)
    assert call.customer_id
    if pins.is_guessable(desk.session, call.customer_id, pin):
        return Verdict(Event.TRIVIAL, call)
    desk.store.keep(call.sid, NEW_PIN, _fingerprint(desk, call, pin))
    return Verdict(Event.NEW, call)


def repeated_pin(desk: Desk, call: Call) -> Verdict:
    """The same PIN again, and everything that this enrolment changes, in one transaction."""
    pin = desk.heard.keys
    if not pin:
        return Verdict(Event.AGAIN, call)
    if not hmac.compare_digest(_fingerprint(desk, call, pin), desk.store.kept(call.sid, NEW_PIN) or b""):
        return Verdict(Event.DIFFERS, call)
    assert call.customer_id
    code = (desk.store.kept(call.sid, CODE) or b"").decode()
    if not enrolment.use_code(desk.session, call.customer_id, code, desk.keyring, desk.now, call_sid=call.sid):
        return Verdict(Event.EXHAUSTED, call, {"enrolment": "code used or expired"})
    if call.consented:
        blob = desk.store.kept(call.sid, VOICEPRINT)
        if blob is None:
            return Verdict(Event.EXHAUSTED, call, {"enrolment": "took too long"})
        _store_voiceprint(desk, call.customer_id, call.sid, Voiceprint.from_bytes(blob))
    else:
        delete_voiceprint(desk.session, call.customer_id, desk.now)
    pins.set_pin(
        desk.session,
        call.customer_id,
        pin,
        desk.keyring,
        desk.now,
        provisional_until=provisional_until(desk.now),
        call_sid=call.sid,
    )
    notify(desk.session, call.customer_id, "enrolled" if call.consented else "pin_set", {}, desk.now)
    return Verdict(Event.SET, call)


def _store_voiceprint(desk: Desk, customer_id: str, call_sid: str, voiceprint: Voiceprint) -> None:
    """Together with what an earlier call enrolled, if that was the same voice; else in its place."""
    if earlier := desk.voiceprint(customer_id):
        with suppress(PoorQuality):
            voiceprint = extend(earlier, voiceprint, desk.scorer.enrolment_limits, desk.scorer.llr)
    given = record_consent(
        desk.session,
        customer_id,
        text_version=CONSENT_TEXT_VERSION,
        channel=f"call:{call_sid}",
        now=desk.now,
    )
    store_voiceprint(
        desk.session,
        customer_id,
        voiceprint.to_bytes(),
        model_id=voiceprint.model_id,
        sample_rate=desk.encoder.sample_rate,
        channel="telephone",
        consent_id=given.id,
        keyring=desk.keyring,
        now=desk.now,
        call_sid=call_sid,
    )
    for name in PRINTS.values():
        if fingerprint := desk.store.kept(call_sid, name):
            utterances.remember(
                desk.session,
                customer_id,
                fingerprint,
                call_sid=call_sid,
                step=name,
                consent_id=given.id,
                keyring=desk.keyring,
                now=desk.now,
            )


def _nearly(heard: str, asked: str) -> bool:
    """Whether at most one digit was misheard: it is the voice that counts here, the digits show that it is live."""
    return len(heard) == len(asked) and sum(a != b for a, b in zip(heard, asked, strict=True)) <= 1


def _fingerprint(desk: Desk, call: Call, pin: str) -> bytes:
    _, key = desk.keyring.active("pin")
    return hmac.new(key, f"{call.sid}|{pin}".encode(), hashlib.sha256).digest()
