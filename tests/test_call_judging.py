"""Calls judged for real: real voices (of the fixtures), real encoder, database and Redis; only the ear is given."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import redis
from sqlalchemy import select, update

from ivr.call.engine import LOOKUPS_PER_CALLER_ID, Engine
from ivr.call.flow import State
from ivr.call.judging import Judge
from ivr.call.judging.judge import FLOOR_S
from ivr.call.models import Turn
from ivr.call.session import Answer, CallStore
from ivr.carrier.twiml import twiml
from ivr.customers import budget, watchlist
from ivr.customers.bills import create_bill
from ivr.customers.cards import add_card
from ivr.customers.enrolment import MOST_TRIES, issue_code
from ivr.customers.models import Audit, Consent, Customer, Notice, VoiceprintRow
from ivr.customers.pins import check_pin, set_pin
from ivr.customers.register import add_customer
from ivr.customers.voiceprints import load_voiceprint, record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.speech.audio import read_audio
from ivr.speech.expect import EndReason, Heard
from ivr.speech.numbers import Hypothesis
from ivr.store.db import Database
from voiceprint import Encoder, Scorer, Voiceprint, enrol

ALICE, UNKNOWN = "+14155550101", "+14155550199"
CARD, OTHER_CARD = "4539148803436467", "4539147269105384"
PIN, CODE_LENGTH = "482915", 8
NOW = datetime.now(UTC)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return Encoder.load(shipped("models/voice"))


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    return Scorer.load(shipped("models/voice"))


@dataclass
class Telephone:
    """One call: what the caller says or keys goes in, what the carrier would be told comes out."""

    engine: Engine
    judge: Judge
    settings: Settings
    sid: str
    answer: Answer

    def says(self, digits: str, voice: str, recording: str = "card", confidence: float | None = None) -> Answer:
        pcm = read_audio(shipped(f"fixtures/audio/{voice}/{recording}.wav"))
        hypotheses = (Hypothesis(digits, 0.0, confidence),)
        return self._over(Heard(EndReason.COMPLETE, hypotheses, pcm=pcm, speech_ms=6000))

    def answers_challenge(self, voice: str, digits: str | None = None) -> Answer:
        call = self.engine.store.load(self.sid)
        assert call
        digits = digits if digits is not None else call[1].digits
        clips = [read_audio(shipped(f"fixtures/audio/{voice}/digits/{d}_1.wav")) for d in digits]
        heard = Heard(EndReason.COMPLETE, (Hypothesis(digits, 0.0),), pcm=np.concatenate(clips), speech_ms=2000)
        return self._over(heard)

    def answers(self, answer: str | int) -> Answer:
        return self._over(Heard(EndReason.COMPLETE, answer=answer))

    def keys(self, keys: str) -> Answer:
        return self._over(Heard(EndReason.KEYS, keys=keys))

    def is_silent(self) -> Answer:
        return self._over(Heard(EndReason.NOTHING))

    @property
    def heard(self) -> str:
        """The prompt that the caller hears now."""
        return self.answer.lines[-1].prompt

    @property
    def carrier_sees(self) -> str:
        text = twiml(self.answer, "https://pay.example.com", "token", self.settings)
        return re.sub(r"say after the tone: [\d ]+", "say after the tone: *", text)

    def _over(self, heard: Heard) -> Answer:
        step = self.answer.step
        at = self.engine.store.load(self.sid)
        assert at
        self.judge.conclude(step, at[1], heard)
        following = self.engine.turn_over(self.sid, step)
        assert following
        self.answer = following
        return following


@dataclass
class House:
    """The service, and an operator who adds customers."""

    database: Database
    keyring: Keyring
    settings: Settings
    encoder: Encoder
    scorer: Scorer
    engine: Engine
    judge: Judge
    calls: int = 0

    def customer(
        self,
        phone: str = ALICE,
        *,
        voice: str | None = "alice",
        pin: str | None = PIN,
        bills: Sequence[int] = (4210,),
        test: bool = True,
    ) -> str:
        with self.database.transaction() as session:
            customer = add_customer(session, phones=[phone], test=test, sms=[phone], now=NOW)
            add_card(
                session, customer.id, CARD, exp_year=NOW.year + 2, exp_month=12, token="tok_1",
                authorised_by="test", keyring=self.keyring, now=NOW,
            )  # fmt: skip
            for i, amount in enumerate(bills):
                create_bill(
                    session,
                    customer.id,
                    merchant="Corner Bookshop",
                    amount_minor=amount,
                    currency="USD",
                    now=NOW + timedelta(seconds=i),
                )
            if pin:
                set_pin(session, customer.id, pin, self.keyring, NOW)
            if voice:
                self._voiceprint(session, customer.id, voice)
            return customer.id

    def _voiceprint(self, session, customer_id: str, voice: str) -> None:  # type: ignore[no-untyped-def]
        heard = [self.encoder.embed(read_audio(shipped(f"fixtures/audio/{voice}/enrol_{i}.wav"))) for i in (1, 2, 3)]
        blob = enrol(heard, self.scorer.enrolment_limits).to_bytes()
        consent = record_consent(session, customer_id, text_version="1", channel="test", now=NOW)
        store_voiceprint(
            session, customer_id, blob, self.encoder.model_id, 8000, "telephone", consent.id, self.keyring, NOW
        )
        session.execute(update(VoiceprintRow).values(provisional_until=NOW - timedelta(hours=1)))

    def watch(self, voice: str, recordings: Sequence[str] = ("enrol_1", "enrol_2", "enrol_3")) -> str:
        heard = [self.encoder.embed(read_audio(shipped(f"fixtures/audio/{voice}/{name}.wav"))) for name in recordings]
        with self.database.transaction() as session:
            return watchlist.add_entry(
                session, enrol(heard, self.scorer.enrolment_limits), label=f"case {voice}",
                legal_basis="court order 7 of 2026", keyring=self.keyring, now=NOW,
            ).id  # fmt: skip

    def call(self, phone: str = ALICE) -> Telephone:
        self.calls += 1
        sid = f"CA{self.calls:032d}"
        answer = self.engine.ring(sid, phone, "TN-Validation-Passed-A", "en")
        return Telephone(self.engine, self.judge, self.settings, sid, answer)

    def payments(self) -> list[Payment]:
        with self.database.transaction() as session:
            return list(session.scalars(select(Payment)))


@pytest.fixture
def house(
    database: Database,
    redis_client: redis.Redis,
    keyring: Keyring,
    settings: Settings,
    encoder: Encoder,
    scorer: Scorer,
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    # The same digits in each run: what a voice does with them is real, and one draw in 150 fools the encoder.
    monkeypatch.setattr("ivr.call.engine.secrets", random.Random(7))
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, encoder, scorer, lambda: NOW)
    engine = Engine(calls, database, judge, lambda: NOW)
    return House(database, keyring, settings, encoder, scorer, engine, judge)


def test_her_voice_her_card_and_the_fresh_digits_start_one_payment(house: House) -> None:
    customer_id = house.customer()
    call = house.call()
    assert call.says(CARD, "alice").then == "listen"
    assert call.heard == "challenge.ask"
    assert call.answers_challenge("alice").then == "hold"
    (payment,) = house.payments()
    assert (payment.customer_id, payment.amount_minor, payment.currency) == (customer_id, 4210, "USD")
    assert payment.evidence["factors"] == ["spoken card", "voice", "challenge"]


@pytest.mark.parametrize(("heard", "goes_on_in"), [(("en", "zh"), "zh"), (("en",), "en")])
def test_a_call_goes_on_in_her_language_if_she_is_heard_in_it(
    house: House, heard: tuple[str, ...], goes_on_in: str
) -> None:
    customer_id = house.customer()
    with house.database.transaction() as session:
        session.get_one(Customer, customer_id).locale = "zh"
    house.engine = Engine(house.engine.store, house.database, house.judge, lambda: NOW, heard=heard)
    assert house.call().says(CARD, "alice").locale == goes_on_in


def test_whoever_keys_hears_her_language_in_any_case(house: House) -> None:
    customer_id = house.customer()
    with house.database.transaction() as session:
        session.get_one(Customer, customer_id).locale = "zh"
    house.engine = Engine(house.engine.store, house.database, house.judge, lambda: NOW, heard=("en",))
    call = house.call()
    call.keys(CARD)
    assert call.keys(PIN).locale == "zh"


def _wrong_voice(house: House) -> list[str]:
    house.customer()
    call = house.call()
    return _three_times(call, lambda: call.says(CARD, "bob", "alice_card"))


def _wrong_card(house: House) -> list[str]:
    house.customer()
    call = house.call()
    return _three_times(call, lambda: call.says(OTHER_CARD, "alice", "foreign_card"))


def _wrong_voice_and_card(house: House) -> list[str]:
    house.customer()
    call = house.call()
    return _three_times(call, lambda: call.says(OTHER_CARD, "bob", "card"))


def _unknown_caller(house: House) -> list[str]:
    house.customer()
    call = house.call(UNKNOWN)
    return _three_times(call, lambda: call.says(CARD, "alice"))


def _no_voiceprint(house: House) -> list[str]:
    house.customer(voice=None)
    call = house.call()
    return _three_times(call, lambda: call.says(CARD, "alice"))


def _locked(house: House) -> list[str]:
    customer_id = house.customer()
    with house.database.transaction() as session:
        for i in range(6):
            budget.record_failure(session, [customer_id], f"CAx{i}", "1", NOW)
    call = house.call()
    return _three_times(call, lambda: call.says(CARD, "alice"))


def _replayed(house: House) -> list[str]:
    house.customer(test=False)
    house.call().says(CARD, "alice")
    call = house.call()
    return _three_times(call, lambda: call.says(CARD, "alice"))


def _watched(house: House) -> list[str]:
    house.customer()
    house.watch("alice", ("card", "card_2", "second_card"))
    call = house.call()
    return _three_times(call, lambda: call.says(CARD, "alice"))


def _silence(house: House) -> list[str]:
    house.customer()
    call = house.call()
    return _three_times(call, call.is_silent)


def _three_times(call: Telephone, attempt: Callable[[], Answer]) -> list[str]:
    seen = [call.carrier_sees]
    for _ in range(3):
        started = time.monotonic()
        attempt()
        assert time.monotonic() - started >= FLOOR_S  # judged no faster, however early it was clear
        seen.append(call.carrier_sees)
    call.keys(CARD)
    seen.append(call.carrier_sees)
    call.keys("999999")
    seen.append(call.carrier_sees)
    return seen


WRONGS = [
    _wrong_voice,
    _wrong_card,
    _wrong_voice_and_card,
    _unknown_caller,
    _no_voiceprint,
    _locked,
    _replayed,
    _watched,
    _silence,
]
COUNTED = [_wrong_voice, _wrong_card, _wrong_voice_and_card, _watched]


@pytest.mark.parametrize("wrong", WRONGS[1:], ids=lambda f: f.__name__)
def test_whatever_is_wrong_the_carrier_sees_the_same(
    house: House, wrong: Callable[[House], list[str]], redis_client: redis.Redis
) -> None:
    seen = wrong(house)
    assert "Sorry" not in seen[0]
    redis_client.flushall()
    with house.database.transaction() as session:
        for table in reversed(Customer.metadata.sorted_tables):
            session.execute(table.delete())
    house.calls = 0
    assert seen == _wrong_voice(house)


@pytest.mark.parametrize("wrong", COUNTED, ids=lambda f: f.__name__)
def test_every_wrong_factor_draws_on_one_budget(house: House, wrong: Callable[[House], list[str]]) -> None:
    wrong(house)  # three spoken, and a wrong PIN
    with house.database.transaction() as session:
        (customer,) = session.scalars(select(Customer))
        assert not budget.is_locked(session, customer.id, NOW)
    call = house.call()
    call.says(OTHER_CARD, "alice", "foreign_card")
    with house.database.transaction() as session:
        assert budget.is_locked(session, customer.id, NOW)
    assert call.says(CARD, "alice").lines[0].prompt == "card.retry"  # right now, and no use


def test_a_watched_voice_is_recorded_and_another_entry_stops_nobody(house: House) -> None:
    house.customer()
    bob = house.watch("bob")
    call = house.call()
    assert call.says(CARD, "alice").lines[0].prompt == "challenge.ask"
    alice = house.watch("alice", ("card", "card_2", "second_card"))
    again = house.call()
    assert again.says(CARD, "alice").lines[0].prompt == "card.retry"
    with house.database.transaction() as session:
        noted = session.scalars(select(Audit).where(Audit.what == watchlist.MATCHED)).one()
        assert (noted.subject, noted.who) == (alice, f"call {again.sid}")
        assert {entry.id: heard for entry, heard in watchlist.entries(session)} == {bob: 0, alice: 1}
        watchlist.remove_entry(session, alice)
    assert house.call().says(CARD, "alice").lines[0].prompt == "challenge.ask"


def test_a_watched_voice_fails_the_challenge_too(house: House) -> None:
    house.customer()
    call = house.call()
    call.says(CARD, "alice")
    house.watch("alice", ("card", "card_2", "second_card"))
    assert call.answers_challenge("alice").lines[0].prompt == "challenge.retry"
    assert house.payments() == []


def test_a_voiceprint_of_another_model_is_not_compared_and_the_keypad_still_pays(house: House) -> None:
    customer_id = house.customer()
    with house.database.transaction() as session:
        session.execute(update(VoiceprintRow).values(model_id="another-model"))
    call = house.call()
    assert call.says(CARD, "alice").lines[0].prompt == "card.retry"
    by_keys = house.call()
    by_keys.keys(CARD)
    by_keys.keys(PIN)
    assert by_keys.heard == "keypad.confirm"
    _enrol_again(house, customer_id, "alice")
    assert house.call().says(CARD, "alice").lines[0].prompt == "challenge.ask"


@pytest.mark.parametrize(("voice", "vectors"), [("alice", 6), ("gus", 3)])
def test_a_second_enrolment_joins_the_first_if_it_is_the_same_voice(house: House, voice: str, vectors: int) -> None:
    customer_id = house.customer()
    _enrol_again(house, customer_id, voice)
    with house.database.transaction() as session:
        blob = load_voiceprint(session, customer_id, house.encoder.model_id, house.keyring)
        assert blob
        assert Voiceprint.from_bytes(blob).utterances == vectors


def _enrol_again(house: House, customer_id: str, voice: str) -> None:
    call = house.call()
    call.keys(_code(house, customer_id))
    call.keys(CARD)
    call.answers("yes")
    for _ in range(3):
        call.answers_challenge(voice)
    call.keys("593826")
    assert call.keys("593826").lines[0].prompt == "enrol.done"


def test_silence_and_noise_are_nobodys_failure(house: House) -> None:
    _silence(house)
    with house.database.transaction() as session:
        turns = session.scalars(select(Turn).order_by(Turn.step)).all()
        assert [turn.decisions.get("card") for turn in turns[:3]] == [None] * 3


def test_a_number_hardly_heard_gives_no_guess_away_and_the_caller_is_not_told(house: House) -> None:
    house.customer()
    wrong, unsure = house.call(), house.call()
    wrong.says(OTHER_CARD, "alice")
    assert unsure.says(CARD, "alice", confidence=0.3).then == "listen"
    assert unsure.carrier_sees == wrong.carrier_sees
    with house.database.transaction() as session:
        (turn,) = session.scalars(select(Turn).where(Turn.call_sid == unsure.sid))
        assert (turn.decisions["candidates"], turn.decisions["confidence"]) == (0, 0.3)
        assert "card" not in turn.decisions
    assert unsure.says(CARD, "alice", confidence=0.9).then == "listen"
    assert unsure.heard == "challenge.ask"


def test_card_and_pin_pay_without_a_voice(house: House) -> None:
    house.customer(voice=None)
    call = house.call()
    call.keys(CARD)
    assert call.heard == "pin.ask"
    call.keys(PIN)
    assert call.heard == "keypad.confirm"
    call.keys("1")
    (payment,) = house.payments()
    assert payment.evidence["factors"] == ["keyed card", "pin", "key"]


def test_who_did_not_match_cannot_finish_by_keypad_in_that_call(house: House) -> None:
    house.customer()
    call = house.call()
    call.says(CARD, "bob", "alice_card")
    call.keys(CARD)
    assert call.keys(PIN).lines[0].prompt == "keypad.retry"
    again = house.call()
    again.keys(CARD)
    again.keys(PIN)
    assert again.heard == "keypad.confirm"


def test_a_wrong_card_or_a_wrong_pin_is_told_only_after_both(house: House) -> None:
    house.customer(voice=None)
    for card, pin in ((OTHER_CARD, PIN), (CARD, "111222")):
        call = house.call()
        call.keys(card)
        assert call.heard == "pin.ask"
        call.keys(pin)
        assert call.heard == "keypad.retry"


def test_old_digits_or_another_voice_do_not_answer_a_challenge(house: House) -> None:
    house.customer()
    call = house.call()
    call.says(CARD, "alice")
    call.answers_challenge("bob")
    assert call.heard == "challenge.retry"
    at = house.engine.store.load(call.sid)
    assert at
    wrong = "".join(str((int(d) + 1) % 10) for d in at[1].digits)
    call.answers_challenge("alice", wrong)
    assert call.heard == "challenge.retry"
    call.answers_challenge("alice")
    assert call.answer.then == "hold"


@pytest.mark.parametrize("spoil", ["overdriven", "short", "noisy"])
def test_a_challenge_too_bad_to_judge_lets_nobody_pass(house: House, spoil: str) -> None:
    house.customer()
    call = house.call()
    call.says(CARD, "alice")  # as from a recording of hers
    at = house.engine.store.load(call.sid)
    assert at
    pcm = np.concatenate([read_audio(shipped(f"fixtures/audio/bob/digits/{d}_1.wav")) for d in at[1].digits])
    noise = np.random.default_rng(1).normal(0, 6000, len(pcm))
    spoilt = {
        "overdriven": np.clip(pcm.astype(np.int32) * 60, -32768, 32767),
        "short": pcm[: 8000 // 2],
        "noisy": np.clip(pcm / 4 + noise, -32768, 32767),
    }[spoil].astype(np.int16)
    call._over(Heard(EndReason.COMPLETE, (Hypothesis(at[1].digits, 0.0),), pcm=spoilt, speech_ms=500))
    assert call.heard == "challenge.retry"


def test_a_challenge_that_was_heard_and_not_answered_is_a_failure(house: House) -> None:
    customer_id = house.customer()
    for _ in range(5):
        call = house.call()
        call.says(CARD, "alice")
        assert call.heard == "challenge.ask"
        house.engine.end(call.sid)  # hung up, to call again for better digits
    with house.database.transaction() as session:
        assert budget.is_locked(session, customer_id, NOW)


@pytest.mark.parametrize("by", ["star", "star while it is read out", "stray keys", "agent", "silence"])
def test_whoever_leaves_a_challenge_that_was_heard_has_failed(house: House, by: str) -> None:
    customer_id = house.customer()
    call = house.call()
    call.says(CARD, "alice")
    step = call.answer.step
    match by:
        case "star":
            call._over(Heard(EndReason.CANCEL))
        case "star while it is read out":
            for _ in range(2):  # the carrier sends it again
                house.engine.key_pressed(call.sid, step, "*")
        case "stray keys":
            for _ in range(3):
                call.answer = house.engine.key_pressed(call.sid, call.answer.step, "7")
            assert (call.heard, call.answer.then) == ("refused", "hang_up")
        case "agent":
            call._over(Heard(EndReason.AGENT))
        case "silence":
            for _ in range(3):
                with house.database.transaction() as session:
                    assert budget.failures_in_a_row(session, customer_id) == 0
                call.is_silent()
            assert (call.heard, call.answer.then) == ("refused", "hang_up")
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, customer_id) == 1


def test_challenges_are_not_to_be_had_without_end_by_saying_nothing_either(house: House) -> None:
    customer_id = house.customer(bills=())
    for paid in range(4):
        with house.database.transaction() as session:
            create_bill(session, customer_id, merchant="M", amount_minor=100, currency="USD", now=NOW)
        call = house.call()
        call.says(CARD, "alice")
        if paid == 3:
            break
        assert call.heard == "challenge.ask"
        for _ in range(2):
            call.is_silent()
        assert call.answers_challenge("alice").then == "hold"
    assert call.heard == "challenge.ask"  # the tenth within the hour
    call.is_silent()
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, customer_id) == 1


def test_a_pause_after_eight_keys_of_a_card_is_no_enrolment_code(house: House) -> None:
    house.customer()
    call = house.call()
    call._over(Heard(EndReason.QUIET, keys=CARD[:8]))
    assert call.heard == "card.retry"
    call.says(CARD, "alice")
    assert call.heard == "challenge.ask"


def test_after_a_wrong_code_her_card_and_voice_still_pay(house: House) -> None:
    house.customer()
    call = house.call()
    call.keys("00000000")
    call.says(CARD, "alice")
    assert call.heard == "challenge.ask"


def test_a_new_enrolments_limit_holds_by_keypad_too(house: House) -> None:
    customer_id = house.customer(voice=None, pin=None, bills=(5001,))
    call = house.call()
    call.keys(_code(house, customer_id))
    call.keys(CARD)
    call.answers("no")
    call.keys("593826")
    call.keys("593826")
    call = house.call()
    call.keys(CARD)
    assert call.keys("593826").lines[0].prompt == "bill.limit"


def test_a_failing_database_costs_a_turn_and_not_the_call(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.customer()
    call = house.call()
    broken = Database("sqlite:////nowhere/at/all.sqlite3")
    monkeypatch.setattr(house.judge, "_database", broken)
    assert call.says(CARD, "alice").lines[0].prompt == "card.retry"


def test_the_challenge_is_lost_after_three(house: House) -> None:
    house.customer()
    call = house.call()
    call.says(CARD, "alice")
    for _ in range(3):
        call.answers_challenge("alice", "00000")
    assert (call.heard, call.answer.then, house.payments()) == ("refused", "hang_up", [])


def test_a_household_shares_a_number_and_the_voice_tells_who_it_is(house: House) -> None:
    house.customer(bills=())
    gus = house.customer(voice="gus")
    call = house.call()
    call.says(CARD, "gus")
    assert call.heard == "challenge.ask"
    at = house.engine.store.load(call.sid)
    assert at
    assert at[1].customer_id == gus


def test_from_another_telephone_the_customer_number_selects_her(house: House) -> None:
    customer_id = house.customer()
    with house.database.transaction() as session:
        number = session.get_one(Customer, customer_id).number
    call = house.call(UNKNOWN)
    assert call.keys(number).lines[0].prompt == "card.next"
    assert call.says(CARD, "alice").lines[0].prompt == "challenge.ask"
    stranger = house.call(UNKNOWN)
    assert stranger.keys("0000000").lines[0].prompt == "card.next"  # as if it were one


def test_who_calls_from_a_telephone_of_his_own_locks_only_such_calls_of_hers(house: House) -> None:
    """The carrier vouches for his number, not for hers."""
    customer_id = house.customer()
    with house.database.transaction() as session:
        number = session.get_one(Customer, customer_id).number
    for _ in range(5):
        stranger = house.call(UNKNOWN)
        stranger.keys(number)
        stranger.says(OTHER_CARD, "bob", "alice_card")
    with house.database.transaction() as session:
        assert budget.is_locked(session, customer_id, NOW, attested=False)
    own = house.call()
    assert own.keys(number).lines[0].prompt == "card.next"  # her own telephone, which she shares perhaps
    assert own.says(CARD, "alice").lines[0].prompt == "challenge.ask"
    at = house.engine.store.load(own.sid)
    assert at
    assert at[1].attested


def test_who_forges_her_number_uses_up_no_looking_up_of_hers(house: House) -> None:
    house.customer()
    for i in range(LOOKUPS_PER_CALLER_ID + 1):
        house.engine.ring(f"CA9{i:031d}", ALICE, None, "en")
    at = house.engine.store.load(f"CA9{LOOKUPS_PER_CALLER_ID:031d}")
    assert at
    assert at[1].customer_ids == ()
    assert house.call().says(CARD, "alice").lines[0].prompt == "challenge.ask"


def test_several_bills_are_chosen_from(house: House) -> None:
    house.customer(bills=(1000, 2000, 3000))
    call = house.call()
    call.says(CARD, "alice")
    assert call.heard == "bill.choose"
    call.answers(2)
    assert dict(call.answer.lines[0].values)["amount"] == "20 US dollars"


def _code(house: House, customer_id: str) -> str:
    with house.database.transaction() as session:
        return issue_code(session, customer_id, house.keyring, NOW)


def test_enrolment_with_code_and_card_changes_everything_at_its_end(house: House) -> None:
    customer_id = house.customer(voice=None, pin=None)
    call = house.call()
    call.keys(_code(house, customer_id))
    assert call.says(CARD, "alice").lines[0].prompt == "consent.ask"
    call.answers("yes")
    for _ in range(3):
        call.answers_challenge("alice")
    assert call.heard == "pin.new"
    with house.database.transaction() as session:
        assert load_voiceprint(session, customer_id, house.encoder.model_id, house.keyring) is None
    assert call.keys("123456").lines[0].prompt == "pin.trivial"
    call.keys("593826")
    assert call.keys("593827").lines[0].prompt == "pin.differs"
    call.keys("593826")
    assert call.keys("593826").lines[0].prompt == "enrol.done"
    with house.database.transaction() as session:
        assert load_voiceprint(session, customer_id, house.encoder.model_id, house.keyring)
        assert check_pin(session, customer_id, "593826", house.keyring)
        assert session.scalars(select(Consent)).one().channel == f"call:{call.sid}"
        assert [notice.template for notice in session.scalars(select(Notice))] == ["enrolled"]


def test_a_new_voiceprint_pays_small_amounts_only(house: House) -> None:
    customer_id = house.customer(bills=(5001,))
    with house.database.transaction() as session:
        session.execute(update(VoiceprintRow).values(provisional_until=NOW + timedelta(hours=72)))
    call = house.call()
    assert call.says(CARD, "alice").lines[0].prompt == "bill.limit"
    assert customer_id


def test_without_consent_she_gets_a_pin_and_no_voiceprint_stays(house: House) -> None:
    customer_id = house.customer(voice="alice", pin=None)
    call = house.call()
    call.keys(_code(house, customer_id))
    call.says(CARD, "alice")
    call.answers("no")
    call.keys("593826")
    assert call.keys("593826").lines[0].prompt == "enrol.pin.done"
    with house.database.transaction() as session:
        assert load_voiceprint(session, customer_id, house.encoder.model_id, house.keyring) is None
        assert check_pin(session, customer_id, "593826", house.keyring)


def test_an_enrolment_code_works_once_and_not_without_the_card(house: House) -> None:
    customer_id = house.customer(voice=None)
    code = _code(house, customer_id)
    call = house.call()
    call.keys(code)
    assert call.says(OTHER_CARD, "alice").lines[0].prompt == "card.retry"
    wrong = house.call()
    wrong.keys("00000000")
    assert wrong.says(CARD, "alice").lines[0].prompt == "card.retry"


@pytest.mark.parametrize("by_keys", [True, False])
def test_who_has_a_code_may_not_guess_at_the_card_without_end(house: House, by_keys: bool) -> None:
    customer_id = house.customer(voice=None, pin=None)
    code = _code(house, customer_id)
    for _ in range(5):
        call = house.call()
        call.keys(code)
        if by_keys:
            call.keys(OTHER_CARD)  # and hangs up
        else:
            call.says(OTHER_CARD, "bob")
    with house.database.transaction() as session:
        assert budget.is_locked(session, customer_id, NOW)
    call = house.call()
    call.keys(code)
    assert call.keys(CARD).lines[0].prompt == "pin.ask"  # as if it were wrong


def test_a_stranger_does_not_void_a_code(house: House) -> None:
    customer_id = house.customer(voice=None, pin=None)
    code = _code(house, customer_id)
    for _ in range(MOST_TRIES + 1):
        stranger = house.call()
        stranger.keys("00000000")
        stranger.keys(OTHER_CARD)
    call = house.call()
    call.keys(code)
    assert call.keys(CARD).lines[0].prompt == "consent.ask"


def test_who_has_the_card_may_not_guess_at_a_code_without_end(house: House) -> None:
    customer_id = house.customer(voice=None, pin=None)
    code = _code(house, customer_id)
    for i in range(MOST_TRIES):
        thief = house.call()
        thief.keys(f"{(int(code) + 1 + i) % 10**8:08}")
        thief.keys(CARD)
    call = house.call()
    call.keys(code)
    assert call.keys(CARD).lines[0].prompt == "pin.ask"


def test_a_watched_voice_is_not_enrolled(house: House) -> None:
    customer_id = house.customer(voice=None)
    alice = house.watch("alice", ("card", "card_2", "second_card"))
    call = house.call()
    call.keys(_code(house, customer_id))
    call.keys(CARD)
    call.answers("yes")
    for _ in range(2):
        call.answers_challenge("alice")
    assert call.answers_challenge("alice").lines[0].prompt == "enrol.retry"
    with house.database.transaction() as session:
        assert session.scalars(select(Audit).where(Audit.what == watchlist.MATCHED)).one().subject == alice
        assert budget.failures_in_a_row(session, customer_id) == 1


def test_two_people_cannot_enrol_as_one(house: House) -> None:
    customer_id = house.customer(voice=None)
    call = house.call()
    call.keys(_code(house, customer_id))
    call.says(CARD, "alice")
    call.answers("yes")
    call.answers_challenge("alice")
    call.answers_challenge("bob")
    assert call.answers_challenge("alice").lines[0].prompt == "enrol.poor"


def test_what_is_kept_of_a_call_holds_no_card_number_pin_or_code(house: House, redis_client: redis.Redis) -> None:
    customer_id = house.customer(voice=None)
    code = _code(house, customer_id)
    call = house.call()
    call.keys(code)
    call.keys(CARD)
    call.answers("no")
    call.keys("593826")
    kept = b"".join(
        redis_client.get(key) if b":kept:" in key else b"".join(redis_client.hgetall(key).values())
        for key in redis_client.keys("call:*")
    )
    for secret in (CARD, code, "593826"):
        assert secret.encode() not in kept
    assert State.REPEAT_PIN in kept.decode(errors="replace")
