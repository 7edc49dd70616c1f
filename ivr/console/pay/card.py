"""The page of a card that a merchant asks for: its number goes from here to the bank, and is kept nowhere."""

from __future__ import annotations

import re
from datetime import datetime

from flask import Response, abort, request
from sqlalchemy.orm import Session

from ivr.console.pay.desk import back, bank, page
from ivr.console.pay.kinds import MOST_TRIES, OneTimePage
from ivr.console.people.desk import desk, now, reading, writing
from ivr.customers import audit, cards
from ivr.customers.card_requests import PAGE, CardRequest
from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant
from ivr.customers.models import Customer
from ivr.payments import bank as banks_answer
from ivr.payments.bank import Token
from ivr.payments.service import WrongBank, check_bank

TEXT_VERSION = "card-page-1"
"""Of the words ``card.consent``; new words are a new version."""


class CardPage(OneTimePage[CardRequest]):
    """Its link comes to her own contact: the PIN is enough."""

    name, asks_number, model = PAGE, False, CardRequest

    def meant(self, database: Session, row: CardRequest) -> Customer | None:
        return database.get(Customer, row.customer_id) if row.customer_id else None

    def is_open(self, database: Session, row: CardRequest, moment: datetime) -> bool:
        return row.card_id is None and row.tries < MOST_TRIES and moment <= row.expires_at

    def show(self, database: Session, row: CardRequest, customer_id: str | None) -> Response:
        if customer_id is None or customer_id != row.customer_id:
            return page("sign", open=self.is_open(database, row, now()))
        if not self.is_open(database, row, now()):
            return page("card_done", added=row.card_id is not None)
        merchant = database.get_one(Merchant, row.merchant_id).name
        return page("card", merchant=merchant, asked=row)

    def answer(self, row_id: str, customer_id: str | None) -> Response:
        if request.form.get("do") != "add":
            abort(400)
        with reading() as database:
            row = database.get(CardRequest, row_id)
            if row is None:
                abort(404)
            if customer_id is None or customer_id != row.customer_id or not self.is_open(database, row, now()):
                return back(error="error.sign_again")
        try:
            _add(row, customer_id)
        except (InvalidInput, WrongBank, banks_answer.InvalidCard):
            return back(error="error.card")
        except banks_answer.BankError:
            return back(error="error.bank")
        return back()


def _add(row: CardRequest, customer_id: str) -> None:
    """Raises InvalidInput, WrongBank, BankError. No transaction is open while the bank is asked."""
    number = re.sub(r"[ -]", "", request.form.get("number", "").strip())
    exp_month, exp_year = row.exp_month, row.exp_year
    if (expiry := request.form.get("expiry", "")) or exp_month is None or exp_year is None:
        exp_month, exp_year = _expiry(expiry)
    cards.check_expiry(exp_year, exp_month, now().date())
    with reading() as database:
        check_bank(database, customer_id, bank().test_only)
    issued = _issued(row, number, exp_year, exp_month)
    with writing() as database:
        locked = database.get_one(CardRequest, row.id, with_for_update=True)
        if locked.card_id is not None:  # sent twice
            return
        if row.bank_token is not None:
            cards.check_not_anothers(database, customer_id, issued.token)
        authorised_by = f"the customer, on our page, with her PIN, asked by merchant {row.merchant_id}"
        card = cards.add_card(
            database,
            customer_id,
            number or None,
            last4=issued.last4,
            exp_year=exp_year,
            exp_month=exp_month,
            token=issued.token,
            brand=issued.brand,
            authorised_by=authorised_by,
            text_version=TEXT_VERSION,
            keyring=desk().keyring,
            now=now(),
        )
        locked.card_id = card.id
        audit.record(database, f"customer {customer_id}", "card.authorised", customer_id, now(), card=card.id)


def _issued(row: CardRequest, number: str, exp_year: int, exp_month: int) -> Token:
    if row.bank_token is None:
        cards.check_number(number)
        return bank().tokenise(number, exp_year, exp_month)
    issued = bank().card(row.bank_token)
    if number:
        cards.check_number(number)
        if issued.last4 != number[-4:]:
            raise cards.InvalidCard("the bank's token stands for another card than the number just given")
    return issued


def _expiry(text: str) -> tuple[int, int]:
    """Month and year as a card shows them: 04/28, or 04/2028. Raises InvalidCard."""
    match = re.fullmatch(r"\s*(\d{1,2})\s*[/.-]\s*(\d{2}|\d{4})\s*", text, re.ASCII)
    if not match:
        raise cards.InvalidCard("write month and year, as in 04/28")
    year = int(match[2])
    return int(match[1]), year if year > 99 else 2000 + year
