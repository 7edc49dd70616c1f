"""The pure function, walked: every rule condition alone, every combination of tier, address and agreement."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivr.approval import policies
from ivr.approval.explain import explain
from ivr.approval.policy import (
    Decision,
    Destination,
    Evidence,
    Factor,
    Facts,
    Hours,
    Policy,
    Role,
    Rule,
    Tier,
    Tiers,
    When,
    decide,
    tier_of,
)
from ivr.approval.wards import ADVANCED, WardSettings, policy_of, settings_of

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)  # a Friday
TIERS = {"USD": Tiers(small=2_000, normal=20_000)}
G, S = Role.GUARDIAN, Role.SUPERVISOR


def facts(amount_minor: int = 1_000, **more: object) -> Facts:
    return Facts(**{"amount_minor": amount_minor, "currency": "USD", "merchant": "Bookshop", "at": NOON, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amount_minor", "destination", "tier"),
    [
        (1, Destination.NONE, Tier.SMALL),
        (2_000, Destination.NONE, Tier.SMALL),
        (2_000, Destination.KNOWN, Tier.SMALL),
        (2_000, Destination.UNKNOWN, Tier.NORMAL),
        (2_001, Destination.KNOWN, Tier.NORMAL),
        (20_000, Destination.UNKNOWN, Tier.NORMAL),
        (20_001, Destination.KNOWN, Tier.LARGE),
        (20_001, Destination.UNKNOWN, Tier.LARGE),
    ],
)
def test_tiers_by_amount_and_address(amount_minor: int, destination: Destination, tier: Tier) -> None:
    assert tier_of(facts(amount_minor, destination=destination), Policy(name="p", tiers=TIERS)) is tier


def test_in_a_currency_without_tiers_every_amount_is_large() -> None:
    assert tier_of(facts(1, currency="EUR"), Policy(name="p", tiers=TIERS)) is Tier.LARGE


@pytest.mark.parametrize(
    ("when", "fitting", "not_fitting"),
    [
        ({"tiers": ["small"]}, {}, {"amount_minor": 2_001}),
        ({"currency": "USD"}, {}, {"currency": "EUR"}),
        ({"other_currency_than": "USD"}, {"currency": "EUR"}, {}),
        ({"currency": "USD", "above_minor": 1_000}, {"amount_minor": 1_001}, {"amount_minor": 1_000}),
        ({"currency": "USD", "today_above_minor": 5_000}, {"spent_today_minor": 4_001}, {"spent_today_minor": 4_000}),
        ({"currency": "USD", "month_above_minor": 5_000}, {"spent_month_minor": 4_001}, {"spent_month_minor": 4_000}),
        ({"kinds": ["games"]}, {"kind": "games"}, {"kind": "books"}),
        ({"merchants": ["Bookshop"]}, {}, {"merchant": "Casino"}),
        ({"other_merchants_than": ["Bookshop"]}, {"merchant": "Casino"}, {}),
        ({"hours": {"begins": "11:00", "ends": "12:01"}}, {}, {"at": NOON.replace(minute=1)}),
        ({"hours": {"begins": "22:00", "ends": "06:00"}}, {"at": NOON.replace(hour=23)}, {}),
        ({"hours": {"begins": "22:00", "ends": "06:00"}}, {"at": NOON.replace(hour=5)}, {"at": NOON.replace(hour=6)}),
        ({"weekdays": [5]}, {}, {"at": NOON.replace(day=28)}),
        ({"new_payee": True}, {"new_payee": True}, {"new_payee": False}),
        ({"destinations": ["unknown"]}, {"destination": Destination.UNKNOWN}, {"destination": Destination.KNOWN}),
        ({"attested": False}, {"attested": False}, {"attested": True}),
        ({"voice": True}, {"voice": True}, {"voice": False}),
    ],
)
def test_each_condition_alone(
    when: dict[str, object], fitting: dict[str, object], not_fitting: dict[str, object]
) -> None:
    rule = Rule(name="r", when=When.model_validate_json(json.dumps(when)), refuse=True)
    policy = Policy(name="p", tiers=TIERS, rules=(rule,))
    decision = decide(facts(**fitting), Evidence(), policy)
    assert decision.refused == "r"
    assert decide(facts(**not_fitting), Evidence(), policy).allowed
    # In words: as many reasons as conditions; the currency of an amount is said with the amount.
    line = list(explain(facts(**fitting), policy, decision))[1]
    assert line.startswith("rule 'r': refuses, because " if when != {"currency": "USD"} else "rule 'r': refuses")


def test_the_clock_and_the_calendar_are_the_policys() -> None:
    night = Rule(name="night", when=When(hours=Hours(begins="22:00", ends="06:00")), refuse=True)  # type: ignore[arg-type]
    saturday = Rule(name="saturday", when=When(weekdays=frozenset({6})), refuse=True)
    late = facts(at=NOON.replace(hour=21, minute=30))
    assert decide(late, Evidence(), Policy(name="p", rules=(night, saturday))).allowed
    berlin = Policy(name="p", time_zone="Europe/Berlin", rules=(night, saturday))
    assert decide(late, Evidence(), berlin).refused == "night"
    tokyo = Policy(name="p", time_zone="Asia/Tokyo", rules=(saturday,))
    assert decide(late, Evidence(), tokyo).refused == "saturday"


@pytest.mark.parametrize(
    ("want", "appointed", "approved", "missing", "possible"),
    [
        ("any", "", "", 1, False),
        ("any", "a", "", 1, True),
        ("any", "ab", "b", 0, True),
        ("all", "", "", 1, False),
        ("all", "ab", "a", 1, True),
        ("all", "ab", "ab", 0, True),
        (2, "abc", "a", 1, True),
        (2, "abc", "ac", 0, True),
        (2, "a", "a", 1, False),
        ("any", "a", "z", 1, True),  # who is not appointed any more does not count
    ],
)
def test_any_all_or_some_of_several(
    want: str | int, appointed: str, approved: str, missing: int, possible: bool
) -> None:
    policy = Policy(name="p", rules=(Rule(name="r", approvals={G: want}),))  # type: ignore[dict-item]
    evidence = Evidence(approved={G: frozenset(approved)}, appointed={G: frozenset(appointed)})
    decision = decide(facts(), evidence, policy)
    assert decision.approvals == ({G: missing} if missing else {})
    assert (decision.refused is None) == possible


def test_a_backup_stands_in_for_another_and_does_not_count_among_all() -> None:
    policy = Policy(name="p", rules=(Rule(name="r", approvals={G: "all"}),))
    appointed, backups = {G: frozenset("ab")}, {G: frozenset("b"), S: frozenset("a")}
    waiting = decide(facts(), Evidence(appointed=appointed, backups=backups), policy)
    assert waiting.approvals == {G: 1}
    assert decide(facts(), Evidence(approved={G: frozenset("b")}, appointed=appointed, backups=backups), policy).allowed


FACTORS: list[frozenset[Factor]] = [
    frozenset(), frozenset({Factor.VOICE, Factor.CHALLENGE}), ADVANCED, frozenset({Factor.KEYED_CARD, Factor.PIN}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("amount_minor", "destination", "factors", "agrees"),
    list(product([1_000, 10_000, 30_000], Destination, FACTORS, [False, True])),
)
def test_every_combination_of_the_shipped_ward_policy(
    amount_minor: int, destination: Destination, factors: frozenset[Factor], agrees: bool
) -> None:
    approved = {G: frozenset("g")} if agrees else {}
    evidence = Evidence(factors=factors, approved=approved, appointed={G: frozenset("g")})
    decision = decide(facts(amount_minor, destination=destination), evidence, policies.WARD)
    small = amount_minor == 1_000 and destination is not Destination.UNKNOWN
    large = amount_minor == 30_000
    assert decision.approvals == ({} if small or agrees else {G: 1})
    assert decision.factors == (ADVANCED - factors if large else frozenset())
    assert decision.allowed == ((small or agrees) and (not large or factors >= ADVANCED))
    assert decision.refused is None


def test_the_answer_to_the_challenge_is_a_spoken_yes() -> None:
    policy = Policy(name="p", rules=(Rule(name="r", factors=frozenset({Factor.SPOKEN_YES})),))
    assert decide(facts(), Evidence(frozenset({Factor.CHALLENGE})), policy).allowed
    assert decide(facts(), Evidence(frozenset({Factor.KEY})), policy).factors == {Factor.SPOKEN_YES}


_RULES = st.builds(
    Rule,
    name=st.sampled_from(["a", "b", "c"]),
    when=st.builds(When, tiers=st.none() | st.frozensets(st.sampled_from(Tier))),
    factors=st.frozensets(st.sampled_from(Factor), min_size=1),
    approvals=st.dictionaries(st.sampled_from(Role), st.sampled_from(["any", "all", 1, 2])),
    refuse=st.booleans(),
)
_EVIDENCE = st.builds(
    Evidence,
    factors=st.frozensets(st.sampled_from(Factor)),
    approved=st.dictionaries(st.sampled_from(Role), st.frozensets(st.sampled_from("abc"))),
    appointed=st.dictionaries(st.sampled_from(Role), st.frozensets(st.sampled_from("abc"))),
)


@given(st.lists(_RULES, max_size=5), _RULES, _EVIDENCE, st.sampled_from([1_000, 10_000, 30_000]))
def test_order_means_nothing_and_a_rule_more_only_asks_for_more(
    rules: list[Rule], more: Rule, evidence: Evidence, amount_minor: int
) -> None:
    def decided(*of: Rule) -> Decision:
        return decide(facts(amount_minor), evidence, Policy(name="p", tiers=TIERS, rules=of))

    before, after, turned = decided(*rules), decided(*rules, more), decided(*reversed([*rules, more]))
    assert (after.factors, after.approvals, after.refused is None) == (
        turned.factors, turned.approvals, turned.refused is None,
    )  # fmt: skip
    assert before.factors <= after.factors
    assert all(after.approvals.get(role, 0) >= missing for role, missing in before.approvals.items())
    assert not (before.refused and not after.refused)


@given(st.lists(_RULES, max_size=5), _EVIDENCE, st.frozensets(st.sampled_from(Factor)))
def test_more_evidence_never_asks_for_more(rules: list[Rule], evidence: Evidence, factors: frozenset[Factor]) -> None:
    policy = Policy(name="p", tiers=TIERS, rules=tuple(rules))
    less = decide(facts(), evidence, policy)
    richer = Evidence(evidence.factors | factors, evidence.appointed, evidence.appointed)
    more = decide(facts(), richer, policy)
    assert more.factors <= less.factors
    assert all(more.approvals.get(role, 0) <= less.approvals.get(role, 0) for role in Role)


def test_a_policy_survives_being_stored() -> None:
    settings = WardSettings(
        month=50_000, blocked=frozenset({"Casino"}), only=frozenset({"Bookshop"}), guardians=2,
        night=Hours(begins="22:00", ends="06:00"), time_zone="Europe/Berlin",  # type: ignore[arg-type]
    )  # fmt: skip
    policy = policy_of(settings)
    assert policies.parse(json.dumps(policies.dump(policy))) == policy
    assert settings_of(policy) == settings
    assert settings_of(policies.WARD) == WardSettings()
    assert settings_of(Policy(name="p", tiers=TIERS)) is None


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("nonsense", "Invalid JSON"),
        ({}, "name"),
        ({"name": "p", "surprise": 1}, "surprise"),
        ({"name": "p", "time_zone": "Mars/Olympus"}, "time zone"),
        ({"name": "p", "tiers": {"XYZ": {"small": 1, "normal": 2}}}, "XYZ"),
        ({"name": "p", "tiers": {"USD": {"small": 3, "normal": 2}}}, "small tier"),
        ({"name": "p", "rules": [{"name": "r"}]}, "asks for nothing"),
        ({"name": "p", "rules": [{"name": "r", "refuse": True, "when": {"above_minor": 5}}]}, "currency"),
        ({"name": "p", "rules": [{"name": "r", "approvals": {"guardian": 0}}]}, "rules.0.approvals"),
        ({"name": "p", "rules": [{"name": "r", "factors": ["telepathy"]}]}, "rules.0.factors"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_what_is_wrong(document: object, says: str) -> None:
    with pytest.raises(policies.InvalidPolicy, match=says):
        policies.parse(document)  # type: ignore[arg-type]


def test_explained_in_words() -> None:
    evidence = Evidence(frozenset({Factor.VOICE}), appointed={G: frozenset("g")})
    of = facts(30_000, destination=Destination.UNKNOWN)
    lines = list(explain(of, policies.WARD, decide(of, evidence, policies.WARD)))
    assert lines == [
        "USD 300.00 to Bookshop is large",
        "rule 'guardians agree to more than small payments': needs one guardian, because the amount is large",
        "rule 'large payments need advanced verification': needs challenge, pin, voice, because the amount is large",
        "still needed: challenge, pin, one guardian",
    ]
    raised = facts(1_000, destination=Destination.UNKNOWN)
    assert next(explain(raised, policies.WARD, decide(raised, evidence, policies.WARD))) == (
        "USD 10.00 to Bookshop is normal, as the address is new"
    )
