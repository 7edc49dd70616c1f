"""Merchants, the references by which they know customers, and the bills they gave us.

Customers belong to the operator. A merchant holds a reference of its own to somebody with a telephone number, and is
answered the same whether a customer has that number or not: its bills wait until one does.
"""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from ivr.customers import audit, bills
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import customer_by_number, customers_for_caller, normalise_caller
from ivr.customers.models import Bill, Customer, new_id
from ivr.customers.money import check_currency
from ivr.customers.text import LONGEST_SPOKEN, clean_text
from ivr.log import scrub
from ivr.store.db import Base
from ivr.store.insert import insert_new

_DIGITS = re.compile(r"\d(?:[ .,/-]?\d){3,}")
_LINK = re.compile(r"://|www\.|@|\w\.[^\W\d_]{2,}", re.IGNORECASE)


class Merchant(Base):
    """Whom customers pay. Its name is spoken, so an operator gives it."""

    __tablename__ = "merchants"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    kind: Mapped[str] = mapped_column(String(40), default="")  # of trade, for policies
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class MerchantText(Base):
    """What a merchant wants to call its bills; used once an operator has approved it, for it is shown and spoken."""

    __tablename__ = "merchant_texts"
    __table_args__ = (UniqueConstraint("merchant_id", "text"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"))
    text: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime]
    approved_at: Mapped[datetime | None]
    refused_at: Mapped[datetime | None]


class MerchantOrigin(Base):
    """Where a merchant's jump, result and webhook URLs may lead: scheme, host and port, registered by an operator."""

    __tablename__ = "merchant_origins"

    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), primary_key=True)
    origin: Mapped[str] = mapped_column(String(300), primary_key=True)
    created_at: Mapped[datetime]


