"""Asking for a purchase, and confirming it: main account, purchase account, bill, payment.

What it needs from the customer is looked at only once she has proved on the page who she is, so that what a merchant
is answered before does not depend on whether we know her.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval import addresses, gate, telling
from ivr.approval.models import Address
from ivr.approval.policy import Destination
from ivr.customers import accounts, audit, bills, merchants
from ivr.customers.accounts import PurchaseAccount
from ivr.customers.cards import authorised_cards
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import lock_customer
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.models import Bill, Card, Customer, new_id
from ivr.customers.money import check_currency
from ivr.customers.text import clean_text
from ivr.customers.voiceprints import PROVISIONAL_LIMIT_MINOR, is_provisional
from ivr.jobs import Held
from ivr.payments import service
from ivr.payments.bank import Bank
from ivr.payments.models import Payment
from ivr.purchases.models import Purchase
from ivr.purchases.pages import kind_of, page_for
from ivr.purchases.results import Result, Status, standing
from ivr.webhooks import outbox
from ivr.webhooks.register import check_origin

EXPIRE_JOB = "purchase.expire"
LIFE = timedelta(minutes=15)
ENDED_AT_ONCE = 50
"""Of those expired, in one transaction: other writers are not to wait long."""
GIVEN = "given"
"""Chooses the address that came with the purchase; the others go by the id of the address book's row."""

_TOLD_AS: dict[Result, outbox.PurchaseKind] = {
    Result.CANCELLED: "purchase.cancelled",
    Result.EXPIRED: "purchase.expired",
}


class ChoiceUnusable(Exception):
    """The address or the card that was chosen on the page cannot be used: she chooses again."""


class _Ends(Exception):
    def __init__(self, result: Result) -> None:
        self.result = result


@dataclass(frozen=True)
class Offer:
    """What the customer is shown, and chooses from, once she has proved who she is."""

    cards: Sequence[Card]  # one where nothing is to be chosen; none where she has none
    addresses: Sequence[Address]
    given: str | None  # the address that came with the purchase, unless it is one of those

    @property
    def ships(self) -> bool:
        return bool(self.addresses or self.given)


