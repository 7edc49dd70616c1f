"""Authorised cards: added with the authorisation itself, compared by keyed hash, revoked for good."""

from __future__ import annotations

import secrets
from datetime import date, datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.models import Card, new_id
from ivr.customers.text import clean_text
from ivr.keys import Keyring
from ivr.speech import pan as card_number
from ivr.speech.pan import pan_hash

#: The text that a card's holder agreed to; a new text is a new version.
AUTHORISATION_TEXT_VERSION = "card-1"


class InvalidCard(InvalidInput):
    """The number, the expiry date or the authorisation of a card cannot be used."""


class CardKnown(InvalidInput):
    """The customer has authorised this card already."""


def check_number(pan: str) -> None:
    """Raises InvalidCard if this cannot be a whole card number; the message does not repeat it."""
    if not (pan.isascii() and pan.isdigit()):
        raise InvalidCard("a card number has digits only")
    if card_number.brand(pan) is None:
        raise InvalidCard("no card brand has numbers that begin so")
    if not card_number.possible_length(pan):
        raise InvalidCard(f"a {card_number.brand(pan)} number does not have {len(pan)} digits")
    if not card_number.luhn_valid(pan):
        raise InvalidCard("the check digit is wrong: a digit was mistyped")


def add_card(
    session: Session,
    customer_id: str,
    pan: str | None,
    *,
    exp_year: int,
    exp_month: int,
    token: str,
    last4: str = "",
    brand: str | None = None,
    authorised_by: str,
    text_version: str = AUTHORISATION_TEXT_VERSION,
    limit_minor: int | None = None,
    keyring: Keyring,
    now: datetime,
) -> Card:
    """Store a card's token, hash, last four and authorisation; the number itself goes no further.

    Without the number, ``last4`` and ``brand`` are the bank's, and no number that is said in a call matches the card.

    ``limit_minor``: the most that one payment may take from it. Raises InvalidInput's kinds.
    """
    if pan is not None:
        check_number(pan)
    check_expiry(exp_year, exp_month, now.date())
    if not 0 < len(token) <= 128 or not token.isprintable() or token.isspace() or (pan and pan in token):
        raise InvalidCard("this is no token of a bank")
    authorised_by = clean_text(authorised_by, "who authorised the card", least=1, most=200)
    text_version = clean_text(text_version, "the text's version", least=1, most=32)
    if limit_minor is not None and limit_minor <= 0:
        raise InvalidCard("the limit must be above zero")
    hashes = {pan_hash(key, customer_id, pan) for key in keyring.all("pan").values()} if pan else set()
    there = authorised_cards(session, customer_id, now.date())
    if any(card.pan_hash in hashes or (pan is None and card.bank_token == token) for card in there):
        raise CardKnown("the customer has authorised this card already")
    key_id, key = keyring.active("pan")
    card = Card(
        id=new_id(),
        customer_id=customer_id,
        bank_token=token,
        brand=brand or (card_number.brand(pan) if pan else "card"),
        exp_year=exp_year,
        exp_month=exp_month,
        last4=pan[-4:] if pan else last4,
        pan_hash=pan_hash(key, customer_id, pan) if pan else secrets.token_bytes(32),
        pan_key_id=key_id,
        authorised_by=authorised_by,
        authorised_at=now,
        text_version=text_version,
        limit_minor=limit_minor,
    )
    session.add(card)
    session.flush()
    return card


def check_not_anothers(session: Session, customer_id: str, token: str) -> None:
    """A token alone is no proof that the card is hers: whoever read our database has them all. Raises InvalidCard."""
    anothers = select(Card.id).where(Card.bank_token == token, Card.customer_id != customer_id)
    if session.scalar(anothers.limit(1)) is not None:
        raise InvalidCard("this token is of another customer's card")


def check_expiry(exp_year: int, exp_month: int, today: date) -> None:
    """Raises InvalidCard if there is no such month, it is past, or further away than cards are issued for."""
    if not 1 <= exp_month <= 12:
        raise InvalidCard(f"there is no month {exp_month}")
    if (exp_year, exp_month) < (today.year, today.month):
        raise InvalidCard(f"the card expired in {exp_month:02}/{exp_year}")
    if exp_year > today.year + 20:
        raise InvalidCard(f"no card expires as late as {exp_year}")


def authorised_cards(session: Session, customer_id: str, today: date) -> list[Card]:
    """The customer's cards, oldest first, that are not revoked and are in or before their last month."""
    query = (
        select(Card)
        .where(Card.customer_id == customer_id, still_authorised(today))
        .order_by(Card.authorised_at, Card.id)
    )
    return list(session.scalars(query))


def still_authorised(today: date) -> ColumnElement[bool]:
    """That a card is not revoked, and in or before its last month."""
    in_date = or_(Card.exp_year > today.year, (Card.exp_year == today.year) & (Card.exp_month >= today.month))
    return Card.revoked_at.is_(None) & in_date


def revoke_card(session: Session, card_id: str, now: datetime) -> Card:
    """Take back the authorisation; what was revoked stays so. Raises InvalidCard for an unknown card."""
    card = session.get(Card, card_id, with_for_update=True)
    if card is None:
        raise InvalidCard(f"there is no card {card_id!r}; `ivr card list CUSTOMER` shows those there are")
    card.revoked_at = card.revoked_at or now
    session.flush()
    return card


def rehash(session: Session, card: Card, pan: str, keyring: Keyring) -> None:
    """After a rotation: make the hash with the active key, from the number that was just said and matched."""
    key_id, key = keyring.active("pan")
    if card.pan_key_id != key_id:
        card.pan_hash, card.pan_key_id = pan_hash(key, card.customer_id, pan), key_id
        session.flush()
