"""The words of the one-time pages are there in every language, and each is used."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from ivr.console.pay.desk import HERE
from ivr.console.people.words import texts
from ivr.locales import LOCALES
from ivr.purchases.results import Result, Status

FAMILIES = {
    "result": Result,
    "status": [Status.CONFIRMED, Status.AWAITING_APPROVAL],
    "error": ["400", "404", "405", "413", "429", "500"],
}
"""Keys that the code puts together."""


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_is_used_and_names_the_same_values_in_every_language(locale: str) -> None:
    words, english = texts(locale, HERE), texts("en", HERE)
    source = "".join(path.read_text() for kind in ("html", "py") for path in sorted(HERE.rglob(f"*.{kind}")))
    used = set(re.findall(r"""["']([a-z_0-9]+(?:\.[a-z_0-9]+)*)["']""", source)) | {"site", "skip", "pin", "pin.why"}
    used |= {"error.form", "error.elsewhere"}  # ivr/console/forms.py
    used |= {f"{family}.{member}" for family, members in FAMILIES.items() for member in members}
    assert {key: places(text) for key, text in words.items()} == {key: places(text) for key, text in english.items()}
    assert set(words) - used == set()
    named = set(re.findall(r'\bt\("([^"]+)"[,)]', source)) | set(re.findall(r'"(error\.[a-z_0-9]+)"', source))
    assert named - set(words) == set()
