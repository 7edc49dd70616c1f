from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from ivr.customers.enrolment import MOST_TRIES, VALID_FOR, check_code, issue_code, use_code, which_customer
from ivr.customers.models import Consent, Customer, EnrolmentCode, VoiceprintRow
from ivr.customers.pins import set_pin
from ivr.customers.register import add_customer
from ivr.customers.voiceprints import (
    PROVISIONAL_FOR,
    count_authenticated_call,
    delete_voiceprint,
    is_provisional,
    load_voiceprint,
    model_of_voiceprint,
    provisional_until,
    record_consent,
    store_voiceprint,
)
from ivr.keys import Keyring, rotate
from ivr.settings import Settings
from ivr.store.db import Database
from voiceprint.errors import SealError

BLOB = b"the bytes of an embedding"


@pytest.fixture
def customer(database: Database, now: datetime) -> Customer:
    with database.transaction() as session:
        return add_customer(session, phones=[], now=now)


@pytest.fixture
def code(database: Database, customer: Customer, keyring: Keyring, now: datetime) -> str:
    with database.transaction() as session:
        return issue_code(session, customer.id, keyring, now)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**8:08}"


def test_a_code_is_eight_digits_kept_only_as_a_keyed_hash(
    database: Database, customer: Customer, code: str
) -> None:
    assert len(code) == 8
    assert code.isdigit()
    with database.transaction() as session:
        row = session.query(EnrolmentCode).one()
        assert code.encode() not in row.code_hash
        assert len(row.code_hash) == 32


def test_a_code_can_be_checked_often_and_used_once(
    database: Database, customer: Customer, code: str, keyring: Keyring, now: datetime
) -> None:
    for _ in range(2 * MOST_TRIES):
        with database.transaction() as session:
            assert check_code(session, customer.id, code, keyring, now)
    for expected in (True, False):
        with database.transaction() as session:
            assert use_code(session, customer.id, code, keyring, now) is expected
    with database.transaction() as session:
        assert not check_code(session, customer.id, code, keyring, now)


def test_the_call_that_used_a_code_may_repeat_its_request(
    database: Database, customer: Customer, code: str, keyring: Keyring, now: datetime
) -> None:
    for call_sid, said, expected in (
        ("CA1", code, True),
        ("CA1", code, True),
        ("CA1", wrong(code), False),
        ("CA2", code, False),
        ("CA1", code, True),
    ):
        with database.transaction() as session:
            assert use_code(session, customer.id, said, keyring, now, call_sid) is expected


