"""Amounts between people and the database: by each currency's own number of decimals (Babel). Pure."""

from __future__ import annotations

import re
from decimal import Decimal

from babel.numbers import format_currency, get_currency_precision, list_currencies

from ivr.customers.errors import InvalidInput

MOST_MINOR = 10**12  # far above any bill, far below what the databases' integers hold

_AMOUNT = re.compile(r"\d{1,15}(\.\d{1,6})?", re.ASCII)


def check_currency(currency: str) -> None:
    """Raises InvalidInput unless it is an ISO 4217 code."""
    if currency not in list_currencies():
        raise InvalidInput(f"{currency!r} is no ISO 4217 currency code, such as USD")


def parse_amount(text: str, currency: str) -> int:
    """``"42.10"`` in USD is 4210 minor units. Raises InvalidInput: no sign, no grouping, no rounding."""
    check_currency(currency)
    if not _AMOUNT.fullmatch(text):
        raise InvalidInput(f"{text!r} is no amount; write it as in 42.10")
    decimals = get_currency_precision(currency)
    minor = Decimal(text).scaleb(decimals)
    if minor != int(minor):
        raise InvalidInput(f"{text} has more decimals than the {decimals} of {currency}")
    if not 0 < minor <= MOST_MINOR:
        raise InvalidInput(f"{text} {currency} is no amount to be paid: it must be above zero, and payable")
    return int(minor)


def format_amount(amount_minor: int, currency: str) -> str:
    """4210 minor units of USD are ``"USD 42.10"``."""
    amount = Decimal(amount_minor).scaleb(-get_currency_precision(currency))
    return format_currency(amount, currency, "¤¤ #,##0.00", locale="en")
