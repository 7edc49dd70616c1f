from __future__ import annotations

import hmac
from datetime import datetime

import argon2
import pytest

from ivr.customers import pins
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Customer, Pin
from ivr.customers.pins import TrivialPin, check_pin, has_pin, is_trivial, set_pin
from ivr.customers.register import add_customer
from ivr.keys import Keyring, rotate
from ivr.settings import Settings
from ivr.store.db import Database

PIN = "480577"


@pytest.fixture
def customer(database: Database, now: datetime) -> Customer:
    with database.transaction() as session:
        return add_customer(session, phones=["+15035550946"], now=now)


def test_only_the_pin_that_was_set_is_right(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        other = add_customer(session, phones=[], now=now)
        set_pin(session, customer.id, PIN, keyring, now)
        assert check_pin(session, customer.id, PIN, keyring)
        assert not check_pin(session, customer.id, "480578", keyring)
        assert not check_pin(session, other.id, PIN, keyring)
        assert has_pin(session, customer.id)
        assert not has_pin(session, other.id)
        set_pin(session, customer.id, "905144", keyring, now)
        assert not check_pin(session, customer.id, PIN, keyring)


def test_what_was_compared_before_says_nothing_of_other_digits_or_of_a_new_pin(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        other = add_customer(session, phones=[], now=now)
        for one in (customer, other):
            set_pin(session, one.id, PIN, keyring, now)
        right = pins.compare(session.get(Pin, customer.id), customer.id, PIN, keyring)
        wrong = pins.compare(session.get(Pin, customer.id), customer.id, "905144", keyring)
        assert PIN not in repr(right)
        assert check_pin(session, customer.id, PIN, keyring, right)
        assert not check_pin(session, customer.id, "905144", keyring, wrong)
        assert not check_pin(session, customer.id, "905144", keyring, right)
        assert check_pin(session, other.id, PIN, keyring, wrong)
        set_pin(session, customer.id, "905144", keyring, now)
        assert not check_pin(session, customer.id, PIN, keyring, right)
        assert check_pin(session, customer.id, "905144", keyring, wrong)


def test_a_customer_without_a_pin_costs_the_same_hash(
    database: Database, customer: Customer, keyring: Keyring, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(argon2.PasswordHasher):
        verified: list[str] = []

        def verify(self, hash: str | bytes, password: str | bytes) -> bool:
            self.verified.append(str(hash).rsplit("$", 2)[0])  # the parameters
            return super().verify(hash, password)

    pins._no_pin.cache_clear()  # it was made at the cost of other tests
    monkeypatch.setattr(pins, "_HASHER", Counting(time_cost=2, memory_cost=19 * 1024, parallelism=1))
    with database.transaction() as session:
        for pin in (PIN, "", "12345x"):
            assert not check_pin(session, customer.id, pin, keyring)
        set_pin(session, customer.id, PIN, keyring, now)
        assert not check_pin(session, customer.id, "480578", keyring)
    assert len(Counting.verified) == 4
    assert len(set(Counting.verified)) == 1


def test_a_stolen_hash_cannot_be_searched_without_the_key(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        set_pin(session, customer.id, PIN, keyring, now)
        stored = session.get_one(Pin, customer.id).hash
    assert "$argon2id$" in stored
    for guess in (PIN.encode(), hmac.digest(bytes(32), f"pin\x00{customer.id}\x00{PIN}".encode(), "sha256")):
        with pytest.raises(argon2.exceptions.VerifyMismatchError):
            argon2.PasswordHasher().verify(stored, guess)


@pytest.mark.parametrize(
    "pin",
    [
        "111111",
        "121212",
        "123123",
        "123456",
        "654321",
        "890123",
        "112211",
        "311299",
        "123199",
        "991231",
        "010190",
    ],
)
def test_pins_that_anybody_would_try_are_trivial(pin: str) -> None:
    assert is_trivial(pin)


@pytest.mark.parametrize("pin", [PIN, "905144", "738461"])
def test_other_pins_are_not(pin: str) -> None:
    assert not is_trivial(pin)


def test_trivial_pins_and_parts_of_the_customers_own_numbers_are_refused(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        for pin in ("123456", customer.number[:6], "550946"):
            with pytest.raises(TrivialPin) as caught:
                set_pin(session, customer.id, pin, keyring, now)
            assert pin not in str(caught.value)
        for pin in ("48057", "4805777", "48057x", ""):
            with pytest.raises(InvalidInput, match="6 digits"):
                set_pin(session, customer.id, pin, keyring, now)
        assert not has_pin(session, customer.id)


def test_after_a_rotation_the_right_pin_is_hashed_with_the_new_key(
    database: Database, customer: Customer, keyring: Keyring, settings: Settings, now: datetime
) -> None:
    with database.transaction() as session:
        set_pin(session, customer.id, PIN, keyring, now)
        new_id = rotate(settings, "pin")
        rotated = Keyring.load(settings)
        assert check_pin(session, customer.id, PIN, rotated)
        assert session.get_one(Pin, customer.id).key_id == new_id
        assert check_pin(session, customer.id, PIN, rotated)
