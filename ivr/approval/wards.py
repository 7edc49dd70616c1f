"""What a guardian sets for a ward on a page or by telephone, and the policy that it makes. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from ivr.approval.policy import Amount, Factor, Hours, Policy, Role, Rule, Tier, Tiers, When

ADVANCED = frozenset({Factor.VOICE, Factor.CHALLENGE, Factor.PIN})
"""Advanced verification: the voice, live, and the payment password besides."""

Merchants = Annotated[frozenset[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]
NAME = "ward"


class WardSettings(BaseModel):
    """The limits of a ward in one currency; other currencies always need a guardian and advanced verification."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = "USD"
    small: Amount = 2_000  # in minor units, as all amounts
    normal: Amount = 20_000
    guardians: Literal["any", "all"] | PositiveInt = "any"  # how many agree to what is more than small
    month: Amount | None = None  # above it, in a month, a guardian agrees to each payment
    blocked: Merchants = frozenset()  # never paid
    only: Merchants = frozenset()  # if any: a guardian agrees to payments to others
    night: Hours | None = None  # nothing is paid then
    time_zone: str = "UTC"


def policy_of(settings: WardSettings) -> Policy:
    """The policy with these limits. Raises pydantic's ValidationError, InvalidInput."""
    agree = {Role.GUARDIAN: settings.guardians}
    more_than_small = When(tiers=frozenset({Tier.NORMAL, Tier.LARGE}))
    rules = [
        Rule(name="guardians agree to more than small payments", when=more_than_small, approvals=agree),
        Rule(
            name="large payments need advanced verification",
            when=When(tiers=frozenset({Tier.LARGE})),
            factors=ADVANCED,
        ),
    ]
    if settings.month is not None:
        above = When(currency=settings.currency, month_above_minor=settings.month)
        rules.append(Rule(name="guardians agree above the month's limit", when=above, approvals=agree))
    if settings.blocked:
        rules.append(Rule(name="this merchant is blocked", when=When(merchants=settings.blocked), refuse=True))
    if settings.only:
        others = When(other_merchants_than=settings.only)
        rules.append(Rule(name="guardians agree to other merchants", when=others, approvals=agree))
    if settings.night is not None:
        rules.append(Rule(name="nothing is paid at this time of day", when=When(hours=settings.night), refuse=True))
    tiers = {settings.currency: Tiers(small=settings.small, normal=settings.normal)}
    return Policy(name=NAME, time_zone=settings.time_zone, tiers=tiers, rules=tuple(rules))


def settings_of(policy: Policy) -> WardSettings | None:
    """The limits that made this policy; None where it is of another kind, such as an operator's own."""
    if len(policy.tiers) != 1:
        return None
    [(currency, tiers)] = policy.tiers.items()
    whens = {rule.name: rule.when for rule in policy.rules}
    agree = [rule.approvals[Role.GUARDIAN] for rule in policy.rules if Role.GUARDIAN in rule.approvals]
    month = whens.get("guardians agree above the month's limit", When())
    blocked = whens.get("this merchant is blocked", When())
    only = whens.get("guardians agree to other merchants", When())
    night = whens.get("nothing is paid at this time of day", When())
    settings = WardSettings(
        currency=currency,
        small=tiers.small,
        normal=tiers.normal,
        guardians=agree[0] if agree else "any",
        month=month.month_above_minor,
        blocked=blocked.merchants or frozenset(),
        only=only.other_merchants_than or frozenset(),
        night=night.hours,
        time_zone=policy.time_zone,
    )
    return settings if policy_of(settings) == policy else None