class MerchantCustomer(Base):
    """A merchant's reference to somebody; ``customer_id`` once one customer alone is meant by it."""

    __tablename__ = "merchant_customers"
    __table_args__ = (UniqueConstraint("merchant_id", "reference"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"))
    reference: Mapped[str] = mapped_column(String(64))
    e164: Mapped[str | None] = mapped_column(String(16), index=True)
    number: Mapped[str | None] = mapped_column(String(7))  # the customer's own, where the merchant was told it
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id"), index=True)
    created_at: Mapped[datetime]


class MerchantBill(Base):
    """A bill as its merchant knows it; the row of ``bills`` with the same id is there once a customer owes it."""

    __tablename__ = "merchant_bills"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), index=True)
    merchant_customer_id: Mapped[str] = mapped_column(ForeignKey("merchant_customers.id"), index=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    description: Mapped[str] = mapped_column(String(80))
    ship_to: Mapped[str | None] = mapped_column(String(200))
    due_at: Mapped[datetime | None]
    hold_only: Mapped[bool]
    created_at: Mapped[datetime]
    cancelled_at: Mapped[datetime | None]


class NameTaken(InvalidInput):
    """Another merchant has this name."""


class TextNotApproved(InvalidInput):
    """No operator has approved this text for the merchant."""


class MerchantUnknown(InvalidInput):
    """There is no such merchant."""


class ReferenceDiffers(InvalidInput):
    """The merchant's reference stands for somebody else already."""


def spoken_text(text: str, what: str, *, least: int = 1) -> str:
    """Text that may be read out: one line of at most 80 characters. Raises InvalidInput for numbers and links in it."""
    text = clean_text(text, what, least=least, most=LONGEST_SPOKEN)
    if _DIGITS.search(text) or scrub(text) != text:
        raise InvalidInput(f"{what} is spoken, and may hold no number of four digits or more")
    if _LINK.search(text):
        raise InvalidInput(f"{what} is spoken, and may hold no link or address")
    return text


def add_merchant(session: Session, name: str, *, kind: str = "", who: str, now: datetime) -> Merchant:
    """A merchant whose name was approved by whoever adds it. Raises InvalidInput."""
    name = spoken_text(name, "a merchant's name")
    if session.scalar(select(Merchant.id).where(Merchant.name == name)):
        raise NameTaken(f"there is a merchant {name!r} already")
    kind = clean_text(kind, "a kind of trade", most=40).casefold()
    merchant = Merchant(id=new_id(), name=name, kind=kind, created_at=now)
    session.add(merchant)
    session.flush()
    audit.record(session, who, "merchant.added", merchant.id, now)
    return merchant


def require_merchant(session: Session, merchant_id: str) -> Merchant:
    """The merchant with this id or name, unless closed. Raises MerchantUnknown."""
    found = session.get(Merchant, merchant_id) or session.scalar(select(Merchant).where(Merchant.name == merchant_id))
    if found is None or found.closed_at is not None:
        raise MerchantUnknown(f"there is no merchant {merchant_id!r}; `ivr merchant list` shows those there are")
    return found


def check_description(session: Session, merchant_id: str, text: str) -> str:
    """The text, empty or approved. Raises TextNotApproved."""
    if not text:
        return text
    if not text.isprintable():  # nor can every database be asked for it
        raise TextNotApproved("a text has no control characters")
    query = select(MerchantText.id).where(MerchantText.merchant_id == merchant_id, MerchantText.text == text)
    if session.scalar(query.where(MerchantText.approved_at.is_not(None), MerchantText.refused_at.is_(None))) is None:
        raise TextNotApproved("propose this text with POST /v1/texts; it can be used once the operator has approved it")
    return text


def refer(
    session: Session, merchant_id: str, reference: str, *, phone: str | None, number: str | None, now: datetime
) -> MerchantCustomer:
    """The merchant's reference to somebody with this telephone or customer number; repeated, the same one.

    Nothing in it, or in how it fails, tells whether we know anybody. Raises InvalidInput, ReferenceDiffers.
    """
    reference = clean_text(reference, "a reference", least=1, most=64)
    e164 = normalise_caller(phone)
    if phone is not None and e164 is None:
        raise InvalidInput("the phone is no telephone number; write it in full, as in +15035550123")
    if (phone is None) == (number is None):
        raise InvalidInput("give either the phone or the number of the customer")
    query = select(MerchantCustomer).where(
        MerchantCustomer.merchant_id == merchant_id, MerchantCustomer.reference == reference
    )
    if known := session.scalar(query):
        return _same(known, e164, number)
    values = {"id": new_id(), "merchant_id": merchant_id, "reference": reference, "e164": e164, "number": number}
    insert_new(session, MerchantCustomer, values | {"created_at": now})  # unless another request did at this moment
    if (made := session.scalars(query).one()).id != values["id"]:
        return _same(made, e164, number)
    resolve(session, made)
    return made


def _same(known: MerchantCustomer, e164: str | None, number: str | None) -> MerchantCustomer:
    if (known.e164, known.number) != (e164, number):
        raise ReferenceDiffers("this reference stands for another phone or number already")
    return known


def meant(session: Session, referred: MerchantCustomer) -> Customer | None:
    """The customer who is meant, if one alone is."""
    if referred.customer_id is not None:
        return session.get_one(Customer, referred.customer_id)
    if referred.number is not None:
        return customer_by_number(session, referred.number)
    found = customers_for_caller(session, referred.e164)
    return found[0] if len(found) == 1 else None


def resolve(session: Session, referred: MerchantCustomer) -> Customer | None:
    """The same; kept from then on, and she owes what was billed to the reference before."""
    if referred.customer_id is None:
        _lock(session, referred.id)
    customer = meant(session, referred)
    if customer is not None and referred.customer_id is None:
        referred.customer_id = customer.id
        session.flush()
        waiting = select(MerchantBill).where(
            MerchantBill.merchant_customer_id == referred.id, MerchantBill.cancelled_at.is_(None)
        )
        for bill in session.scalars(waiting.order_by(MerchantBill.created_at, MerchantBill.id)).all():
            _owe(session, bill, referred)
    return customer


def adopt(session: Session, e164: str) -> None:
    """A customer has just got this number: she now owes what merchants billed to it."""
    waiting = select(MerchantCustomer).where(MerchantCustomer.e164 == e164, MerchantCustomer.customer_id.is_(None))
    for referred in session.scalars(waiting.order_by(MerchantCustomer.id)).all():
        resolve(session, referred)


def issue_bill(
    session: Session,
    referred: MerchantCustomer,
    *,
    amount_minor: int,
    currency: str,
    description: str = "",
    ship_to: str | None = None,
    due_at: datetime | None = None,
    hold_only: bool = False,
    one_payment: bool = False,
    now: datetime,
) -> MerchantBill:
    """A bill of the merchant to whoever is meant. Raises InvalidInput."""
    bills.check_amount(amount_minor)
    check_currency(currency)
    owed = resolve(session, referred) is not None
    bill = MerchantBill(
        id=new_id(),
        merchant_id=referred.merchant_id,
        merchant_customer_id=referred.id,
        amount_minor=amount_minor,
        currency=currency,
        description=check_description(session, referred.merchant_id, description),
        ship_to=None if ship_to is None else clean_text(ship_to, "an address", least=1, most=200),
        due_at=due_at,
        hold_only=hold_only,
        created_at=now,
    )
    session.add(bill)
    session.flush()
    if owed:
        _owe(session, bill, referred, one_payment=one_payment)
    return bill


def cancel_bill(session: Session, bill: MerchantBill, now: datetime) -> None:
    """Withdraw a bill. Raises bills.InvalidBill when it is not open, or its payment is under way."""
    if session.get(Bill, bill.id) is None:
        _lock(session, bill.merchant_customer_id)
        session.refresh(bill)
    if session.get(Bill, bill.id) is not None:
        bills.cancel_bill(session, bill.id)
    elif bill.cancelled_at is not None:
        raise bills.InvalidBill(f"bill {bill.id} is cancelled already")
    bill.cancelled_at = now
    session.flush()


def _lock(session: Session, merchant_customer_id: str) -> None:
    """Keep bills that nobody owes yet, and who is meant by the reference, as they are until the transaction ends."""
    session.get_one(MerchantCustomer, merchant_customer_id, with_for_update={"key_share": True})


def _owe(session: Session, bill: MerchantBill, referred: MerchantCustomer, *, one_payment: bool = False) -> None:
    assert referred.customer_id is not None
    merchant = session.get_one(Merchant, bill.merchant_id)
    bills.create_bill(
        session,
        referred.customer_id,
        bill_id=bill.id,
        merchant=merchant.name,
        amount_minor=bill.amount_minor,
        currency=bill.currency,
        description=bill.description,
        kind=merchant.kind,
        ship_to=bill.ship_to,
        due_at=bill.due_at,
        hold_only=bill.hold_only,
        one_payment=one_payment,
        now=bill.created_at,
    )
