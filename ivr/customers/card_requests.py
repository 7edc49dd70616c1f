"""Cards that merchants ask for: the customer gets a one-time link at her own contacts, and decides on our page.

The merchant is answered the same whether we know anybody by its reference or not: who that is, and whether she is
told, is found out by a worker.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from ivr import jobs
from ivr.approval.appointments import settled_contacts
from ivr.customers import merchants
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.models import new_id
from ivr.customers.notices import notify_at
from ivr.jobs import Held
from ivr.store.db import Base

ASK_JOB = "card.ask"
LIFE = timedelta(hours=24)
MOST_A_DAY = 3
"""Requests that one customer is told of, whoever makes them: a merchant is not to pester her."""
PAGE = "card"


class CardRequest(Base):
    """A card that a merchant asks for. ``bank_token``: of the card at the bank, where the merchant has one."""

    __tablename__ = "card_requests"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), index=True)
    merchant_customer_id: Mapped[str] = mapped_column(ForeignKey("merchant_customers.id"))
    bank_token: Mapped[str | None] = mapped_column(String(128))
    exp_month: Mapped[int | None]
    exp_year: Mapped[int | None]
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id"), index=True)  # who was asked
    card_id: Mapped[str | None] = mapped_column(ForeignKey("cards.id"))
    tries: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]


def request_card(
    session: Session,
    referred: MerchantCustomer,
    *,
    bank_token: str | None,
    exp_month: int | None,
    exp_year: int | None,
    now: datetime,
) -> CardRequest:
    """Ask whoever is meant. Nothing in it tells whether there is anybody."""
    made = CardRequest(
        id=new_id(),
        merchant_id=referred.merchant_id,
        merchant_customer_id=referred.id,
        bank_token=bank_token,
        exp_month=exp_month,
        exp_year=exp_year,
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(made)
    session.flush()
    jobs.put(session, ASK_JOB, {"card_request_id": made.id}, f"{ASK_JOB}:{made.id}", now)
    return made


def ask(held: Held, now: datetime) -> None:
    """Send the link to the customer who is meant, if one is, at contacts that have been hers for a while."""
    with held.transaction() as session:
        request = session.get_one(CardRequest, held.payload["card_request_id"])
        customer = merchants.resolve(session, session.get_one(MerchantCustomer, request.merchant_customer_id))
        if request.asked_at is not None or customer is None:
            return
        since = CardRequest.asked_at > now - timedelta(days=1)
        told = select(func.count()).select_from(CardRequest).where(CardRequest.customer_id == customer.id, since)
        request.customer_id = customer.id
        if (session.scalar(told) or 0) >= MOST_A_DAY:
            return
        request.asked_at = now
        merchant = session.get_one(Merchant, request.merchant_id).name
        for contact in settled_contacts(session, customer.id, now):
            notify_at(session, contact, "card.ask", {"page": [PAGE, request.id], "merchant": merchant}, now)
