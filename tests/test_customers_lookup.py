from __future__ import annotations

from datetime import datetime

import pytest

from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import customer_by_number, customers_for_caller, normalise_caller
from ivr.customers.models import ContactKind
from ivr.customers.notices import notify
from ivr.customers.register import add_caller_id, add_contact, add_customer
from ivr.speech.pan import luhn_valid
from ivr.store.db import Database

PHONE = "+15035550123"


@pytest.mark.parametrize(
    ("raw", "e164"),
    [
        ("+1 (503) 555-0123", PHONE),
        (PHONE, PHONE),
        ("+442079460958", "+442079460958"),
        (None, None),
        ("", None),
        ("anonymous", None),
        ("Restricted", None),
        ("+266696687", None),
        ("+7378742833", None),
        ("5035550123", None),
        ("+1503", None),
        ("sip:alice@example.com", None),
        ("client:alice", None),
        ("+" + "9" * 40, None),
    ],
)
def test_a_caller_id_is_a_whole_telephone_number_or_none(raw: str | None, e164: str | None) -> None:
    assert normalise_caller(raw) == e164


def test_a_household_shares_a_number_and_a_sixth_customer_cannot(database: Database, now: datetime) -> None:
    with database.transaction() as session:
        numbers = {add_customer(session, phones=[PHONE], now=now).number for _ in range(5)}
    with database.transaction() as session:
        assert {customer.number for customer in customers_for_caller(session, PHONE)} == numbers
        with pytest.raises(InvalidInput, match="share"):
            add_customer(session, phones=[PHONE], now=now)


@pytest.mark.parametrize("caller", [None, "anonymous", "+266696687", "+15035550199", "nonsense"])
def test_withheld_and_unknown_callers_are_nobody(
    database: Database, now: datetime, caller: str | None
) -> None:
    with database.transaction() as session:
        add_customer(session, phones=[PHONE], now=now)
        assert customers_for_caller(session, caller) == []


def test_a_customer_number_has_seven_digits_with_a_check_digit(database: Database, now: datetime) -> None:
    with database.transaction() as session:
        customer = add_customer(session, phones=[], now=now)
        assert len(customer.number) == 7
        assert luhn_valid(customer.number)
        assert customer_by_number(session, customer.number) is customer
        mistyped = customer.number[:-1] + str((int(customer.number[-1]) + 1) % 10)
        assert customer_by_number(session, mistyped) is None
        assert customer_by_number(session, "") is None


@pytest.mark.parametrize(
    "given",
    [
        {"phones": ["12"]},
        {"phones": ["anonymous"]},
        {"phones": [PHONE], "emails": ["not an address"]},
        {"phones": [PHONE], "sms": ["7"]},
        {"phones": [PHONE], "locale": "xx"},
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(database: Database, now: datetime, given: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidInput), database.transaction() as session:
        add_customer(session, **given, now=now)
    with database.transaction() as session:
        assert customers_for_caller(session, PHONE) == []


def test_the_same_number_or_contact_twice_is_there_once(database: Database, now: datetime) -> None:
    with database.transaction() as session:
        customer = add_customer(session, phones=[PHONE, PHONE], now=now)
        add_caller_id(session, customer.id, PHONE, now)
        for _ in range(2):
            add_contact(session, customer.id, ContactKind.EMAIL, "a@example.com", now)
    with database.transaction() as session:
        (found,) = customers_for_caller(session, PHONE)
        assert len(found.contacts) == 1


def test_every_contact_on_file_is_told(database: Database, now: datetime) -> None:
    with database.transaction() as session:
        told = add_customer(session, phones=[PHONE], sms=[PHONE], emails=["a@example.com"], now=now)
        silent = add_customer(session, phones=[PHONE], now=now)
        assert len(notify(session, told.id, "enrolled", {"last4": "1234"}, now)) == 2
        assert notify(session, silent.id, "enrolled", {}, now) == []