def test_a_code_of_one_of_a_household_uses_up_no_try_of_another(
    database: Database, customer: Customer, code: str, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        other = add_customer(session, phones=[], now=now)
        issue_code(session, other.id, keyring, now)
        third = add_customer(session, phones=[], now=now)  # has no code
    household = [other.id, customer.id, third.id]
    for _ in range(2 * MOST_TRIES):
        with database.transaction() as session:
            assert which_customer(session, household, code, keyring, now) == customer.id
    with database.transaction() as session:
        assert [row.tries for row in session.query(EnrolmentCode)] == [0, 0]
        assert which_customer(session, [], code, keyring, now) is None
        assert which_customer(session, [other.id, third.id], code, keyring, now) is None
        assert which_customer(session, household, wrong(code), keyring, now) is None
        tries = {row.customer_id: row.tries for row in session.query(EnrolmentCode)}
        assert tries == {other.id: 2, customer.id: 1}


def test_five_wrong_tries_end_a_code(
    database: Database, customer: Customer, code: str, keyring: Keyring, now: datetime
) -> None:
    for n in range(MOST_TRIES):
        with database.transaction() as session:
            assert not (use_code if n % 2 else check_code)(session, customer.id, wrong(code), keyring, now)
    with database.transaction() as session:
        assert not check_code(session, customer.id, code, keyring, now)
        assert not use_code(session, customer.id, code, keyring, now)


def test_a_code_is_of_no_use_after_a_day_to_another_customer_or_when_a_new_one_was_issued(
    database: Database, customer: Customer, code: str, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        other = add_customer(session, phones=[], now=now)
        issue_code(session, other.id, keyring, now)
        assert not check_code(session, customer.id, code, keyring, now + VALID_FOR)
        assert not check_code(session, other.id, code, keyring, now)
        new = issue_code(session, customer.id, keyring, now)
        assert new == code or not check_code(session, customer.id, code, keyring, now)
        assert check_code(session, customer.id, new, keyring, now)


def test_a_code_outlives_a_key_rotation(
    database: Database, customer: Customer, code: str, keyring: Keyring, settings: Settings, now: datetime
) -> None:
    rotate(settings, "pin")
    with database.transaction() as session:
        assert use_code(session, customer.id, code, Keyring.load(settings), now)


def test_of_calls_that_use_a_code_at_the_same_time_one_is_accepted(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    together = threading.Barrier(4)

    def use(code: str) -> bool:
        together.wait(timeout=30)
        with database.transaction() as session:
            return use_code(session, customer.id, code, keyring, now)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            with database.transaction() as session:
                code = issue_code(session, customer.id, keyring, now)
            assert sorted(pool.map(use, [code] * 4)) == [False, False, False, True]


@pytest.fixture
def voiceprint(database: Database, customer: Customer, keyring: Keyring, now: datetime) -> VoiceprintRow:
    with database.transaction() as session:
        consent = record_consent(session, customer.id, text_version="v1", channel="call CA1", now=now)
        return store_voiceprint(
            session, customer.id, BLOB, "m1", 8000, "telephone", consent.id, keyring, now, call_sid="CA1"
        )


def test_a_voiceprint_is_sealed_and_opens_for_its_customer_and_model_only(
    database: Database, customer: Customer, voiceprint: VoiceprintRow, keyring: Keyring, now: datetime
) -> None:
    assert BLOB not in voiceprint.sealed
    with database.transaction() as session:
        assert load_voiceprint(session, customer.id, "m1", keyring) == BLOB
        assert load_voiceprint(session, customer.id, "m2", keyring) is None
        other = add_customer(session, phones=[], now=now)
        assert load_voiceprint(session, other.id, "m1", keyring) is None
        session.get_one(VoiceprintRow, voiceprint.id).customer_id = other.id
        session.flush()
        with pytest.raises(SealError):
            load_voiceprint(session, other.id, "m1", keyring)


def test_a_new_voiceprint_takes_the_place_of_the_old_one(
    database: Database, customer: Customer, voiceprint: VoiceprintRow, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        store_voiceprint(
            session, customer.id, b"new", "m2", 8000, "telephone", voiceprint.consent_id, keyring, now
        )
    with database.transaction() as session:
        assert load_voiceprint(session, customer.id, "m1", keyring) is None
        assert load_voiceprint(session, customer.id, "m2", keyring) == b"new"


def test_a_voiceprint_is_provisional_for_three_days_whatever_is_paid_with_it(
    database: Database, customer: Customer, voiceprint: VoiceprintRow, now: datetime
) -> None:
    with database.transaction() as session:
        assert is_provisional(session, customer.id, now)
        assert not is_provisional(session, customer.id, now + PROVISIONAL_FOR)
        for call in ("CA1", "CA2", "CA3"):
            count_authenticated_call(session, customer.id, call, now)
        assert is_provisional(session, customer.id, now)


def test_a_pin_that_a_call_set_is_provisional_as_a_voiceprint_is(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    pin, until = "480577", provisional_until(now)
    with database.transaction() as session:
        set_pin(session, customer.id, pin, keyring, now)
        assert not is_provisional(session, customer.id, now)
        set_pin(session, customer.id, pin, keyring, now, provisional_until=until, call_sid="CA1")
        assert is_provisional(session, customer.id, now)
        assert not is_provisional(session, customer.id, until)
        for call in ("CA1", "CA2"):
            count_authenticated_call(session, customer.id, call, now)
        assert is_provisional(session, customer.id, now)


def test_a_new_pin_limits_what_an_established_voiceprint_pays(
    database: Database, customer: Customer, voiceprint: VoiceprintRow, keyring: Keyring, now: datetime
) -> None:
    later = now + PROVISIONAL_FOR
    with database.transaction() as session:
        assert not is_provisional(session, customer.id, later)
        set_pin(
            session,
            customer.id,
            "480577",
            keyring,
            later,
            provisional_until=provisional_until(later),
            call_sid="CA3",
        )
        assert is_provisional(session, customer.id, later)


def test_deleting_a_voiceprint_keeps_the_consent_and_notes_that_it_was_withdrawn(
    database: Database, customer: Customer, voiceprint: VoiceprintRow, now: datetime
) -> None:
    with database.transaction() as session:
        assert delete_voiceprint(session, customer.id, now)
        assert not delete_voiceprint(session, customer.id, now)
    with database.transaction() as session:
        assert model_of_voiceprint(session, customer.id) is None
        assert session.query(Consent).one().withdrawn_at == now
