"""The words of pages: texts by key and language (``en.toml``, ``zh.toml``), amounts, times."""

from __future__ import annotations

import tomllib
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from babel.dates import format_datetime, format_timedelta
from werkzeug.datastructures import LanguageAccept

from ivr.approval.explain import Told, say
from ivr.customers.money import format_amount
from ivr.locales import LOCALES

_HERE = Path(__file__).parent
_TAGS = {"en": "en", "zh": "zh-Hans"}
_MOMENTS = {"en": "d MMM y HH:mm", "zh": "y年M月d日 HH:mm"}


@cache
def texts(locale: str, folder: Path = _HERE) -> dict[str, str]:
    """Every text of a language by its key, with the names of values in braces."""
    with open(folder / f"{locale}.toml", "rb") as file:
        return tomllib.load(file)


class Words:
    """One language of the pages whose words lie in ``folder``.

    Calling it gives a text; KeyError when the key is unknown or a value is missing.
    """

    def __init__(self, locale: str, folder: Path = _HERE) -> None:
        self.locale = locale
        self._texts = texts(locale, folder)
        self.tag = _TAGS[locale]  # BCP 47

    def __call__(self, key: str, **values: object) -> str:
        return self._texts[key].format(**values)

    def has(self, key: str) -> bool:
        return key in self._texts

    def amount(self, amount_minor: int, currency: str) -> str:
        return format_amount(amount_minor, currency)

    def time(self, moment: datetime) -> str:
        return f"{format_datetime(moment, _MOMENTS[self.locale], locale=self.locale)} UTC"

    def span(self, length: timedelta) -> str:
        return str(format_timedelta(max(length, timedelta(minutes=1)), locale=self.locale, threshold=1.2))

    def told(self, told: Told) -> str:
        return say(told, self.locale)


def preferred(accepted: LanguageAccept, default: str) -> str:
    """The language for somebody of whom we know what her browser asks for."""
    return accepted.best_match(LOCALES) or default
