"""What the caller hears: texts by id and language, and how money and digits are spoken.

Texts are data (``en.toml``, ``zh.toml``). :func:`render` fills one in; :func:`recognise` is its inverse, with
which the simulated carrier knows which prompt it heard.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from babel.numbers import format_decimal, get_currency_name, get_currency_precision

from ivr.locales import LOCALES

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """One prompt to speak: its id, and the values that its text asks for, ready to be spoken."""

    prompt: str
    values: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(prompt: str, **values: str) -> Line:
        """A line with those of ``values`` that the prompt's text asks for."""
        wanted = set(re.findall(r"\{(\w+)\}", _catalogue("en")[prompt]["text"]))
        return Line(prompt, tuple(sorted((k, v) for k, v in values.items() if k in wanted)))


@cache
def _catalogue(locale: str) -> dict[str, dict[str, str]]:
    with open(_HERE / f"{locale}.toml", "rb") as file:
        return tomllib.load(file)


def language(locale: str) -> str:
    """The BCP 47 tag with which the carrier's voice reads this locale."""
    return _catalogue(locale)["voice"]["language"]


def ids(locale: str) -> list[str]:
    """Every prompt id of a locale."""
    return [key for key in _catalogue(locale) if key != "voice"]


def render(line: Line, locale: str) -> str:
    """The words of a prompt. Raises KeyError when the id is unknown or a value is missing."""
    return _catalogue(locale)[line.prompt]["text"].format(**dict(line.values))


def recording(line: Line, locale: str) -> bytes | None:
    """The mu-law audio of a prompt that is played over the stream; None where the carrier is to read it."""
    if not _catalogue(locale)[line.prompt].get("stream"):
        return None
    path = _HERE / "audio" / locale / f"{line.prompt}.ulaw"
    return path.read_bytes() if path.exists() else None


@cache
def _patterns(locale: str) -> list[tuple[str, re.Pattern[str]]]:
    patterns = []
    for prompt in ids(locale):
        pieces = re.split(r"\{(\w+)\}", _catalogue(locale)[prompt]["text"])
        regex, named = "", set()
        for i, piece in enumerate(pieces):
            if i % 2 == 0:
                regex += re.escape(piece)
            else:  # a value that is said twice is the same both times
                regex += f"(?P={piece})" if piece in named else f"(?P<{piece}>.+?)"
                named.add(piece)
        patterns.append((sum(map(len, pieces[::2])), prompt, re.compile(regex)))
    # The most literal text first: "{merchant}. To pay ..." also fits what a longer prompt says.
    return [(prompt, pattern) for _, prompt, pattern in sorted(patterns, key=lambda p: -p[0])]


def recognise(text: str) -> tuple[str, dict[str, str]] | None:
    """Which prompt a spoken text is, in any language, and the values spoken in it."""
    for locale in LOCALES:
        for prompt, pattern in _patterns(locale):
            if match := pattern.fullmatch(text.strip()):
                return prompt, match.groupdict()
    return None


def spoken_digits(digits: str) -> str:
    """Digits apart, so that "4719" is not read as a number of thousands."""
    return " ".join(digits)


def spoken_amount(amount_minor: int, currency: str, locale: str) -> str:
    """An amount as a person would say it: "42 US dollars 10".

    ``amount_minor`` counts the currency's smallest unit (cents; yen have none), ``currency`` is ISO 4217.
    """
    precision = get_currency_precision(currency)
    amount = Decimal(amount_minor).scaleb(-precision)
    units, minor = divmod(amount_minor, 10**precision)
    return (
        _catalogue(locale)["voice"]["amount"]
        .format(
            units=format_decimal(units, locale=locale),
            decimal=format_decimal(amount, locale=locale, format="#,##0." + "0" * precision if precision else "#,##0"),
            currency=get_currency_name(currency, count=units, locale=locale),
            minor=f"{minor:0{precision}d}" if minor else "",
        )
        .strip()
    )


def spoken_addresses(names: Sequence[str], locale: str) -> str:
    """The addresses to choose from, numbered from one, by name; one without a name came with the bill."""
    return " ".join(
        render(Line.of("address.choose.item" if name else "address.choose.new", number=str(number), name=name), locale)
        for number, name in enumerate(names, 1)
    )


def spoken_choices(choices: Sequence[Mapping[str, object]], locale: str) -> str:
    """The bills to choose from, numbered from one: each with ``merchant``, ``amount_minor``, ``currency``."""
    return " ".join(
        render(
            Line.of(
                "bill.choose.item",
                number=str(number),
                merchant=str(choice["merchant"]),
                amount=spoken_amount(int(str(choice["amount_minor"])), str(choice["currency"]), locale),
            ),
            locale,
        )
        for number, choice in enumerate(choices, 1)
    )
