"""Purchase accounts: the account under a customer's main account (the customer herself) that may only buy.

It is opened when she first buys, is debited through one card at one bank, and has its own limit and its own merchants.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant
from ivr.customers.models import Card
from ivr.customers.money import MOST_MINOR, check_currency
from ivr.customers.notices import notify
from ivr.store.db import Base

MOST_A_PURCHASE_MINOR = 50_000
"""The limit of a new account, in minor units of the currency that she first buys in."""


class PurchaseAccount(Base):
    """What a customer buys through. Each purchase may be as much as the limit, in its currency, and none in another."""

    __tablename__ = "purchase_accounts"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    currency: Mapped[str] = mapped_column(String(3))
    limit_minor: Mapped[int] = mapped_column(BigInteger)
    card_id: Mapped[str] = mapped_column(ForeignKey("cards.id"))  # the bank account that is debited
    bank: Mapped[str] = mapped_column(String(32))  # the connector to the bank that gave the card's token
    opened_at: Mapped[datetime]
    blocked_at: Mapped[datetime | None]


class AccountMerchant(Base):
    """A merchant that an account may buy from, unless somebody has refused it."""

    __tablename__ = "account_merchants"

    customer_id: Mapped[str] = mapped_column(ForeignKey("purchase_accounts.customer_id"), primary_key=True)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), primary_key=True)
    since: Mapped[datetime]
    refused_at: Mapped[datetime | None]


def find(session: Session, customer_id: str) -> PurchaseAccount | None:
    """The customer's purchase account, its row locked where she has one."""
    return session.get(PurchaseAccount, customer_id, with_for_update=True)


def require(session: Session, customer_id: str) -> PurchaseAccount:
    """The same. Raises InvalidInput where she has none."""
    account = find(session, customer_id)
    if account is None:
        raise InvalidInput("this customer has no purchase account: it is opened when she first buys")
    return account


def open_account(
    session: Session, customer_id: str, *, currency: str, card_id: str, bank: str, who: str, now: datetime
) -> PurchaseAccount:
    """A new account; she is told. The caller holds the customer's lock."""
    account = PurchaseAccount(
        customer_id=customer_id,
        currency=currency,
        limit_minor=MOST_A_PURCHASE_MINOR,
        card_id=card_id,
        bank=bank,
        opened_at=now,
    )
    session.add(account)
    session.flush()
    audit.record(session, who, "purchase_account.opened", customer_id, now, card=card_id, bank=bank)
    notify(session, customer_id, "purchases.opened", {"last4": session.get_one(Card, card_id).last4}, now)
    return account


def block(session: Session, account: PurchaseAccount, *, who: str, now: datetime) -> None:
    """Let nothing be bought through it."""
    if account.blocked_at is None:
        account.blocked_at = now
        audit.record(session, who, "purchase_account.blocked", account.customer_id, now)


def unblock(session: Session, account: PurchaseAccount, *, who: str, now: datetime) -> None:
    if account.blocked_at is not None:
        account.blocked_at = None
        audit.record(session, who, "purchase_account.unblocked", account.customer_id, now)


def set_limit(
    session: Session, account: PurchaseAccount, limit_minor: int, currency: str, *, who: str, now: datetime
) -> None:
    """The most that one purchase may be. Raises InvalidInput."""
    check_currency(currency)
    if not 0 < limit_minor <= MOST_MINOR:
        raise InvalidInput("the limit must be above zero, and not absurdly large")
    account.limit_minor, account.currency = limit_minor, currency
    told = {"limit_minor": limit_minor, "currency": currency}
    audit.record(session, who, "purchase_account.limit", account.customer_id, now, **told)


def use_card(session: Session, account: PurchaseAccount, card_id: str, bank: str, *, who: str, now: datetime) -> None:
    """Debit this card of the customer's from now on; the caller has checked that it is one of hers."""
    if (account.card_id, account.bank) != (card_id, bank):
        account.card_id, account.bank = card_id, bank
        audit.record(session, who, "purchase_account.card", account.customer_id, now, card=card_id, bank=bank)


def merchants_of(session: Session, account: PurchaseAccount) -> list[tuple[Merchant, AccountMerchant]]:
    """The merchants that it buys from, or may not buy from, by name."""
    query = select(Merchant, AccountMerchant).join(AccountMerchant, AccountMerchant.merchant_id == Merchant.id)
    query = query.where(AccountMerchant.customer_id == account.customer_id).order_by(Merchant.name)
    return [(merchant, row) for merchant, row in session.execute(query)]


def may_buy_from(session: Session, account: PurchaseAccount, merchant_id: str, *, who: str, now: datetime) -> bool:
    """Whether it may; a merchant that was never refused is allowed by her first confirmation."""
    row = session.get(AccountMerchant, (account.customer_id, merchant_id))
    if row is None:
        allow(session, account, merchant_id, who=who, now=now)
        return True
    return row.refused_at is None


def allow(session: Session, account: PurchaseAccount, merchant_id: str, *, who: str, now: datetime) -> None:
    _decide(session, account, merchant_id, None, who, now)


def refuse(session: Session, account: PurchaseAccount, merchant_id: str, *, who: str, now: datetime) -> None:
    """Let it buy nothing from this merchant until somebody allows it."""
    _decide(session, account, merchant_id, now, who, now)


def _decide(
    session: Session, account: PurchaseAccount, merchant_id: str, refused_at: datetime | None, who: str, now: datetime
) -> None:
    row = session.get(AccountMerchant, (account.customer_id, merchant_id))
    if row is None:
        row = AccountMerchant(customer_id=account.customer_id, merchant_id=merchant_id, since=now)
        session.add(row)
    row.refused_at = refused_at
    session.flush()
    what = "purchase_account.merchant_refused" if refused_at else "purchase_account.merchant_allowed"
    audit.record(session, who, what, account.customer_id, now, merchant=merchant_id)
