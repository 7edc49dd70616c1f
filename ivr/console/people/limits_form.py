"""A guardian's limits between a form's fields and ``WardSettings``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from babel.numbers import get_currency_precision
from pydantic import ValidationError

from ivr.approval.policy import Hours
from ivr.approval.wards import WardSettings, policy_of
from ivr.customers.errors import InvalidInput
from ivr.customers.money import check_currency, parse_amount
from ivr.customers.text import clean_text


class Unusable(Exception):
    """A field cannot be used; ``key`` is that of the words that say why."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def fields(settings: WardSettings) -> dict[str, str]:
    """What the form shows."""
    currency, night = settings.currency, settings.night
    return {
        "currency": currency,
        "small": plain(settings.small, currency),
        "normal": plain(settings.normal, currency),
        "guardians": str(settings.guardians),
        "month": "" if settings.month is None else plain(settings.month, currency),
        "blocked": "\n".join(sorted(settings.blocked)),
        "only": "\n".join(sorted(settings.only)),
        "begins": f"{night.begins:%H:%M}" if night else "",
        "ends": f"{night.ends:%H:%M}" if night else "",
        "time_zone": settings.time_zone,
    }


def read(form: Mapping[str, str], guardians: int) -> WardSettings:
    """What was given, for a ward with so many guardians. Raises Unusable."""
    currency = form.get("currency", "").strip().upper()
    try:
        check_currency(currency)
    except InvalidInput:
        raise Unusable("error.currency") from None
    month, how_many = form.get("month", "").strip(), form.get("guardians", "")
    begins, ends = form.get("begins", "").strip(), form.get("ends", "").strip()
    if bool(begins) != bool(ends):
        raise Unusable("error.night")
    if how_many.isascii() and how_many.isdigit() and not 1 <= int(how_many) <= guardians:
        raise Unusable("error.guardians")
    small, normal = amount(form.get("small", ""), currency), amount(form.get("normal", ""), currency)
    if small > normal:
        raise Unusable("error.tiers")
    given: dict[str, Any] = {
        "currency": currency,
        "small": small,
        "normal": normal,
        "guardians": int(how_many) if how_many.isascii() and how_many.isdigit() else how_many,
        "month": amount(month, currency) if month else None,
        "blocked": _merchants(form.get("blocked", "")),
        "only": _merchants(form.get("only", "")),
        "time_zone": form.get("time_zone", "").strip(),
    }
    try:
        given["night"] = Hours.model_validate({"begins": begins, "ends": ends}) if begins else None
    except ValidationError:
        raise Unusable("error.night") from None
    try:
        settings = WardSettings.model_validate(given)
    except ValidationError as error:
        where = error.errors(include_url=False, include_input=False)[0]["loc"]
        raise Unusable("error.guardians" if where[:1] == ("guardians",) else "error.merchants") from None
    try:
        policy_of(settings)
    except (ValidationError, InvalidInput):
        raise Unusable("error.time_zone") from None
    return settings


def amount(text: str, currency: str) -> int:
    """Minor units; zero is a limit, too. Raises Unusable."""
    text = text.strip()
    if text and not text.strip("0.") and text.startswith("0"):
        return 0
    try:
        return parse_amount(text, currency)
    except InvalidInput:
        raise Unusable("error.amount") from None


def plain(amount_minor: int, currency: str) -> str:
    """What ``amount`` reads."""
    return f"{Decimal(amount_minor).scaleb(-get_currency_precision(currency)):f}"


def _merchants(text: str) -> frozenset[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return frozenset(clean_text(line, "a merchant", least=1, most=200) for line in lines)
    except InvalidInput:
        raise Unusable("error.merchants") from None
