"""``ivr account``: purchase accounts, through which customers buy on merchants' pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.clock import utc_now
from ivr.customers import accounts, merchants
from ivr.customers.accounts import PurchaseAccount
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Card, Customer
from ivr.customers.money import format_amount, parse_amount
from ivr.customers.register import require_customer
from ivr.ops import desk
from ivr.payments.banks import connect
from ivr.payments.service import CardNotAuthorised, check_card
from ivr.settings import settings


@click.group()
def command() -> None:
    """Purchase accounts. One is opened when its customer first buys on a merchant's page."""


@command.command(name="list")
def list_() -> None:
    """All purchase accounts."""
    with desk.transaction() as session:
        query = select(PurchaseAccount, Customer, Card).join(Customer, Customer.id == PurchaseAccount.customer_id)
        query = query.join(Card, Card.id == PurchaseAccount.card_id).order_by(Customer.number)
        rows = [
            (
                customer.number,
                format_amount(account.limit_minor, account.currency),
                f"{card.id}: {card.brand} •••• {card.last4}",
                account.bank,
                desk.day(account.opened_at),
                _since("blocked", account.blocked_at),
            )
            for account, customer, card in session.execute(query)
        ]
    columns = ("customer", "most a purchase", "card", "bank", "opened", "")
    desk.print_table(columns, rows, empty="no purchase accounts")


@command.command()
@click.argument("customer")
def block(customer: str) -> None:
    """Let nothing be bought through a customer's account."""
    _change(customer, accounts.block, "blocked")


@command.command()
@click.argument("customer")
def unblock(customer: str) -> None:
    """Let a customer buy again."""
    _change(customer, accounts.unblock, "not blocked")


@command.command()
@click.argument("customer")
@click.argument("amount")
@click.argument("currency")
def limit(customer: str, amount: str, currency: str) -> None:
    """Set the most that one purchase may be, as in 500.00 USD; in other currencies nothing is bought."""
    limit_minor = parse_amount(amount, currency)
    with _account(customer) as (session, account):
        accounts.set_limit(session, account, limit_minor, currency, who=desk.who(), now=utc_now())
    click.echo(f"customer {customer}: {format_amount(limit_minor, currency)} a purchase at most")


@command.command()
@click.argument("customer")
@click.argument("card_id", metavar="CARD")
def card(customer: str, card_id: str) -> None:
    """Have another card of the customer's debited."""
    now, bank = utc_now(), connect(settings()).name
    with _account(customer) as (session, account):
        try:
            check_card(session, card_id, account.customer_id, now)
        except CardNotAuthorised as error:
            raise InvalidInput(str(error)) from None
        accounts.use_card(session, account, card_id, bank, who=desk.who(), now=now)
    click.echo(f"customer {customer}: purchases are debited from card {card_id}")


@command.command(name="merchants")
@click.argument("customer")
@click.option("--allow", metavar="MERCHANT", help="Let it buy from this merchant.")
@click.option("--refuse", metavar="MERCHANT", help="Let it buy nothing from this merchant.")
def merchants_(customer: str, allow: str | None, refuse: str | None) -> None:
    """The merchants that a customer's account buys from."""
    now = utc_now()
    with _account(customer) as (session, account):
        for name, decide in ((allow, accounts.allow), (refuse, accounts.refuse)):
            if name:
                merchant = merchants.require_merchant(session, name)
                decide(session, account, merchant.id, who=desk.who(), now=now)
        rows = [
            (merchant.id, merchant.name, desk.day(row.since), _since("refused", row.refused_at))
            for merchant, row in accounts.merchants_of(session, account)
        ]
    desk.print_table(("id", "merchant", "since", ""), rows, empty="no merchants")


def _since(what: str, moment: datetime | None) -> str:
    return f"{what} {desk.day(moment)}" if moment else ""


@contextmanager
def _account(number: str) -> Iterator[tuple[Session, PurchaseAccount]]:
    with desk.transaction() as session:
        yield session, accounts.require(session, require_customer(session, number).id)


def _change(customer: str, change: Callable[..., None], done: str) -> None:
    with _account(customer) as (session, account):
        change(session, account, who=desk.who(), now=utc_now())
    click.echo(f"customer {customer}: purchase account {done}")
