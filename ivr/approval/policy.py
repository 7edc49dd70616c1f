"""What a payment needs before it is made, as rules: one pure function, no store and no clock.

A policy splits payments into tiers by amount and currency. Each of its rules says when it applies, and which
factors and whose approvals it then needs, or that the payment is refused. Every rule that applies counts, so that
their order means nothing and a rule more can only ask for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from ivr.customers.errors import InvalidInput
from ivr.customers.money import MOST_MINOR, check_currency


class Tier(StrEnum):
    """How much a payment is, to this payer."""

    SMALL = "small"
    NORMAL = "normal"
    LARGE = "large"


class Destination(StrEnum):
    """Where a payment's goods go."""

    NONE = "none"  # nothing is shipped
    KNOWN = "known"
    UNKNOWN = "unknown"


class Factor(StrEnum):
    """One piece of evidence that the payer gave; the strings are those of a payment's record."""

    ATTESTATION = "attestation"  # the carrier vouches for the caller's number
    SPOKEN_CARD = "spoken card"
    KEYED_CARD = "keyed card"
    VOICE = "voice"
    CHALLENGE = "challenge"  # fresh digits, said by the voice that spoke before, to pay what was read
    PIN = "pin"  # the payment password
    KEY = "key"  # a key pressed to confirm
    SPOKEN_YES = "spoken yes"


IMPLIED: Mapping[Factor, Factor] = {Factor.CHALLENGE: Factor.SPOKEN_YES}
"""She who says the digits to pay what was read to her has said yes aloud."""


class Role(StrEnum):
    """Who agrees besides the payer."""

    GUARDIAN = "guardian"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True)
class Facts:
    """One payment, as far as rules look at it."""

    amount_minor: int
    currency: str  # ISO 4217
    merchant: str
    at: datetime  # aware
    kind: str = ""  # the merchant's kind of trade, as the operator names it
    spent_today_minor: int = 0  # in this currency, without this payment; days are the policy's
    spent_month_minor: int = 0
    new_payee: bool = False
    destination: Destination = Destination.NONE
    attested: bool = False
    voice: bool = False  # whether the payer's voice was matched


@dataclass(frozen=True)
class Evidence:
    """What was given so far, and by whom more could be given."""

    factors: frozenset[Factor] = frozenset()
    approved: Mapping[Role, frozenset[str]] = field(default_factory=dict)  # who agreed; ids of any kind
    appointed: Mapping[Role, frozenset[str]] = field(default_factory=dict)  # who may agree
    backups: Mapping[Role, frozenset[str]] = field(default_factory=dict)  # of these: who does not count among "all"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _checked(currency: str) -> str:
    try:
        check_currency(currency)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return currency


Currency = Annotated[str, AfterValidator(_checked)]
Amount = Annotated[int, Field(ge=0, le=MOST_MINOR)]


class Tiers(_Data):
    """Where tiers end, in minor units: up to ``small``, above it up to ``normal``, and above that."""

    small: Amount
    normal: Amount

    @model_validator(mode="after")
    def _ordered(self) -> Tiers:
        if self.small > self.normal:
            raise ValueError("the small tier ends above the normal one")
        return self


class Hours(_Data):
    """A time of day, of the policy's time zone; over midnight when it ends before it begins."""

    begins: time
    ends: time  # not included

    @model_validator(mode="after")
    def _of_the_policys_zone(self) -> Hours:
        if self.begins.tzinfo or self.ends.tzinfo:
            raise ValueError("hours are of the policy's time zone, and name none")
        if self.begins == self.ends:
            raise ValueError("hours end when they begin")
        return self

    def hold(self, moment: time) -> bool:
        if self.begins <= self.ends:
            return self.begins <= moment < self.ends
        return moment >= self.begins or moment < self.ends


class When(_Data):
    """The payments that a rule is for: those that fit everything which is given here."""

    tiers: frozenset[Tier] | None = None
    currency: Currency | None = None  # of the amounts below; a payment in another currency does not fit
    other_currency_than: Currency | None = None
    above_minor: Amount | None = None
    today_above_minor: Amount | None = None  # with this payment
    month_above_minor: Amount | None = None
    kinds: frozenset[str] | None = None  # in any case, as merchants are
    merchants: frozenset[str] | None = None
    other_merchants_than: frozenset[str] | None = None
    hours: Hours | None = None
    weekdays: frozenset[Annotated[int, Field(ge=1, le=7)]] | None = None  # 1 is Monday
    new_payee: bool | None = None
    destinations: frozenset[Destination] | None = None
    attested: bool | None = None
    voice: bool | None = None

    @model_validator(mode="after")
    def _amounts_have_a_currency(self) -> When:
        amounts = (self.above_minor, self.today_above_minor, self.month_above_minor)
        if any(amount is not None for amount in amounts) and self.currency is None:
            raise ValueError("a rule about amounts names their currency")
        return self

    def fits(self, facts: Facts, tier: Tier, local: datetime) -> bool:
        """Whether the payment, at this local time, is one of those. Without conditions every payment is."""
        return (
            (self.tiers is None or tier in self.tiers)
            and (self.currency is None or facts.currency == self.currency)
            and (self.other_currency_than is None or facts.currency != self.other_currency_than)
            and _above(facts.amount_minor, self.above_minor)
            and _above(facts.spent_today_minor + facts.amount_minor, self.today_above_minor)
            and _above(facts.spent_month_minor + facts.amount_minor, self.month_above_minor)
            and (self.kinds is None or _among(facts.kind, self.kinds))
            and (self.merchants is None or _among(facts.merchant, self.merchants))
            and (self.other_merchants_than is None or not _among(facts.merchant, self.other_merchants_than))
            and (self.hours is None or self.hours.hold(local.time()))
            and (self.weekdays is None or local.isoweekday() in self.weekdays)
            and (self.new_payee is None or facts.new_payee == self.new_payee)
            and (self.destinations is None or facts.destination in self.destinations)
            and (self.attested is None or facts.attested == self.attested)
            and (self.voice is None or facts.voice == self.voice)
        )


