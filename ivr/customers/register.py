"""New customers, their telephone numbers and the contacts at which they are told of changes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr.customers import merchants
from ivr.customers.errors import CustomerUnknown, InvalidInput
from ivr.customers.lookup import MOST_CUSTOMERS_A_CALLER_ID, customer_by_number, normalise_caller
from ivr.customers.models import CallerId, Contact, ContactKind, Customer, new_id
from ivr.locales import LOCALES
from ivr.speech.pan import luhn_check_digit

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]+")


def add_customer(
    session: Session,
    *,
    phones: Sequence[str],
    locale: str = "en",
    test: bool = False,
    minor: bool = False,
    sms: Sequence[str] = (),
    emails: Sequence[str] = (),
    now: datetime,
) -> Customer:
    """A customer with a new number. Raises InvalidInput."""
    if locale not in LOCALES:
        raise InvalidInput(f"the locale {locale!r} is not spoken here; choose one of {', '.join(LOCALES)}")
    customer = Customer(
        id=new_id(), number=_new_number(session), locale=locale, test=test, minor=minor, created_at=now
    )
    session.add(customer)
    session.flush()
    for phone in phones:
        add_caller_id(session, customer.id, phone, now)
    for number in sms:
        add_contact(session, customer.id, ContactKind.SMS, number, now)
    for email in emails:
        add_contact(session, customer.id, ContactKind.EMAIL, email, now)
    session.flush()
    return customer


def add_caller_id(session: Session, customer_id: str, phone: str, now: datetime) -> None:
    """Let calls from this number select the customer. Raises InvalidInput."""
    e164 = _e164(phone)
    if session.get(CallerId, (e164, customer_id)):
        return
    sharing = session.scalar(select(func.count()).select_from(CallerId).where(CallerId.e164 == e164)) or 0
    if sharing >= MOST_CUSTOMERS_A_CALLER_ID:
        raise InvalidInput(f"{e164} already selects {sharing} customers, and more cannot share a number")
    session.add(CallerId(e164=e164, customer_id=customer_id, added_at=now))
    session.flush()
    merchants.adopt(session, e164)


def add_contact(session: Session, customer_id: str, kind: ContactKind, address: str, now: datetime) -> Contact:
    """Tell the customer of changes there too. Raises InvalidInput."""
    address = _e164(address) if kind is ContactKind.SMS else address.strip()
    if kind is ContactKind.EMAIL and (len(address) > 254 or not _EMAIL.fullmatch(address)):
        raise InvalidInput(f"{address!r} is no e-mail address")
    known = select(Contact).where(
        Contact.customer_id == customer_id, Contact.kind == kind, Contact.address == address
    )
    contact = session.scalar(known) or Contact(
        id=new_id(), customer_id=customer_id, kind=kind, address=address, added_at=now
    )
    session.add(contact)
    session.flush()
    return contact


def require_customer(session: Session, number: str) -> Customer:
    """The customer with this number. Raises CustomerUnknown."""
    customer = customer_by_number(session, number)
    if customer is None:
        raise CustomerUnknown(
            f"no customer has the number {number!r}; `ivr customer list` shows those there are"
        )
    return customer


def _e164(phone: str) -> str:
    e164 = normalise_caller(phone)
    if e164 is None:
        raise InvalidInput(f"{phone!r} is no telephone number; write it in full, as in +15035550123")
    return e164


def _new_number(session: Session) -> str:
    """Random, so that numbers do not tell how many customers there are."""
    while True:
        digits = str(100_000 + secrets.randbelow(900_000))
        number = digits + luhn_check_digit(digits)
        if session.scalar(select(Customer.id).where(Customer.number == number)) is None:
            return number
