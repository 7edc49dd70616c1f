"""A decision in words: which rules had a say, why they applied, and what they ask for. Pure.

What is told is first made as data, which a payment's record can keep, and then said in a language.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ivr.approval.policy import Decision, Destination, Facts, Policy, Role, Rule, When, local_time
from ivr.customers.money import format_amount

Told = list[Any]
"""``[key of the words, {name: what fills it}]``: strings, and what is told in its turn; plain JSON."""

_HERE = Path(__file__).parent / "words"


def explain(facts: Facts, policy: Policy, decision: Decision, locale: str = "en") -> Iterator[str]:
    """Line by line, what was decided and why."""
    return (say(line, locale) for line in tell(facts, policy, decision))


def tell(facts: Facts, policy: Policy, decision: Decision) -> list[Told]:
    """The same as data."""
    lines = [_payment(facts, policy, decision)]
    for rule in decision.rules:
        because = list(reasons(rule.when, facts, policy, decision))
        lines.append(_rule(rule, because))
    if not decision.rules:
        lines.append(["rule.none", {}])
    return [*lines, _outcome(decision)]


def say(told: Told, locale: str = "en") -> str:
    """One thing that was told, in words."""
    key, values = told
    words = _words(locale)
    if key in ("list", "reasons"):
        return str(words[key]).join(say(item, locale) for item in values["items"])
    if key == "as is":
        return str(values["text"])
    if key == "name":  # of a rule
        return str(words["rules"].get(values["text"], values["text"]))
    filled = {name: say(value, locale) if isinstance(value, list) else value for name, value in values.items()}
    return str(words[key]).format(**filled)


def outcome(decision: Decision, locale: str = "en") -> str:
    """The decision in one line."""
    return say(_outcome(decision), locale)


def rules(policy: Policy, locale: str = "en") -> Iterator[str]:
    """Line by line, a policy by itself."""
    for rule in policy.rules:
        yield say(_rule(rule, list(_conditions(rule.when, policy))), locale)


def reasons(when: When, facts: Facts, policy: Policy, decision: Decision) -> Iterator[Told]:
    """Why a rule that applied did, condition by condition."""
    local = local_time(facts.at, policy)
    if when.tiers is not None:
        yield ["because.tier", {"tier": [f"tier.{decision.tier}", {}]}]
    if when.other_currency_than is not None:
        yield ["because.currency", {"currency": facts.currency}]
    yield from _amounts(when)
    if when.kinds is not None:
        yield ["because.kind", {"kind": facts.kind}]
    if when.merchants is not None:
        yield ["because.merchant", {"merchant": facts.merchant}]
    if when.other_merchants_than is not None:
        yield ["because.other_merchant", {"merchant": facts.merchant}]
    if when.hours is not None:
        yield ["because.hours", {"time": f"{local:%H:%M}", "zone": policy.time_zone}]
    if when.weekdays is not None:
        yield ["because.weekday", {"weekday": [f"weekday.{local.isoweekday()}", {}]}]
    if when.new_payee is not None:
        yield _yes_or_no("new_payee", facts.new_payee)
    if when.destinations is not None:
        yield [f"because.{facts.destination}", {}]
    if when.attested is not None:
        yield _yes_or_no("attested", facts.attested)
    if when.voice is not None:
        yield _yes_or_no("voice", facts.voice)


def _conditions(when: When, policy: Policy) -> Iterator[Told]:
    """When a rule applies, condition by condition."""
    if when.tiers is not None:
        yield ["if.tiers", {"tiers": _list([f"tier.{tier}", {}] for tier in sorted(when.tiers))}]
    if when.other_currency_than is not None:
        yield ["if.other_currency", {"currency": when.other_currency_than}]
    amounts = list(_amounts(when))
    yield from amounts
    if when.currency is not None and not amounts:
        yield ["because.currency", {"currency": when.currency}]
    for key, names in (("kinds", when.kinds), ("merchants", when.merchants)):
        if names is not None:
            yield [f"if.{key}", {"names": _names(names)}]
    if when.other_merchants_than is not None:
        yield ["if.other_merchants", {"names": _names(when.other_merchants_than)}]
    if when.hours is not None:
        begins, ends = f"{when.hours.begins:%H:%M}", f"{when.hours.ends:%H:%M}"
        yield ["if.hours", {"begins": begins, "ends": ends, "zone": policy.time_zone}]
    if when.weekdays is not None:
        yield ["if.weekdays", {"weekdays": _list([f"weekday.{day}", {}] for day in sorted(when.weekdays))}]
    if when.destinations is not None:
        yield ["if.destinations", {"reasons": _list([f"because.{d}", {}] for d in sorted(when.destinations))}]
    for name, wanted in (("new_payee", when.new_payee), ("attested", when.attested), ("voice", when.voice)):
        if wanted is not None:
            yield _yes_or_no(name, wanted)


_YES_OR_NO = {
    "new_payee": ("because.new_payee", "because.known_payee"),
    "attested": ("because.attested", "because.unattested"),
    "voice": ("because.voice", "because.no_voice"),
}


def _yes_or_no(name: str, so: bool) -> Told:
    yes, no = _YES_OR_NO[name]
    return [yes if so else no, {}]


def _amounts(when: When) -> Iterator[Told]:
    for limit_minor, key in (
        (when.above_minor, "because.above"),
        (when.today_above_minor, "because.today"),
        (when.month_above_minor, "because.month"),
    ):
        if limit_minor is not None:
            assert when.currency is not None  # a rule about amounts names it
            yield [key, {"amount": format_amount(limit_minor, when.currency)}]


def _payment(facts: Facts, policy: Policy, decision: Decision) -> Told:
    values = {
        "amount": format_amount(facts.amount_minor, facts.currency),
        "merchant": facts.merchant,
        "tier": [f"tier.{decision.tier}", {}],
    }
    if facts.currency not in policy.tiers:
        return ["payment.no_tiers", {**values, "policy": policy.name, "currency": facts.currency}]
    raised = facts.destination is Destination.UNKNOWN and facts.amount_minor <= policy.tiers[facts.currency].small
    return ["payment.raised" if raised else "payment", values]


def _rule(rule: Rule, because: list[Told]) -> Told:
    values = {"name": ["name", {"text": rule.name}], "asks": _asks(rule)}
    return ["rule", {**values, "because": ["reasons", {"items": because}]}] if because else ["rule.always", values]


def _asks(rule: Rule) -> Told:
    if rule.refuse:
        return ["refuses", {}]
    return ["needs", {"what": _list([*_factors(rule.factors), *_persons(rule.approvals)])}]


def _outcome(decision: Decision) -> Told:
    if decision.refused:
        return ["refused", {"why": ["name", {"text": decision.refused}]}]
    missing = [*_factors(decision.factors), *_persons(decision.approvals)]
    return ["needed", {"what": _list(missing)}] if missing else ["allowed", {}]


def _factors(factors: Iterable[str]) -> list[Told]:
    return [[f"factor.{factor}", {}] for factor in sorted(factors)]


def _persons(approvals: Mapping[Role, str | int]) -> list[Told]:
    return [
        [f"{role}.all", {}]
        if how_many == "all"
        else [f"{role}.one", {}]
        if how_many in ("any", 1)
        else [f"{role}.some", {"how_many": str(how_many)}]
        for role, how_many in sorted(approvals.items())
    ]


def _list(items: Iterable[Told]) -> Told:
    return ["list", {"items": list(items)}]


def _names(names: Iterable[str]) -> Told:
    return _list(["as is", {"text": name}] for name in sorted(names))


@cache
def _words(locale: str) -> dict[str, Any]:
    with open(_HERE / f"{locale}.toml", "rb") as file:
        return tomllib.load(file)
