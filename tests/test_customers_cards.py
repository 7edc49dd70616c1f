from __future__ import annotations

import hashlib
import hmac
from datetime import date, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from ivr.customers.cards import (
    CardKnown,
    InvalidCard,
    add_card,
    authorised_cards,
    rehash,
    revoke_card,
)
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Card, Customer
from ivr.customers.register import add_customer
from ivr.keys import Keyring, rotate
from ivr.settings import Settings
from ivr.speech.pan import pan_hash
from ivr.store.db import Database
from ivr.store.models import metadata

PAN = "4242424242424242"


@pytest.fixture
def customer(database: Database, now: datetime) -> Customer:
    with database.transaction() as session:
        return add_customer(session, phones=[], now=now)


def add(
    session: Session, customer: Customer, keyring: Keyring, now: datetime, pan: str = PAN, **given: Any
) -> Card:
    values = {"exp_year": 2027, "exp_month": 1, "token": "tok_1", "authorised_by": "form 7"} | given
    return add_card(session, customer.id, pan, **values, keyring=keyring, now=now)


def test_the_hash_is_an_hmac_over_customer_and_number() -> None:
    expected = hmac.new(b"k" * 32, b"c1\x004242424242424242", hashlib.sha256).digest()
    assert pan_hash(b"k" * 32, "c1", PAN) == expected != pan_hash(b"k" * 32, "c2", PAN)


def test_a_card_is_stored_with_its_authorisation_and_without_its_number(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        add(session, customer, keyring, now, limit_minor=5000)
    with database.transaction() as session:
        (card,) = authorised_cards(session, customer.id, now.date())
        assert (card.last4, card.brand, card.authorised_by, card.limit_minor) == (
            "4242",
            "visa",
            "form 7",
            5000,
        )
        assert card.pan_hash == pan_hash(keyring.key("pan", card.pan_key_id), customer.id, PAN)
        rows = [
            tuple(row)
            for table in metadata.sorted_tables
            for row in session.execute(text(f"SELECT * FROM {table}"))
        ]
        assert PAN not in repr(rows)
        assert PAN[:8] not in repr(rows)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"pan": "4242424242424241"}, "check digit"),
        ({"pan": "42424242424242"}, "does not have 14 digits"),
        ({"pan": "4242 4242 4242 4242"}, "digits only"),
        ({"pan": "9999999999999995"}, "begin so"),
        ({"pan": ""}, "digits only"),
        ({"exp_month": 13}, "month"),
        ({"exp_year": 2026, "exp_month": 10}, "expired"),
        ({"exp_year": 2099}, "2099"),
        ({"token": " "}, "token"),
        ({"token": f"tok_{PAN}"}, "token"),
        ({"authorised_by": ""}, "who authorised"),
        ({"authorised_by": f"the holder of {PAN}"}, "card number"),
        ({"limit_minor": 0}, "limit"),
    ],
)
def test_a_bad_card_is_refused_by_reason_but_not_by_number(
    database: Database,
    customer: Customer,
    keyring: Keyring,
    now: datetime,
    given: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught, database.transaction() as session:
        add(session, customer, keyring, now, **given)
    assert not given.get("pan") or given["pan"] not in str(caught.value)
    with database.transaction() as session:
        assert session.query(Card).count() == 0


def test_a_card_matches_through_its_last_month_and_not_after(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        add(session, customer, keyring, now, exp_year=2026, exp_month=12)
        assert len(authorised_cards(session, customer.id, date(2026, 12, 31))) == 1
        assert authorised_cards(session, customer.id, date(2027, 1, 1)) == []


def test_a_revoked_card_is_authorised_no_longer_and_can_be_authorised_anew(
    database: Database, customer: Customer, keyring: Keyring, now: datetime
) -> None:
    with database.transaction() as session:
        card = add(session, customer, keyring, now)
        revoke_card(session, card.id, now)
        assert authorised_cards(session, customer.id, now.date()) == []
        assert add(session, customer, keyring, now).id != card.id
        with pytest.raises(InvalidCard):
            revoke_card(session, "unknown", now)


def test_the_same_card_twice_is_refused_even_after_a_key_rotation(
    database: Database, customer: Customer, keyring: Keyring, settings: Settings, now: datetime
) -> None:
    with database.transaction() as session:
        add(session, customer, keyring, now)
        rotate(settings, "pan")
        with pytest.raises(CardKnown):
            add(session, customer, Keyring.load(settings), now)


def test_after_a_rotation_a_successful_call_rehashes_the_card(
    database: Database, customer: Customer, keyring: Keyring, settings: Settings, now: datetime
) -> None:
    with database.transaction() as session:
        card = add(session, customer, keyring, now)
        new_id = rotate(settings, "pan")
        rotated = Keyring.load(settings)
        rehash(session, card, PAN, rotated)
        assert card.pan_key_id == new_id
        assert card.pan_hash == pan_hash(rotated.key("pan", new_id), customer.id, PAN)
