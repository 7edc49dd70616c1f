"""A ward's address book: the addresses that goods may go to without being new. Only a guardian adds to it."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval.models import Address
from ivr.approval.policy import Destination
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Bill, new_id
from ivr.customers.text import clean_text

MOST = 8  # one key chooses, and the address that came with the bill is one choice more


class InvalidAddress(InvalidInput):
    """The address as given cannot be used, or there is none of this number."""


def book(session: Session, customer_id: str) -> list[Address]:
    """The addresses in use, by number."""
    query = select(Address).where(Address.customer_id == customer_id, Address.removed_at.is_(None))
    return list(session.scalars(query.order_by(Address.number)))


def add(session: Session, customer_id: str, label: str, text: str, *, who: str, now: datetime) -> Address:
    """Add an address under the first free number; one that is there already is given back. Raises InvalidInput."""
    label = clean_text(label, "an address's name", least=1, most=40)
    text = clean_text(text, "an address", least=1, most=200)
    lock_customer(session, customer_id)
    there = book(session, customer_id)
    for address in there:
        if _same(address.text, text):
            return address
    if len(there) >= MOST:
        raise InvalidAddress(f"an address book holds {MOST} addresses; remove one first")
    number = min(set(range(1, MOST + 1)) - {address.number for address in there})
    address = Address(id=new_id(), customer_id=customer_id, number=number, label=label, text=text, added_at=now)
    session.add(address)
    session.flush()
    audit.record(session, who, "address.added", customer_id, now, address=address.id)
    return address


def remove(session: Session, customer_id: str, number: int, *, who: str, now: datetime) -> Address:
    """Take an address out of the book. Raises InvalidAddress."""
    lock_customer(session, customer_id)
    for address in book(session, customer_id):
        if address.number == number:
            address.removed_at = now
            session.flush()
            audit.record(session, who, "address.removed", customer_id, now, address=address.id)
            return address
    raise InvalidAddress(f"the address book has no number {number}")


def destination(session: Session, customer_id: str, ship_to: str | None) -> Destination:
    """Whether this is one of the customer's addresses."""
    if ship_to is None:
        return Destination.NONE
    known = any(_same(address.text, ship_to) for address in book(session, customer_id))
    return Destination.KNOWN if known else Destination.UNKNOWN


def choices(session: Session, bill: Bill) -> list[tuple[str, str]]:
    """What its payer may choose from, (name, id): her book, and the bill's own address if that is not in it.

    That one has neither name nor id. Nothing where nothing is shipped.
    """
    if bill.ship_to is None:
        return []
    known = book(session, bill.customer_id)
    found = [(address.label, address.id) for address in known]
    if not any(_same(address.text, bill.ship_to) for address in known):
        found.append(("", ""))
    return found


def chosen(session: Session, bill: Bill, address_id: str) -> str | None:
    """The address that was chosen of ``choices``; one removed since is not known any more, but meant."""
    if bill.ship_to is None or not address_id:
        return bill.ship_to
    address = session.get(Address, address_id)
    if address is None or address.customer_id != bill.customer_id:
        raise InvalidAddress("there is no such address of this customer")
    return address.text


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    """What is left when case, width, spaces and punctuation do not matter."""
    apart = re.sub(r"([\u00bc-\u00be\u2150-\u215e\u2189])", r" \1 ", text)  # 12½ is not 121/2
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", apart).casefold()).strip()
