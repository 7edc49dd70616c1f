"""The words of the pages are there in every language, and each is used."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from ivr.approval import explain
from ivr.approval.models import Answer, RequestState, Tell
from ivr.approval.policies import PLAIN, WARD
from ivr.approval.policy import Role
from ivr.approval.requests import Result
from ivr.approval.wards import WardSettings, policy_of
from ivr.console import people
from ivr.console.people.words import texts
from ivr.locales import LOCALES
from ivr.payments.states import State

HERE = Path(people.__file__).parent
FAMILIES = {
    "result": Result,
    "state": [*RequestState, "not_allowed"],
    "answer": [*Answer, "you", *Role],
    "tell": Tell,
    "role": Role,
    "payment": State,
    "appointment": [*Role, "active", "ended"],
    "request.address": ["known", "unknown"],
    "by": ["pin", "voice", "code", "page", "call", "console"],
    "error": ["400", "404", "405", "413", "429", "500", "form", "elsewhere"],
}
"""Keys that the code puts together."""


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def used() -> set[str]:
    source = "".join(path.read_text() for kind in ("html", "py") for path in sorted(HERE.rglob(f"*.{kind}")))
    named = set(re.findall(r"""["']([a-z_0-9]+(?:\.[a-z_0-9]+)*)["']""", source))
    return named | {f"{family}.{member}" for family, members in FAMILIES.items() for member in members}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_is_used_and_names_the_same_values_in_every_language(locale: str) -> None:
    words, english = texts(locale), texts("en")
    assert set(words) == set(english)
    assert {key: places(text) for key, text in words.items()} == {key: places(text) for key, text in english.items()}
    assert set(words) - used() == set()


def test_every_key_that_the_pages_name_exists() -> None:
    called = {key for path in HERE.rglob("*.html") for key in re.findall(r'\bt\("([^"]+)"[,)]', path.read_text())}
    given = {
        key
        for path in HERE.rglob("*.py")
        for key in re.findall(r'"((?:error|said|result)\.[a-z_0-9]+)"', path.read_text())
    }
    made = {f"{family}.{member}" for family, members in FAMILIES.items() for member in members}
    assert (called | given | made) - set(texts("en")) == set()


def test_decisions_are_explained_in_every_language() -> None:
    words = {locale: explain._words(locale) for locale in LOCALES}
    for locale in LOCALES:
        assert set(words[locale]) == set(words["en"])
        for key, text in words["en"].items():
            if key != "rules":
                # The name of a rule is quoted by other marks in Chinese.
                assert places(words[locale][key]) == places(text), key


def test_the_rules_that_ship_have_chinese_names() -> None:
    full = WardSettings.model_validate(
        {"month": 1, "blocked": ["a"], "only": ["b"], "night": {"begins": "22:00", "ends": "06:00"}}
    )
    for policy in (PLAIN, WARD, policy_of(full)):
        for line, rule in zip(explain.rules(policy, "zh"), policy.rules, strict=True):
            assert rule.name not in line
            assert not re.search(r"[a-z]{3}", line.replace("USD", "").replace("UTC", ""))
