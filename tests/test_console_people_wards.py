"""What guardians and supervisors set on the pages, and what payers set for themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from people_support import OTHER_PIN, PIN, WRONG_PIN, Browser, add_person, appoint, now, pay, sent
from sqlalchemy import select

from ivr.approval import addresses, appointments, minors, policies
from ivr.approval.models import Appointment, Standing, Tell
from ivr.approval.policy import Factor, Hours, Policy, Role, Rule, When
from ivr.approval.wards import WardSettings, policy_of, settings_of
from ivr.call import bill_calls
from ivr.console.people import limits
from ivr.console.people.words import texts
from ivr.customers import pins
from ivr.customers.models import Audit, Consent, Customer, Pin, VoiceprintRow
from ivr.customers.voiceprints import guardians_consent
from ivr.keys import Keyring
from ivr.speech.pan import luhn_check_digit
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]

EN, ZH = texts("en"), texts("zh")
LIMITS = {
    "currency": "USD", "small": "15", "normal": "150.50", "guardians": "any", "month": "", "blocked": "", "only": "",
    "begins": "", "ends": "", "time_zone": "UTC", "version": "0",
}  # fmt: skip


class Family:
    """A ward, her guardian and her supervisor; the guardian is signed in."""

    def __init__(self, database: Database, keyring: Keyring, browser: Browser, *, minor: bool = False) -> None:
        self.database = database
        with database.transaction() as session:
            self.ward = add_person(session, keyring, minor=minor)
            self.guardian = add_person(session, keyring, pin=OTHER_PIN)
            self.supervisor = add_person(session, keyring, pin=OTHER_PIN)
            self.as_guardian = appoint(session, Role.GUARDIAN, self.ward, self.guardian)
            self.as_supervisor = appoint(session, Role.SUPERVISOR, self.ward, self.supervisor)
        self.path, self.browser = f"/my/wards/{self.as_guardian}", browser
        browser.sign_in(self.guardian)

    def post(self, what: str, pin: str = OTHER_PIN, **form: str) -> int:
        self.browser.get(f"{self.path}/{what}")
        return self.browser.post(f"{self.path}/{what}", pin=pin, **form).status_code

    def settings(self) -> WardSettings | None:
        with self.database.transaction() as session:
            return settings_of(policies.own(session, self.ward.id)[1] or policies.WARD)

    def audited(self) -> list[str]:
        with self.database.transaction() as session:
            who = f"customer {self.guardian.id}"
            found = select(Audit.what).where(Audit.subject == self.ward.id, Audit.who == who).order_by(Audit.at)
            return [what for what in session.scalars(found) if what != "guardian.accepted"]


@pytest.fixture
def family(database: Database, keyring: Keyring, browser: Browser) -> Family:
    return Family(database, keyring, browser)


@pytest.fixture
def minors_family(database: Database, keyring: Keyring, browser: Browser) -> Family:
    return Family(database, keyring, browser, minor=True)


def test_a_guardian_changes_limits_and_merchants(family: Family) -> None:
    given = LIMITS | {
        "month": "1000", "only": "City Water\n Corner Shop \n", "blocked": "Casino", "begins": "22:00",
        "ends": "06:30", "time_zone": "Asia/Shanghai",
    }  # fmt: skip
    family.post("limits", **given)
    assert EN["said.limits"] in family.browser.text
    assert family.settings() == WardSettings(
        currency="USD",
        small=1_500,
        normal=15_050,
        month=100_000,
        only=frozenset({"City Water", "Corner Shop"}),
        blocked=frozenset({"Casino"}),
        night=Hours.model_validate({"begins": "22:00", "ends": "06:30"}),
        time_zone="Asia/Shanghai",
    )
    assert family.audited() == ["policy.changed"]
    family.browser.get(f"{family.path}/limits")
    for shown in ('value="150.50"', "City Water\nCorner Shop", "Casino", 'value="22:00"', 'value="Asia/Shanghai"'):
        assert shown in family.browser.text


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("currency", "XYZ", "error.currency"),
        ("small", "lots", "error.amount"),
        ("small", "-1", "error.amount"),
        ("small", "1.234", "error.amount"),
        ("small", "9999", "error.tiers"),
        ("month", "x", "error.amount"),
        ("guardians", "2", "error.guardians"),
        ("guardians", "0", "error.guardians"),
        ("guardians", "some", "error.guardians"),
        ("only", "x" * 201, "error.merchants"),
        ("only", "4539 1488 0343 6467", "error.merchants"),
        ("blocked", "\n".join(f"M{n}" for n in range(101)), "error.merchants"),
        ("begins", "22:00", "error.night"),
        ("time_zone", "Mars/Base", "error.time_zone"),
        ("version", "7", "error.changed_meanwhile"),
        ("pin", WRONG_PIN, "error.pin"),
    ],
)
def test_limits_that_cannot_be_are_refused_and_shown_again(
    family: Family, field: str, value: str, error: str
) -> None:
    assert family.post("limits", **{"pin": OTHER_PIN, **LIMITS, "normal": "77", field: value}) == 422
    assert EN[error] in family.browser.text
    assert 'value="77"' in family.browser.text  # nothing has to be typed again
    assert family.settings() == WardSettings()


def test_an_operators_own_policy_is_told_in_words_and_not_changed(family: Family, database: Database) -> None:
    theirs = Policy(
        name="own",
        tiers=policies.WARD.tiers,
        rules=(
            Rule(name="no fun", when=When(kinds=frozenset({"casino"}), weekdays=frozenset({6, 7})), refuse=True),
            Rule(
                name="voice",
                when=When(currency="USD", above_minor=5_000, new_payee=True),
                factors=frozenset({Factor.VOICE}),
            ),
        ),
    )
    with database.transaction() as session:
        policies.put(session, family.ward.id, theirs, who="operator", now=now())
    family.browser.get(f"{family.path}/limits")
    for told in (
        "rule 'no fun': refuses, because the merchant's kind is one of: casino; it is one of: Saturday, Sunday",
        "rule 'voice': needs voice, because the amount is above USD 50.00; the merchant was never paid before",
        EN["limits.tiers"].format(currency="USD", small="USD 20.00", normal="USD 200.00"),
    ):
        assert told in family.browser.text
    assert family.post("limits", **LIMITS) == 409
    with database.transaction() as session:
        assert policies.own(session, family.ward.id) == (1, theirs)


def test_the_address_book_is_kept(family: Family, database: Database) -> None:
    def book() -> list[tuple[int, str, str]]:
        with database.transaction() as session:
            return [(a.number, a.label, a.text) for a in addresses.book(session, family.ward.id)]

    assert family.post("addresses", label="Home", text="1 Main Street") == 200
    assert family.post("addresses", label="Shop", text="2 Side Street") == 200
    assert book() == [(1, "Home", "1 Main Street"), (2, "Shop", "2 Side Street")]
    assert family.post("addresses", label="", text="3 Side Street") == 422
    assert EN["error.address"] in family.browser.text
    assert family.post("addresses", label="Card", text="4539 1488 0343 6467") == 422
    assert family.post("addresses", pin=WRONG_PIN, remove="1") == 422
    assert family.post("addresses", remove="7") == 422
    assert EN["error.address_gone"] in family.browser.text
    assert family.post("addresses", remove="1") == 200
    assert book() == [(2, "Shop", "2 Side Street")]
    for n in range(addresses.MOST - 1):
        family.post("addresses", label=f"A{n}", text=f"{n} Long Street")
    assert EN["addresses.full"].format(most=addresses.MOST) in family.browser.text
    assert family.post("addresses", label="More", text="9 Wide Street") == 422
    assert EN["error.addresses_full"] in family.browser.text
    assert family.audited() == ["address.added"] * 2 + ["address.removed"] + ["address.added"] * (addresses.MOST - 1)


@pytest.mark.parametrize("tell", Tell)
def test_how_to_be_told_is_chosen(family: Family, database: Database, tell: Tell) -> None:
    family.post("telling", tell=tell.value)
    assert EN["said.telling"] in family.browser.text
    with database.transaction() as session:
        assert session.get_one(Appointment, family.as_guardian).tell is tell
    assert family.audited() == ["appointment.tell"]


def test_a_minors_voiceprint_has_its_guardians_consent_until_withdrawn(
    minors_family: Family, database: Database
) -> None:
    family = minors_family
    family.post("voice")
    assert EN["said.voice_consented"] in family.browser.text
    with database.transaction() as session:
        given = guardians_consent(session, family.ward.id)
        assert given is not None
        assert (given.kind, given.text_version) == ("minor_voiceprint", minors.TEXT_VERSION)
        assert given.channel == f"page, customer {family.guardian.id}"
        own = Consent(
            customer_id=family.ward.id, kind="voiceprint", text_version="1", given_at=now(), channel="call"
        )
        session.add(own)
        session.flush()
        session.add(
            VoiceprintRow(
                customer_id=family.ward.id,
                consent_id=own.id,
                model_id="m",
                sample_rate=8000,
                channel="phone",
                sealed=b"x",
                created_at=now(),
                provisional_until=now(),
            )
        )
    family.post("voice", withdraw="1")
    assert EN["said.voice_withdrawn"] in family.browser.text
    with database.transaction() as session:
        assert guardians_consent(session, family.ward.id) is None
        assert session.scalars(select(VoiceprintRow)).all() == []
    assert family.audited() == ["minor_voiceprint.consented", "minor_voiceprint.withdrawn"]


def test_an_adults_voice_is_not_for_the_guardian_to_decide(family: Family) -> None:
    assert family.browser.get(f"{family.path}/voice").status_code == 404
    family.browser.get(family.path)
    assert EN["ward.voice"] not in family.browser.text


def test_a_guardian_resigns_at_once_and_the_ward_is_told(family: Family, database: Database, keyring: Keyring) -> None:
    family.post("end", pin=WRONG_PIN)
    assert EN["error.pin"] in family.browser.text
    family.post("end")
    assert EN["said.resigned"] in family.browser.text
    with database.transaction() as session:
        assert session.get_one(Appointment, family.as_guardian).standing is Standing.ENDED
    sent(database, family.ward, "guardian.ending", keyring)
    assert family.browser.get(family.path).status_code == 404


def test_a_supervisor_sets_how_she_is_told_and_resigns_no_more(
    family: Family, new_browser: Callable[[], Browser], database: Database
) -> None:
    browser, path = new_browser(), f"/my/wards/{family.as_supervisor}"
    browser.sign_in(family.supervisor)
    for what in ("limits", "addresses", "voice", "freeze"):
        assert browser.get(f"{path}/{what}").status_code == 404
        browser.get(path)
        assert browser.post(f"{path}/{what}", pin=OTHER_PIN, **LIMITS).status_code in (404, 405)
        assert f"{path}/{what}" not in browser.text
    assert EN["ward.payments"] not in browser.text
    browser.get(f"{path}/telling")
    browser.post(f"{path}/telling", tell="digest", pin=OTHER_PIN)
    assert EN["said.telling"] in browser.text
    browser.get(f"{path}/end")
    browser.post(f"{path}/end", pin=OTHER_PIN)
    assert EN["said.resigned"] in browser.text
    with database.transaction() as session:
        assert session.get_one(Appointment, family.as_supervisor).standing is Standing.ENDED


def test_recent_payments_say_which_rule_decided_then(family: Family, database: Database) -> None:
    with database.transaction() as session:
        pay(session, family.ward, merchant="City Water")
        policies.put(session, family.ward.id, policy_of(WardSettings(small=0, normal=0)), who="test", now=now())
        session.get_one(Customer, family.guardian.id).locale = "zh"
    family.browser.get(family.path)
    assert "规则“小额以上须经监护人同意”:需要一位监护人同意,因为这是普通金额" in family.browser.text
    assert ZH["payment.awaiting"] in family.browser.text


# Payers.


def browse(new: Callable[[], Browser], customer: Customer) -> Browser:
    browser = new()
    browser.sign_in(customer)
    return browser


def name(browser: Browser, number: str, pin: str = PIN, **more: str) -> int:
    browser.get("/my/me/supervisor")
    return browser.post("/my/me/supervisor", number=number, label="Mother", pin=pin, **more).status_code


def supervisors(database: Database, ward: Customer) -> list[Appointment]:
    with database.transaction() as session:
        found = select(Appointment).where(Appointment.ward_id == ward.id, Appointment.role == Role.SUPERVISOR)
        return list(session.scalars(found.order_by(Appointment.proposed_at)))


@pytest.fixture
def payer(database: Database, keyring: Keyring) -> Customer:
    with database.transaction() as session:
        return add_person(session, keyring)


@pytest.fixture
def friend(database: Database, keyring: Keyring) -> Customer:
    with database.transaction() as session:
        return add_person(session, keyring, pin=OTHER_PIN)


def test_a_payer_names_a_supervisor_who_accepts(
    new_browser: Callable[[], Browser], database: Database, payer: Customer, friend: Customer
) -> None:
    hers = browse(new_browser, payer)
    name(hers, friend.number, amount="100", currency="usd")
    assert EN["said.named"] in hers.text
    assert EN["me.proposed"] in hers.text
    [proposed] = supervisors(database, payer)
    assert (proposed.standing, proposed.currency, proposed.above_minor) == (Standing.PROPOSED, "USD", 10_000)
    theirs = browse(new_browser, friend)
    theirs.get("/my/wards")
    assert f"/my/appointments/{proposed.id}" in theirs.text
    theirs.get(f"/my/appointments/{proposed.id}")
    assert EN["ward.above"].format(amount="USD 100.00") in theirs.text
    theirs.post(f"/my/appointments/{proposed.id}", decision="accept", pin=OTHER_PIN)
    assert EN["said.accepted"] in theirs.text
    [accepted] = supervisors(database, payer)
    assert accepted.standing is Standing.ACTIVE


def test_who_is_a_customer_is_not_told_by_naming(
    new_browser: Callable[[], Browser], database: Database, keyring: Keyring, payer: Customer
) -> None:
    with database.transaction() as session:
        new = add_person(session, keyring, days=1)  # whose telephone is not settled
    body = "765432"
    said = []
    for number in (new.number, body + luhn_check_digit(body), payer.number, "12"):
        browser = browse(new_browser, payer)
        assert name(browser, number) == 422
        said.append(EN["error.supervisor"] in browser.text)
    assert said == [True] * 4
    assert supervisors(database, payer) == []


def test_naming_is_limited(new_browser: Callable[[], Browser], payer: Customer) -> None:
    browser = browse(new_browser, payer)
    answers = [name(browser, f"{n:07d}") for n in range(limits.NAMED_A_DAY + 1)]
    assert answers == [422] * limits.NAMED_A_DAY + [429]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"pin": WRONG_PIN}, "error.pin"),
        ({"amount": "10", "currency": "XXQ"}, "error.currency"),
        ({"amount": "ten", "currency": "USD"}, "error.amount"),
    ],
)
def test_a_supervisor_is_not_named_by_what_cannot_be(
    new_browser: Callable[[], Browser],
    database: Database,
    payer: Customer,
    friend: Customer,
    form: dict[str, Any],
    error: str,
) -> None:
    browser = browse(new_browser, payer)
    assert name(browser, friend.number, **form) == 422
    assert EN[error] in browser.text
    assert f'value="{friend.number}"' in browser.text
    assert supervisors(database, payer) == []


def test_whoever_has_a_supervisor_names_no_other_here(
    new_browser: Callable[[], Browser], database: Database, keyring: Keyring, payer: Customer, friend: Customer
) -> None:
    with database.transaction() as session:
        helper = add_person(session, keyring)
        appoint(session, Role.SUPERVISOR, payer, friend)
    browser = browse(new_browser, payer)
    browser.get("/my/me")
    assert EN["me.name"] not in browser.text
    browser.get("/my/me/supervisor")
    assert browser.post("/my/me/supervisor", number=helper.number, label="M", pin=PIN).status_code == 422
    assert EN["error.supervised"] in browser.text
    assert len(supervisors(database, payer)) == 1


def test_a_supervisors_part_ends_after_a_wait_and_they_are_told(
    new_browser: Callable[[], Browser], database: Database, keyring: Keyring, payer: Customer, friend: Customer
) -> None:
    with database.transaction() as session:
        id_ = appoint(session, Role.SUPERVISOR, payer, friend)
    browser = browse(new_browser, payer)
    path = f"/my/me/appointments/{id_}/end"
    for pin, said in ((WRONG_PIN, "error.pin"), (PIN, "said.ending")):
        browser.get(path)
        browser.post(path, pin=pin)
        assert EN[said] in browser.text
    [ending] = supervisors(database, payer)
    assert ending.standing is Standing.ACTIVE
    assert ending.ends_at is not None
    assert timedelta(days=6, hours=23) < ending.ends_at - now() <= appointments.REMOVAL_WAIT
    sent(database, friend, "ward.ending", keyring)


def test_a_question_not_yet_accepted_is_withdrawn_at_once(
    new_browser: Callable[[], Browser], database: Database, payer: Customer, friend: Customer
) -> None:
    browser = browse(new_browser, payer)
    name(browser, friend.number)
    path = f"/my/me/appointments/{supervisors(database, payer)[0].id}/end"
    browser.get(path)
    browser.post(path, pin=PIN)
    assert EN["said.withdrawn"] in browser.text
    name(browser, friend.number)
    assert [a.standing for a in supervisors(database, payer)] == [Standing.ENDED, Standing.PROPOSED]


def test_a_minor_does_not_end_the_guardianship(
    minors_family: Family, new_browser: Callable[[], Browser], database: Database
) -> None:
    browser, path = browse(new_browser, minors_family.ward), f"/my/me/appointments/{minors_family.as_guardian}/end"
    browser.get("/my/me")
    assert path not in browser.text
    assert browser.post(path, pin=PIN).status_code == 404
    with database.transaction() as session:
        assert session.get_one(Appointment, minors_family.as_guardian).ends_at is None


def test_a_pin_is_changed_by_who_knows_the_old_one(
    new_browser: Callable[[], Browser], database: Database, keyring: Keyring, payer: Customer
) -> None:
    until = now() + timedelta(hours=50)
    with database.transaction() as session:
        session.get_one(Pin, payer.id).provisional_until = until
    browser, new = browse(new_browser, payer), "864209"
    for old, first, again, said in (
        (WRONG_PIN, new, new, "error.pin"),
        (PIN, new, "864200", "error.pin_differs"),
        (PIN, "123456", "123456", "error.pin_trivial"),
        (PIN, "12345", "12345", "error.pin_digits"),
        (PIN, new, new, "said.pin"),
    ):
        browser.get("/my/me/pin")
        browser.post("/my/me/pin", pin=old, new=first, again=again)
        assert EN[said] in browser.text
        with database.transaction() as session:
            assert pins.check_pin(session, payer.id, PIN, keyring) is (said != "said.pin")
    with database.transaction() as session:
        assert pins.check_pin(session, payer.id, new, keyring)
        assert session.get_one(Pin, payer.id).provisional_until == until  # no way round the small limit of a new PIN
    sent(database, payer, "pin_changed", keyring)


def test_she_says_whether_she_wants_to_be_rung_up(
    family: Family, new_browser: Callable[[], Browser], database: Database
) -> None:
    def may_be_rung() -> bool:
        with database.transaction() as session:
            return bill_calls.may_be_rung(session, family.ward.id)

    browser, path = browse(new_browser, family.ward), "/my/me/rung"
    browser.get("/my/me")
    assert path in browser.text
    browser.get(path)
    browser.post(path, pin=WRONG_PIN)
    assert EN["error.pin"] in browser.text
    assert not may_be_rung()
    browser.post(path, pin=PIN)
    assert EN["said.rung_agreed"] in browser.text
    assert may_be_rung()
    browser.get(path)
    assert EN["rung.agreed"] in browser.text
    browser.post(path, pin=PIN, withdraw="1")
    assert EN["said.rung_withdrawn"] in browser.text
    assert not may_be_rung()


def test_a_minor_is_not_asked_whether_to_be_rung_up(
    minors_family: Family, new_browser: Callable[[], Browser]
) -> None:
    browser = browse(new_browser, minors_family.ward)
    browser.get("/my/me")
    assert "/my/me/rung" not in browser.text
    assert browser.get("/my/me/rung").status_code == 404
