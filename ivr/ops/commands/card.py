"""``ivr card``: cards that customers have authorised to be debited."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import date

import click
from sqlalchemy import select

from ivr.clock import utc_now
from ivr.customers import audit, cards
from ivr.customers.models import Card
from ivr.customers.money import parse_amount
from ivr.customers.register import require_customer
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.payments import bank as banks_answer
from ivr.payments.banks import connect
from ivr.payments.service import WrongBank, check_bank
from ivr.settings import settings


@click.group()
def command() -> None:
    """Cards that customers have authorised to be debited."""


@command.command()
@click.argument("customer")
@click.option("--expiry", required=True, metavar="MM/YYYY", help="The last month in which it is valid.")
@click.option(
    "--authorised-by", required=True, help="Whose word this is, e.g. 'signed form of 3 May, M. Smith'."
)
@click.option("--text-version", default=cards.AUTHORISATION_TEXT_VERSION, show_default=True)
@click.option("--token", help="The bank's token of the card, such as Stripe's pm_...; else the bank is asked for one.")
@click.option("--limit", help="The most that one payment may take, e.g. 500.00.")
@click.option(
    "--limit-currency", default="USD", show_default=True, help="Whose minor units the limit counts."
)
@click.option(
    "--stdin", "from_stdin", is_flag=True, help="Read the number from standard input, not a prompt."
)
def add(
    customer: str,
    expiry: str,
    authorised_by: str,
    text_version: str,
    token: str | None,
    limit: str | None,
    limit_currency: str,
    from_stdin: bool,
) -> None:
    """Add an authorised card. Its number comes once, through a prompt that does not echo or --stdin."""
    now = utc_now()
    exp_month, exp_year = _parse_expiry(expiry, now.date())
    limit_minor = parse_amount(limit, limit_currency) if limit else None
    keyring, bank = Keyring.load(settings()), connect(settings())
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        try:
            check_bank(session, customer_id, bank.test_only)
        except WrongBank as wrong:
            raise cards.InvalidCard(f"{wrong}; see `ivr customer add --test`") from None
    pan = _read_number(from_stdin)
    cards.check_number(pan)
    issued = _issued(lambda: bank.card(token) if token else bank.tokenise(pan, exp_year, exp_month))
    if issued.last4 != pan[-4:]:
        raise cards.InvalidCard("the bank's token stands for another card than the number just given")
    with desk.transaction() as session:
        card = cards.add_card(
            session,
            customer_id,
            pan,
            exp_year=exp_year,
            exp_month=exp_month,
            token=issued.token,
            brand=issued.brand,
            authorised_by=authorised_by,
            text_version=text_version,
            limit_minor=limit_minor,
            keyring=keyring,
            now=now,
        )
        audit.record(session, desk.who(), "card.authorised", customer_id, now, card=card.id)
    click.echo(f"card {card.id}: {_shown(card)}, authorised; to take that back: ivr card revoke {card.id}")


@command.command(name="list")
@click.argument("customer")
def list_(customer: str) -> None:
    """A customer's cards with their authorisations."""
    today = utc_now().date()
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
        found = session.scalars(
            select(Card).where(Card.customer_id == customer_id).order_by(Card.authorised_at, Card.id)
        ).all()
    rows = [
        (
            card.id,
            _shown(card),
            f"{card.exp_month:02}/{card.exp_year}",
            f"{card.authorised_by}, {desk.day(card.authorised_at)}, text {card.text_version}",
            "" if card.limit_minor is None else card.limit_minor,
            _state(card, today),
        )
        for card in found
    ]
    columns = ("id", "card", "expires", "authorised by", "limit, minor units", "state")
    desk.print_table(columns, rows, empty="no cards: ivr card add")


@command.command()
@click.argument("card_id", metavar="CARD")
def revoke(card_id: str) -> None:
    """Take back the authorisation of a card, for good."""
    now = utc_now()
    with desk.transaction() as session:
        card = cards.revoke_card(session, card_id, now)
        audit.record(session, desk.who(), "card.revoked", card.customer_id, now, card=card.id)
    click.echo(f"card {card.id}: {_shown(card)}, revoked")


def _parse_expiry(text: str, today: date) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,2})/(\d{4})", text, re.ASCII)
    if not match:
        raise cards.InvalidCard(f"{text!r} is no expiry date; write month and year, as in 04/2028")
    month, year = int(match[1]), int(match[2])
    cards.check_expiry(year, month, today)
    return month, year


def _read_number(from_stdin: bool) -> str:
    if from_stdin:
        number = sys.stdin.readline(100)
    elif sys.stdin.isatty():
        number = click.prompt("Card number (not shown)", hide_input=True)
    else:
        raise click.UsageError("no terminal to ask for the card number; give it with --stdin")
    return re.sub(r"[ -]", "", number.strip())


def _issued(ask: Callable[[], banks_answer.Token]) -> banks_answer.Token:
    try:
        return ask()
    except banks_answer.InvalidCard as error:
        raise cards.InvalidCard(f"the bank has no token for this card: {error}") from None
    except banks_answer.BankError as error:
        raise click.ClickException(f"the bank gave no token, and nothing was stored: {error}") from None


def _shown(card: Card) -> str:
    return f"{card.brand} •••• {card.last4}"


def _state(card: Card, today: date) -> str:
    if card.revoked_at:
        return f"revoked {desk.day(card.revoked_at)}"
    return "expired" if (card.exp_year, card.exp_month) < (today.year, today.month) else "authorised"
