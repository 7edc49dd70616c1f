"""A decision in words: which rules had a say, why they applied, and what they ask for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ivr.approval.policy import Decision, Destination, Facts, Policy, Role, Rule, When, local_time
from ivr.customers.money import format_amount


def explain(facts: Facts, policy: Policy, decision: Decision) -> Iterator[str]:
    """Line by line, what was decided and why."""
    yield f"{format_amount(facts.amount_minor, facts.currency)} to {facts.merchant} is {_tier(facts, policy, decision)}"
    for rule in decision.rules:
        because = "; ".join(reasons(rule.when, facts, policy, decision))
        yield f"rule {rule.name!r}: {asks(rule)}" + (f", because {because}" if because else ", always")
    if not decision.rules:
        yield "no rule asks for more than the call does by itself"
    yield outcome(decision)


def outcome(decision: Decision) -> str:
    """The decision in one line."""
    if decision.refused:
        return f"refused: {decision.refused}"
    missing = [*sorted(decision.factors), *_persons(decision.approvals)]
    return "still needed: " + ", ".join(missing) if missing else "allowed"


def asks(rule: Rule) -> str:
    """What a rule asks for."""
    if rule.refuse:
        return "refuses"
    persons = _persons(rule.approvals)
    return "needs " + ", ".join([*sorted(rule.factors), *persons])


def reasons(when: When, facts: Facts, policy: Policy, decision: Decision) -> Iterator[str]:
    """Why a rule that applied did, condition by condition."""
    local = local_time(facts.at, policy)
    if when.tiers is not None:
        yield f"the amount is {decision.tier}"
    if when.other_currency_than is not None:
        yield f"it is in {facts.currency}"
    for limit_minor, what in (
        (when.above_minor, "the amount is"),
        (when.today_above_minor, "the day's payments are"),
        (when.month_above_minor, "the month's payments are"),
    ):
        if limit_minor is not None:
            yield f"{what} above {format_amount(limit_minor, facts.currency)}"
    if when.kinds is not None:
        yield f"the merchant's kind is {facts.kind}"
    if when.merchants is not None:
        yield f"the merchant is {facts.merchant}"
    if when.other_merchants_than is not None:
        yield f"{facts.merchant} is not on the list of merchants"
    if when.hours is not None:
        yield f"it is {local:%H:%M} in {policy.time_zone}"
    if when.weekdays is not None:
        yield f"it is a {local:%A}"
    if when.new_payee is not None:
        yield "the merchant was never paid before" if facts.new_payee else "the merchant was paid before"
    if when.destinations is not None:
        yield _DESTINATIONS[facts.destination]
    if when.attested is not None:
        yield f"the carrier {'vouches' if facts.attested else 'does not vouch'} for the number"
    if when.voice is not None:
        yield f"the voice was {'matched' if facts.voice else 'not matched'}"


_DESTINATIONS = {
    Destination.NONE: "nothing is shipped",
    Destination.KNOWN: "the address is known",
    Destination.UNKNOWN: "the address is new",
}


def _tier(facts: Facts, policy: Policy, decision: Decision) -> str:
    if facts.currency not in policy.tiers:
        return f"{decision.tier}: policy {policy.name!r} has no tiers in {facts.currency}"
    raised = facts.destination is Destination.UNKNOWN and facts.amount_minor <= policy.tiers[facts.currency].small
    return f"{decision.tier}" + (", as the address is new" if raised else "")


def _persons(approvals: Mapping[Role, str | int]) -> list[str]:
    return [
        f"all {role}s" if how_many == "all" else f"one {role}" if how_many in ("any", 1) else f"{how_many} {role}s"
        for role, how_many in sorted(approvals.items())
    ]
