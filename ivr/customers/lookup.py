"""From what the carrier or the caller gives to the customers it may be."""

from __future__ import annotations

import phonenumbers
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.models import CallerId, Customer
from ivr.speech.pan import luhn_valid

MOST_CUSTOMERS_A_CALLER_ID = 5

#: What Twilio sends for a number that is withheld: ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE,
#: as they are spelled on a keypad.
_WITHHELD = {"+266696687", "+7378742833", "+2562533", "+8656696", "+86282452253"}


def normalise_caller(raw: str | None) -> str | None:
    """A caller id as E.164, or None when it is withheld or no telephone number."""
    try:
        number = phonenumbers.parse(raw or "", None)
    except phonenumbers.NumberParseException:
        return None
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if e164 in _WITHHELD or not phonenumbers.is_possible_number(number):
        return None
    return e164


def customers_for_caller(session: Session, e164: str | None) -> list[Customer]:
    """The customers, five at most, that call from this number; a caller id selects and proves nothing."""
    caller = normalise_caller(e164)
    if caller is None:
        return []
    query = (
        select(Customer)
        .join(CallerId, CallerId.customer_id == Customer.id)
        .where(CallerId.e164 == caller)
        .order_by(Customer.number)
        .limit(MOST_CUSTOMERS_A_CALLER_ID)
    )
    return list(session.scalars(query))


def lock_customer(session: Session, customer_id: str) -> Customer:
    """Her row, locked until the transaction ends: what changes who may pay what comes one after the other.

    FOR NO KEY UPDATE on PostgreSQL: rows that name her (notices, failures) may be added meanwhile.
    """
    return session.get_one(Customer, customer_id, with_for_update={"key_share": True})


def customer_by_number(session: Session, number: str) -> Customer | None:
    """The customer with this seven-digit number; its check digit spares the database mistyped ones."""
    if len(number) != 7 or not luhn_valid(number):
        return None
    return session.scalar(select(Customer).where(Customer.number == number))
