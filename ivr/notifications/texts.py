"""The words of a notice: texts by template id and language (``en.toml``, ``zh.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ivr.customers.money import format_amount

_HERE = Path(__file__).parent


@cache
def templates(locale: str) -> dict[str, dict[str, str]]:
    """Every template of a locale: its ``subject`` and ``text``, with the names of values in braces."""
    with open(_HERE / f"{locale}.toml", "rb") as file:
        return tomllib.load(file)


def compose(template: str, values: Mapping[str, Any], locale: str) -> tuple[str, str]:
    """Subject and text. ``amount_minor`` and ``currency`` become ``{amount}``, such as "USD 42.10".

    Raises KeyError when the template is unknown or a value is missing.
    """
    words = templates(locale)[template]
    if "lines" in values:  # a digest: each line is a notice by itself
        values = {**values, "lines": "\n".join(f"- {compose(name, of, locale)[1]}" for name, of in values["lines"])}
    if "amount_minor" in values:
        values = {**values, "amount": format_amount(values["amount_minor"], values["currency"])}
    return words["subject"].format(**values), words["text"].format(**values)