def ask(
    session: Session,
    merchant: Merchant,
    referred: MerchantCustomer,
    *,
    amount_minor: int,
    currency: str,
    product_kind: str,
    description: str,
    ship_to: str | None,
    result_url: str | None,
    now: datetime,
) -> Purchase:
    """A new purchase request. Raises InvalidInput."""
    bills.check_amount(amount_minor)
    check_currency(currency)
    kind = kind_of(product_kind)
    if ship_to is not None:
        ship_to = clean_text(ship_to, "an address", least=1, most=200)
    page, jump_url = page_for(session, merchant, kind, ship_to)
    purchase = Purchase(
        id=new_id(),
        merchant_id=merchant.id,
        merchant_customer_id=referred.id,
        amount_minor=amount_minor,
        currency=currency,
        product_kind=kind,
        description=merchants.check_description(session, merchant.id, description),
        ship_to=ship_to,
        result_url=None if result_url is None else check_origin(session, merchant, result_url),
        page=page,
        jump_url=jump_url,
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(purchase)
    session.flush()
    due = purchase.expires_at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    jobs.put(session, EXPIRE_JOB, {}, f"{EXPIRE_JOB}:{due.isoformat()}", due)  # one for all of that minute
    return purchase


def state_of(session: Session, purchase: Purchase, now: datetime) -> tuple[Status, Result | None]:
    """How it stands now."""
    payment = session.get(Payment, purchase.payment_id) if purchase.payment_id else None
    return standing(purchase, payment, now)


def end(session: Session, purchase: Purchase, result: Result, *, who: str, now: datetime) -> None:
    """It ends without a payment, and its merchant is told. The caller holds its lock and knows that it is open."""
    purchase.result = result
    session.flush()
    audit.record(session, who, "purchase.ended", purchase.id, now, result=result.value)
    merchant = session.get_one(Merchant, purchase.merchant_id).name
    outbox.emit_ended(session, purchase, merchant, _TOLD_AS.get(result, "purchase.refused"), now)


def end_expired(held: Held, now: datetime) -> None:
    """End what nobody confirmed in time: what a worker does once a minute, so that merchants are told of it."""
    late = select(Purchase).where(Purchase.result.is_(None), Purchase.payment_id.is_(None), Purchase.expires_at < now)
    late = late.order_by(Purchase.expires_at, Purchase.id).limit(ENDED_AT_ONCE).with_for_update()
    more = True
    while more:
        with held.transaction() as session:
            found = session.scalars(late).all()
            for purchase in found:
                end(session, purchase, Result.EXPIRED, who="worker", now=now)
        more = len(found) == ENDED_AT_ONCE


def offer(session: Session, purchase: Purchase, customer_id: str, now: datetime) -> Offer:
    """What she chooses from."""
    cards = authorised_cards(session, customer_id, now.date())
    account = session.get(PurchaseAccount, customer_id)
    kept = [card for card in cards if account and card.id == account.card_id]
    if purchase.page != "goods":
        return Offer(kept or cards, [], None)
    book = addresses.book(session, customer_id)
    known = addresses.destination(session, customer_id, purchase.ship_to) is not Destination.UNKNOWN
    return Offer(kept or cards, book, None if known else purchase.ship_to)


def confirm(
    session: Session, purchase: Purchase, *, card_id: str = "", address_id: str = "", bank: Bank, now: datetime
) -> None:
    """The customer, who has proved who she is, confirms. Confirmed again, it stays as it was.

    The caller holds the purchase's lock. Raises ChoiceUnusable.
    """
    assert purchase.customer_id
    if state_of(session, purchase, now)[0] is not Status.OPEN:
        return
    lock_customer(session, purchase.customer_id)
    who = f"customer {purchase.customer_id}"
    try:
        with session.begin_nested():  # a purchase that is refused leaves no bill
            payment = _buy(session, purchase, card_id, address_id, bank, who, now)
    except _Ends as ended:
        end(session, purchase, ended.result, who=who, now=now)
        return
    except gate.NotAllowed:
        end(session, purchase, Result.NOT_ALLOWED, who=who, now=now)
        merchant = session.get_one(Merchant, purchase.merchant_id).name
        told = telling.about_amount(merchant, purchase.amount_minor, purchase.currency)
        telling.tell_approvers(session, purchase.customer_id, "ward.attempted", told, now)
        return
    purchase.payment_id = payment.id
    session.flush()
    audit.record(session, who, "purchase.confirmed", purchase.id, now, payment=payment.id)


def _buy(
    session: Session, purchase: Purchase, card_id: str, address_id: str, bank: Bank, who: str, now: datetime
) -> Payment:
    account = _account(session, purchase, card_id, bank, who, now)
    if account.blocked_at is not None:
        raise _Ends(Result.ACCOUNT_BLOCKED)
    merchant = session.get_one(Merchant, purchase.merchant_id)
    allowed = accounts.may_buy_from(session, account, merchant.id, who=who, now=now)
    if not allowed or merchant.closed_at is not None:
        raise _Ends(Result.MERCHANT_NOT_ALLOWED)
    limits = [account.limit_minor]
    if is_provisional(session, account.customer_id, now):
        limits.append(PROVISIONAL_LIMIT_MINOR)
    if purchase.currency != account.currency:
        raise _Ends(Result.NOT_ALLOWED)
    ship_to, chosen = _destination(session, purchase, address_id)
    try:
        bill = merchants.issue_bill(
            session,
            session.get_one(MerchantCustomer, purchase.merchant_customer_id),
            amount_minor=purchase.amount_minor,
            currency=purchase.currency,
            description=purchase.description,
            ship_to=ship_to,
            one_payment=True,
            now=now,
        )
    except InvalidInput:  # its description was refused meanwhile
        raise _Ends(Result.NOT_ALLOWED) from None
    assert session.get_one(Bill, bill.id).customer_id == account.customer_id
    try:
        return gate.start(
            session,
            bill_id=bill.id,
            customer_id=account.customer_id,
            card_id=account.card_id,
            idempotency_key=f"purchase:{purchase.id}",
            call_sid=f"purchase:{purchase.id}",
            factors=["pin"],
            attestation=None,
            attested=False,
            address_id=chosen,
            limit_minor=min(limits),
            bank=bank.name,
            test_bank=bank.test_only,
            now=now,
        )
    except service.AmountAboveLimit:
        raise _Ends(Result.NOT_ALLOWED) from None


def _account(
    session: Session, purchase: Purchase, card_id: str, bank: Bank, who: str, now: datetime
) -> PurchaseAccount:
    """Her purchase account, opened now if there is none, with a bank account that can be debited."""
    assert purchase.customer_id
    account = accounts.find(session, purchase.customer_id)
    if account is not None and account.blocked_at is not None:
        return account
    cards = {card.id: card for card in authorised_cards(session, purchase.customer_id, now.date())}
    customer = session.get_one(Customer, purchase.customer_id)
    if not cards or customer.test != bank.test_only:
        raise _Ends(Result.NO_BANK)
    if account is not None and account.card_id in cards and account.bank == bank.name:
        return account
    if card_id and card_id not in cards:
        raise ChoiceUnusable
    chosen = card_id or next(iter(cards))
    if account is not None:
        accounts.use_card(session, account, chosen, bank.name, who=who, now=now)
        return account
    return accounts.open_account(
        session, customer.id, currency=purchase.currency, card_id=chosen, bank=bank.name, who=who, now=now
    )


def _destination(session: Session, purchase: Purchase, address_id: str) -> tuple[str | None, str]:
    """Where goods go, as the bill has it, and which of the address book was chosen for it."""
    if purchase.page != "goods":
        return purchase.ship_to, ""
    if address_id == GIVEN and purchase.ship_to is not None:
        return purchase.ship_to, ""
    for address in addresses.book(session, str(purchase.customer_id)):
        if address.id == address_id:
            return purchase.ship_to or address.text, address.id
    raise ChoiceUnusable
