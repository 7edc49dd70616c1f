"""Recordings played into calls, late answers, what many failures lead to: judged for real, only the ear is given."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select
from test_call_judging import CARD, NOW, OTHER_CARD, PIN, House, Telephone, encoder, house, scorer

from ivr.call.models import Turn
from ivr.customers import budget, utterances
from ivr.customers.enrolment import issue_code
from ivr.customers.models import Consent, Failure, FailureBudget, Notice, UtterancePrint, VoiceprintRow, VoiceSecret
from ivr.ops.simcarrier.audio import played_again
from ivr.payments.banks import connect
from ivr.payments.service import WrongBank, start_payment
from ivr.resources import shipped
from ivr.speech.audio import Pcm, read_audio
from ivr.speech.expect import EndReason, Heard
from ivr.speech.numbers import Hypothesis
from voiceprint.replay import Sound

__all__ = ["encoder", "house", "scorer"]


def recording(name: str = "card") -> Pcm:
    return read_audio(shipped(f"fixtures/audio/alice/{name}.wav"))


def plays(call: Telephone, pcm: Pcm, digits: str = CARD, onset_ms: int | None = 300) -> str:
    """Play a recording into the call; the prompt that follows."""
    heard = Heard(EndReason.COMPLETE, (Hypothesis(digits, 0.0),), pcm=pcm, speech_ms=6000, onset_ms=onset_ms)
    call._over(heard)
    return call.heard


def asked(house: House, call: Telephone) -> str:
    at = house.engine.store.load(call.sid)
    assert at
    return at[1].digits


def answer(digits: str, takes: tuple[int, ...]) -> Pcm:
    """The digits in these of her takes, in turn."""
    names = [f"digits/{digit}_{takes[i % len(takes)]}" for i, digit in enumerate(digits)]
    return np.concatenate([recording(name) for name in names])


def decisions(house: House, call: Telephone, step: int) -> dict[str, object]:
    with house.database.transaction() as session:
        return session.get_one(Turn, (call.sid, step)).decisions


def failures(house: House, customer_id: str) -> int:
    with house.database.transaction() as session:
        row = session.get(FailureBudget, (customer_id, True))
        return row.total if row else 0


@pytest.mark.parametrize(("codec", "gain_db"), [(None, 0), ("alaw", -10), ("gsm", -6)])
def test_a_recording_of_an_earlier_call_is_a_failure_like_any_other(
    house: House, codec: str | None, gain_db: float
) -> None:
    customer_id = house.customer(test=False)
    assert plays(house.call(), recording()) == "challenge.ask"
    thief = house.call()
    for _ in range(2):
        assert plays(thief, played_again(recording(), codec, gain_db)) == "card.retry"
    assert failures(house, customer_id) == 2
    ((verdict, likeness),) = decisions(house, thief, 1)["replay"]  # type: ignore[misc]
    assert verdict == "replayed"
    assert likeness >= 1


def test_who_plays_a_recording_cannot_finish_by_keypad(house: House) -> None:
    house.customer(test=False)
    plays(house.call(), recording())
    thief = house.call()
    for _ in range(3):
        plays(thief, recording())
    thief.keys(CARD)
    thief.keys(PIN)
    assert thief.heard == "keypad.retry"


def test_she_herself_saying_the_number_anew_is_heard(house: House) -> None:
    customer_id = house.customer(test=False)
    plays(house.call(), recording("card"))
    again = house.call()
    assert plays(again, recording("card_2")) == "challenge.ask"
    ((verdict, _),) = decisions(house, again, 1)["replay"]  # type: ignore[misc]
    assert verdict == "fresh"
    assert failures(house, customer_id) == 0


def test_recordings_are_let_through_for_test_customers_alone_and_still_recorded(house: House) -> None:
    customer_id = house.customer(test=True)
    plays(house.call(), recording())
    again = house.call()
    assert plays(again, recording()) == "challenge.ask"
    ((verdict, _),) = decisions(house, again, 1)["replay"]  # type: ignore[misc]
    assert verdict == "replayed"
    assert failures(house, customer_id) == 0


def test_a_test_customer_can_be_debited_at_a_bank_for_tests_alone(house: House) -> None:
    house.customer(test=True)
    call = house.call()
    plays(call, recording())
    at = house.engine.store.load(call.sid)
    assert at
    assert at[1].bill
    with pytest.raises(WrongBank), house.database.transaction() as session:
        start_payment(
            session,
            bill_id=str(at[1].bill["id"]),
            customer_id=at[1].customer_id or "",
            card_id=at[1].card_id or "",
            idempotency_key="key",
            call_sid=call.sid,
            evidence={},
            now=NOW,
            bank="a real bank",
            test_bank=False,
        )
    assert connect(house.settings).test_only


def test_a_step_that_is_judged_twice_is_no_replay_of_itself(house: House) -> None:
    house.customer(test=False)
    call = house.call()
    at = house.engine.store.load(call.sid)
    assert at
    heard = Heard(EndReason.COMPLETE, (Hypothesis(CARD, 0.0),), pcm=recording(), speech_ms=6000)
    events = [house.judge.conclude(call.answer.step, at[1], heard).event for _ in range(2)]
    assert events[0] == events[1]
    ((verdict, _),) = decisions(house, call, call.answer.step)["replay"]  # type: ignore[misc]
    assert verdict == "nothing to compare"
    with house.database.transaction() as session:
        assert len(session.scalars(select(UtterancePrint)).all()) == 1


def test_an_answer_cut_out_of_earlier_answers_is_refused(house: House) -> None:
    customer_id = house.customer(test=False)
    with house.database.transaction() as session:  # what the thief has on tape: every digit
        consent_id = session.scalars(select(Consent.id)).one()
        secret = utterances.secret_of(session, customer_id, house.keyring, NOW)
        kept = Sound(answer("0123456789", (1,))).fingerprint(secret)
        utterances.remember(
            session, customer_id, kept, call_sid="CAx", step="1", consent_id=consent_id, keyring=house.keyring, now=NOW
        )
    call = house.call()
    plays(call, recording())
    digits = asked(house, call)
    assert plays(call, played_again(answer(digits, (1,)), "alaw", -6), digits) == "challenge.retry"
    assert failures(house, customer_id) == 1
    digits = asked(house, call)
    plays(call, answer(digits, (3, 4)), digits)
    assert call.answer.then == "hold"  # said anew, it is her


def test_what_was_accepted_is_remembered_sealed_under_her_consent(house: House) -> None:
    customer_id = house.customer(test=False)
    call = house.call()
    plays(call, recording())
    digits = asked(house, call)
    plays(call, answer(digits, (3, 4)), digits)
    with house.database.transaction() as session:
        rows = session.scalars(select(UtterancePrint).order_by(UtterancePrint.step)).all()
        voiceprint = session.scalars(select(VoiceprintRow)).one()
        assert [(row.customer_id, row.call_sid, row.step) for row in rows] == [
            (customer_id, call.sid, "1"),
            (customer_id, call.sid, "2"),
        ]
        assert {row.consent_id for row in rows} == {voiceprint.consent_id}
        assert voiceprint.last_used_at == NOW
        assert not any(b"VPR1" in row.sealed for row in rows)


def test_what_was_refused_is_not_remembered(house: House) -> None:
    house.customer(test=False)
    plays(house.call(), read_audio(shipped("fixtures/audio/bob/alice_card.wav")))
    plays(house.call(), recording("foreign_card"), OTHER_CARD)
    with house.database.transaction() as session:
        assert session.scalars(select(UtterancePrint)).all() == []


@pytest.mark.parametrize("late", [{"onset_ms": 6000}, {"pcm": 13}], ids=["begins", "ends"])
def test_an_answer_outside_the_window_is_asked_for_again_and_nobodys_failure(
    house: House, late: dict[str, int]
) -> None:
    customer_id = house.customer()
    call = house.call()
    plays(call, recording())
    digits = asked(house, call)
    pcm = answer(digits, (3, 4))
    pcm = np.pad(pcm, (0, late.get("pcm", 0) * 8000))
    assert plays(call, pcm, digits, onset_ms=late.get("onset_ms", 300)) == "challenge.retry"
    assert decisions(house, call, 2)["begun_ms"] == late.get("onset_ms", 300)
    assert failures(house, customer_id) == 0


def test_an_enrolment_remembers_its_strings_and_its_withdrawal_forgets_all(house: House) -> None:
    customer_id = house.customer(voice=None, test=False)

    def enrol(consents: str) -> None:
        with house.database.transaction() as session:
            code = issue_code(session, customer_id, house.keyring, NOW)
        call = house.call()
        call.keys(code)
        plays(call, recording("card" if consents == "yes" else "second_card"))
        call.answers(consents)
        if consents == "yes":
            for takes in ((1, 2), (3, 4), (2, 3)):
                digits = asked(house, call)
                plays(call, answer(digits, takes), digits)
        call.keys("593826")
        call.keys("593826")
        assert call.answer.then == "hang_up"

    enrol("yes")
    with house.database.transaction() as session:
        assert len(session.scalars(select(UtterancePrint)).all()) == 4  # the card number, three strings
    again = house.call()
    plays(again, recording())
    ((verdict, _),) = decisions(house, again, 1)["replay"]  # type: ignore[misc]
    assert verdict == "replayed"
    with house.database.transaction() as session:
        code = issue_code(session, customer_id, house.keyring, NOW)
    thief = house.call()
    thief.keys(code)
    assert plays(thief, recording()) == "card.retry"  # a recording, though card and code are right
    enrol("no")
    with house.database.transaction() as session:
        for table in (UtterancePrint, VoiceSecret, VoiceprintRow):
            assert session.scalars(select(table)).all() == []
        assert all(consent.withdrawn_at for consent in session.scalars(select(Consent)))


def test_after_five_failures_and_the_wait_card_and_pin_are_needed_once(house: House) -> None:
    customer_id = house.customer(bills=(4210, 1000))
    long_ago = NOW - timedelta(days=1)
    with house.database.transaction() as session:
        for i in range(budget.FREE_IN_A_ROW):
            budget.record_failure(session, [customer_id], f"CAx{i}", "1", long_ago)
        assert not budget.is_locked(session, customer_id, NOW)
    assert plays(house.call(), recording()) == "card.retry"  # right, and no use: the wait begins anew
    with house.database.transaction() as session:
        row = session.get_one(FailureBudget, (customer_id, True))
        row.locked_until = NOW
    call = house.call()
    call.keys(CARD)
    call.keys(PIN)
    call.answers(1)
    call.keys("1")
    assert call.answer.then == "hold"
    assert plays(house.call(), recording()) == "challenge.ask"


def test_the_customer_is_told_of_every_lock(house: House) -> None:
    customer_id = house.customer()
    with house.database.transaction() as session:
        for i in range(budget.FREE_IN_A_ROW):
            assert session.scalars(select(Notice)).all() == []
            budget.record_failure(session, [customer_id], f"CAx{i}", "1", NOW)
    with house.database.transaction() as session:
        for i in range(budget.FREE_IN_A_ROW):
            budget.record_failure(session, [customer_id], f"CAy{i}", "1", NOW, attested=False)
        assert [n.template for n in session.scalars(select(Notice))] == ["locked"]  # locked anyway: no second one
        budget.reset(session, customer_id)
        for i in range(budget.FREE_IN_A_ROW):
            budget.record_failure(session, [customer_id], f"CAz{i}", "1", NOW, attested=False)
        assert sorted(n.template for n in session.scalars(select(Notice))) == ["locked", "locked.unattested"]
        assert not budget.is_locked(session, customer_id, NOW, attested=True)


def test_what_cannot_be_judged_is_nobodys_failure(house: House) -> None:
    house.customer(test=False)
    call = house.call()
    plays(call, (recording() / 40 + np.random.default_rng(0).normal(0, 900, len(recording()))).astype(np.int16))
    with house.database.transaction() as session:
        assert session.scalars(select(Failure)).all() == []


def test_a_fault_of_ours_while_comparing_is_no_acceptance(house: House) -> None:
    house.customer(test=False)
    plays(house.call(), recording())
    with house.database.transaction() as session:
        row = session.scalars(select(UtterancePrint)).one()
        row.sealed = row.sealed[:-1] + bytes([row.sealed[-1] ^ 1])
    assert plays(house.call(), recording("card_2")) == "card.retry"