def _among(name: str, names: frozenset[str]) -> bool:
    return _plain(name) in _plain_names(names)


@lru_cache(maxsize=1024)
def _plain_names(names: frozenset[str]) -> frozenset[str]:
    return frozenset(map(_plain, names))


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _above(amount_minor: int, limit_minor: int | None) -> bool:
    return limit_minor is None or amount_minor > limit_minor


class Rule(_Data):
    """When it applies, what is needed: all of ``factors``, and of each role's appointees as many as given."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    when: When = When()
    factors: frozenset[Factor] = frozenset()
    approvals: Mapping[Role, Literal["any", "all"] | PositiveInt] = Field(default_factory=dict)
    refuse: bool = False

    @model_validator(mode="after")
    def _asks_for_something(self) -> Rule:
        if not (self.factors or self.approvals or self.refuse):
            raise ValueError(f"the rule {self.name!r} asks for nothing")
        return self


class Policy(_Data):
    """The rules of one payer. In a currency without tiers every amount is large."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    time_zone: str = "UTC"
    tiers: Mapping[Currency, Tiers] = Field(default_factory=dict)
    rules: Annotated[tuple[Rule, ...], Field(max_length=200)] = ()

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, given: str) -> str:
        if given not in available_timezones():
            raise ValueError(f"{given!r} is no IANA time zone, such as Europe/Berlin")
        return given


@dataclass(frozen=True)
class Decision:
    """What a payment still needs. ``rules`` is why: every rule that had a say (``ivr.approval.explain``)."""

    tier: Tier
    factors: frozenset[Factor] = frozenset()  # missing
    approvals: Mapping[Role, int] = field(default_factory=dict)  # how many are missing
    refused: str | None = None  # why nothing can help: a rule's name, or words of ``ivr.approval.words``
    rules: tuple[Rule, ...] = ()

    @property
    def allowed(self) -> bool:
        return not (self.refused or self.factors or self.approvals)


def tier_of(facts: Facts, policy: Policy) -> Tier:
    """The tier of the amount; a small payment to an unknown address is judged as a normal one."""
    tiers = policy.tiers.get(facts.currency)
    if tiers is None or facts.amount_minor > tiers.normal:
        return Tier.LARGE
    if facts.amount_minor > tiers.small or facts.destination is Destination.UNKNOWN:
        return Tier.NORMAL
    return Tier.SMALL


def decide(facts: Facts, evidence: Evidence, policy: Policy) -> Decision:
    """Whether the payment may be made on this evidence, what it still needs, and by which rules."""
    tier, local = tier_of(facts, policy), local_time(facts.at, policy)
    rules = tuple(rule for rule in policy.rules if rule.when.fits(facts, tier, local))
    given = evidence.factors | {IMPLIED[f] for f in evidence.factors if f in IMPLIED}
    factors = frozenset(factor for rule in rules for factor in rule.factors) - given
    refused = next((rule.name for rule in rules if rule.refuse), None)
    approvals: dict[Role, int] = {}
    for role in Role:
        appointed = evidence.appointed.get(role, frozenset())
        wanted = [rule.approvals[role] for rule in rules if role in rule.approvals]
        all_of_them = len(appointed - evidence.backups.get(role, frozenset()))
        needed = max((_how_many(want, all_of_them) for want in wanted), default=0)
        if needed > len(appointed):
            refused = refused or f"more {role}s must agree than there are"
        missing = needed - len(evidence.approved.get(role, frozenset()) & appointed)
        if missing > 0:
            approvals[role] = missing
    return Decision(tier, factors, approvals, refused, rules)


def _how_many(want: str | int, appointed: int) -> int:
    if want == "any":
        return 1
    return max(1, appointed) if want == "all" else int(want)


def local_time(moment: datetime, policy: Policy) -> datetime:
    """A moment by the policy's clock."""
    return moment.astimezone(ZoneInfo(policy.time_zone))
