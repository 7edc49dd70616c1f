"""Guardians who manage by telephone what their wards may pay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis
from sqlalchemy import func, select
from test_approval_calls import GUARDIAN, HOME, SCHOOL
from test_call_judging import ALICE, NOW, UNKNOWN, House, Telephone, encoder, house, scorer  # noqa: F401

from ivr.approval import addresses, appointments, freezes, policies
from ivr.approval.models import Appointment, PolicyVersion
from ivr.approval.policy import Policy, Role
from ivr.approval.wards import WardSettings, policy_of, settings_of
from ivr.call.engine import Engine
from ivr.call.flow import ATTEMPTS, MENU_CHOICES, State
from ivr.call.models import Turn
from ivr.call.session import Answer
from ivr.customers import budget, pins
from ivr.customers.bills import create_bill
from ivr.customers.models import Audit, Card, Customer, Notice
from ivr.customers.pins import set_pin
from ivr.customers.register import add_caller_id, add_customer
from ivr.payments.service import start_payment
from ivr.speech.expect import EndReason, Heard

HER_PIN, OTHERS_PIN, WRONG = "739154", "482915", "739155"
WARD_2 = "+14155550102"
HEAR, SMALL, LARGE, MERCHANT, ADDRESS, STOP = range(1, 7)
FREED = (State.GUARD_MENU, "guard.done")


def _guardian(house: House, *wards: str, phone: str = GUARDIAN, role: Role = Role.GUARDIAN) -> str:  # noqa: F811
    """Somebody whose telephone and PIN are old, and who looks after these customers: Lea, and then Tom."""
    long_ago = NOW - timedelta(days=30)
    with house.database.transaction() as session:
        guardian = add_customer(session, phones=[phone], sms=[phone], now=long_ago)
        set_pin(session, guardian.id, HER_PIN, house.keyring, long_ago)
        for ward_id, label in zip(wards, ("Lea", "Tom"), strict=False):
            appointment = appointments.propose(
                session, role, ward_id=ward_id, approver_id=guardian.id, label=label, who="test", now=NOW
            )
            appointments.accept(session, appointment.id, guardian.id, channel="test", now=NOW)
        return guardian.id


@pytest.fixture
def ward(house: House) -> str:  # noqa: F811
    """Somebody without a guardian yet, with two addresses."""
    ward_id = house.customer(voice=None)
    with house.database.transaction() as session:
        for label, text in (("home", HOME), ("school", SCHOOL)):
            addresses.add(session, ward_id, label, text, who="test", now=NOW)
    return ward_id


@pytest.fixture
def guardian(house: House, ward: str) -> str:  # noqa: F811
    return _guardian(house, ward)


def _in_menu(house: House, phone: str = GUARDIAN) -> Telephone:  # noqa: F811
    call = house.call(phone)
    call.keys("9")
    assert call.heard == "pin.ask"
    call.keys(HER_PIN)
    assert call.heard == "guard.menu"
    return call


def _limits(house: House, ward_id: str) -> WardSettings:  # noqa: F811
    with house.database.transaction() as session:
        policy = policies.own(session, ward_id)[1] or policies.WARD
    limits = settings_of(policy)
    assert limits
    return limits


def _pays(house: House, ward_id: str, *merchants: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        card_id = session.scalars(select(Card.id).where(Card.customer_id == ward_id)).one()
        for i, merchant in enumerate(merchants):
            now = NOW + timedelta(seconds=i)
            bill = create_bill(session, ward_id, merchant=merchant, amount_minor=500, currency="USD", now=now)
            start_payment(
                session, bill_id=bill.id, customer_id=ward_id, card_id=card_id, idempotency_key=bill.id,
                call_sid="CA", evidence={"factors": []}, now=now,
            )  # fmt: skip


def _told(house: House) -> list[str]:  # noqa: F811
    with house.database.transaction() as session:
        return list(session.scalars(select(Notice.customer_id).where(Notice.template == "ward.changed")))


def _audited(house: House, what: str) -> list[tuple[str, str]]:  # noqa: F811
    with house.database.transaction() as session:
        return [(row.who, row.subject) for row in session.scalars(select(Audit).where(Audit.what == what))]


def test_she_hears_limits_and_addresses_by_name_only(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        policies.put(session, ward, policy_of(WardSettings(month=30_000)), who="test", now=NOW)
    call = _in_menu(house)
    assert "You look after Lea." in call.carrier_sees
    call.answers(HEAR)
    assert call.heard == "guard.limits"
    for words in (
        "Small payments end at 20 US dollars.",
        "Large payments begin above 200 US dollars.",
        "Above 300 US dollars in a month",
        "Number 1: home. Number 2: school.",
    ):
        assert words in call.carrier_sees
    assert HOME not in call.carrier_sees
    call._over(Heard(EndReason.CANCEL))
    assert (call.heard, call.answer.then) == ("guard.over", "hang_up")


@pytest.mark.parametrize(
    ("entry", "keyed", "said", "changed"),
    [
        (SMALL, "15", "Small payments end at 15 US dollars.", {"small": 1_500}),
        (LARGE, "50", "Large payments begin above 50 US dollars.", {"normal": 5_000}),
    ],
)
def test_she_sets_where_small_payments_end_and_large_ones_begin(
    house: House,  # noqa: F811
    ward: str,
    guardian: str,
    entry: int,
    keyed: str,
    said: str,
    changed: dict[str, int],
) -> None:
    other = _guardian(house, ward, phone="+14155550178")
    call = _in_menu(house)
    call.answers(entry)
    assert call.heard == "guard.amount.ask"
    call.keys(keyed)
    assert call.heard == "guard.confirm"
    assert said in call.carrier_sees
    assert _limits(house, ward) == WardSettings()
    call.answers("yes")
    assert (call.answer.state, call.heard) == FREED
    assert _limits(house, ward) == WardSettings(**changed)
    assert _audited(house, "policy.changed") == [(f"customer {guardian}", ward)]
    assert sorted(_told(house)) == sorted([guardian, other])


def test_what_she_does_not_confirm_changes_nothing(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    call.answers(SMALL)
    call.keys("15")
    call.is_silent()
    assert call.heard == "guard.confirm.retry"
    call.answers("no")
    assert call.heard == "guard.unchanged"
    assert (_limits(house, ward), _told(house)) == (WardSettings(), [])


@pytest.mark.parametrize(("entry", "keyed"), [(SMALL, "201"), (LARGE, "19")])
def test_small_ends_no_higher_than_large_begins(
    house: House, ward: str, guardian: str, entry: int, keyed: str  # noqa: F811
) -> None:
    call = _in_menu(house)
    call.answers(entry)
    call.keys(keyed)
    assert call.heard == "guard.amount.retry"
    call.is_silent()
    call.keys(keyed)
    assert (call.heard, call.answer.then) == ("guard.over", "hang_up")
    assert _limits(house, ward) == WardSettings()


def test_an_amount_is_in_whole_units_of_the_limits_currency(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        limits = WardSettings(currency="JPY", small=2_000, normal=20_000)
        policies.put(session, ward, policy_of(limits), who="test", now=NOW)
    call = _in_menu(house)
    call.answers(LARGE)
    call.keys("5000")
    assert "Large payments begin above 5,000 Japanese yen." in call.carrier_sees
    call.answers("yes")
    assert _limits(house, ward).normal == 5_000


def test_she_blocks_one_of_the_last_merchants_and_allows_it_again(house: House, ward: str) -> None:  # noqa: F811
    _pays(house, ward, "Corner Bookshop", "Games & More", "Corner Bookshop")
    _guardian(house, ward)
    call = _in_menu(house)
    call.answers(MERCHANT)
    assert call.heard == "guard.choose.merchant"
    assert "Number 1: Corner Bookshop. Number 2: Games &amp; More." in call.carrier_sees
    call.answers(2)
    assert "Nothing is paid to Games &amp; More any more." in call.carrier_sees
    call.answers("yes")
    assert _limits(house, ward).blocked == {"Games & More"}
    call.answers(MERCHANT)
    assert "Number 2: Games &amp; More, which is blocked." in call.carrier_sees
    call.answers(2)
    assert "Games &amp; More can be paid again." in call.carrier_sees
    call.answers("yes")
    assert _limits(house, ward) == WardSettings()


def test_a_merchant_blocked_before_can_be_allowed_though_nothing_was_paid(
    house: House, ward: str, guardian: str  # noqa: F811
) -> None:
    call = _in_menu(house)
    call.answers(MERCHANT)
    assert call.heard == "guard.none"
    with house.database.transaction() as session:
        policies.put(session, ward, policy_of(WardSettings(blocked=frozenset({"Casino"}))), who="test", now=NOW)
    call.answers(MERCHANT)
    call.answers(1)
    call.answers("yes")
    assert _limits(house, ward).blocked == set()


def test_she_removes_an_address_and_adds_none(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    assert "you can add one on your page only" in call.carrier_sees
    call.answers(ADDRESS)
    assert call.heard == "guard.choose.address"
    assert HOME not in call.carrier_sees
    call.is_silent()
    assert call.heard == "guard.choose.retry"
    call.answers(1)
    assert "The address home is removed." in call.carrier_sees
    call.answers("yes")
    with house.database.transaction() as session:
        assert [address.label for address in addresses.book(session, ward)] == ["school"]
    assert [who for who, _ in _audited(house, "address.removed")] == [f"customer {guardian}"]
    assert _told(house) == [guardian]
    call.answers(ADDRESS)
    call.answers(1)
    call.answers("yes")
    call.answers(ADDRESS)
    assert call.heard == "guard.none"


def test_she_stops_all_payments(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    call.answers(STOP)
    assert "All payments of Lea are stopped until this is cleared." in call.carrier_sees
    with house.database.transaction() as session:
        assert not freezes.is_frozen(session, ward)
    call.answers("yes")
    assert call.heard == "guard.done"
    with house.database.transaction() as session:
        assert freezes.is_frozen(session, ward)
    assert _audited(house, "payments.frozen") == [(f"customer {guardian}", ward)]


def test_every_question_is_answered_by_one_key_while_it_is_read(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    pressed = {"5": "guard.choose.address", "2": "guard.confirm", "1": "guard.done", "8": "guard.menu.retry"}
    for key, heard in pressed.items():
        call.answer = call.engine.key_pressed(call.sid, call.answer.step, key)
        assert call.heard == heard
    with house.database.transaction() as session:
        assert [address.label for address in addresses.book(session, ward)] == ["home"]


def test_a_language_that_nobody_hears_goes_by_keys(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        session.get_one(Customer, guardian).locale = "zh"
    house.engine = Engine(house.engine.store, house.database, house.judge, lambda: NOW, heard=("en",))
    sid = "CA" + "7" * 32
    call = Telephone(house.engine, house.judge, house.settings, sid, house.engine.ring(sid, GUARDIAN, None, "zh"))
    assert call.heard == "keypad.ask"
    call.keys("9")
    call.keys(HER_PIN)
    assert (call.heard, call.answer.locale) == ("guard.menu", "zh")
    call.answers(SMALL)
    call.keys("15")
    assert "小额付款的上限是15.00美元。" in call.carrier_sees


def test_the_policy_of_an_operator_stays(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        policies.put(session, ward, Policy(name="an operator's"), who="test", now=NOW)
    call = _in_menu(house)
    for entry in (SMALL, LARGE, MERCHANT):
        call.answers(entry)
        assert call.heard == "guard.operators"
    call.answers(HEAR)
    assert "An operator has set the limits. The addresses are: Number 1: home." in call.carrier_sees
    call.answers(ADDRESS)
    assert call.heard == "guard.choose.address"


def test_limits_that_others_changed_while_they_were_read_back(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    call.answers(SMALL)
    call.keys("150")
    with house.database.transaction() as session:
        policies.put(session, ward, policy_of(WardSettings(normal=10_000)), who="test", now=NOW)
    call.answers("yes")
    assert call.heard == "guard.unchanged"
    call.answers(SMALL)
    call.keys("90")
    with house.database.transaction() as session:
        policies.put(session, ward, Policy(name="an operator's"), who="test", now=NOW)
    call.answers("yes")
    assert call.heard == "guard.operators"


@pytest.mark.parametrize("step", ["menu", "confirm"])
def test_whoever_is_no_guardian_any_more_changes_nothing(
    house: House, ward: str, guardian: str, step: str  # noqa: F811
) -> None:
    call = _in_menu(house)
    if step == "confirm":
        call.answers(STOP)
    with house.database.transaction() as session:
        appointment = session.scalars(select(Appointment)).one()
        appointments.end(session, appointment.id, by_approver=True, who="test", now=NOW)
    call.answers(STOP if step == "menu" else "yes")
    assert (call.heard, call.answer.then) == ("guard.over", "hang_up")
    with house.database.transaction() as session:
        assert not freezes.is_frozen(session, ward)


def test_of_several_wards_she_chooses_one(house: House, ward: str) -> None:  # noqa: F811
    tom = house.customer(WARD_2, voice=None)
    _guardian(house, ward, tom)
    call = house.call(GUARDIAN)
    call.keys("9")
    call.keys(HER_PIN)
    assert call.heard == "guard.choose.ward"
    assert "Number 1: Lea. Number 2: Tom." in call.carrier_sees
    call.answers(3)
    assert call.heard == "guard.choose.retry"
    call.answers(2)
    assert "You look after Tom." in call.carrier_sees
    call.answers(STOP)
    call.answers("yes")
    with house.database.transaction() as session:
        assert (freezes.is_frozen(session, tom), freezes.is_frozen(session, ward)) == (True, False)


def test_from_another_telephone_her_customer_number_selects_her(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        number = session.get_one(Customer, guardian).number
    call = house.call(UNKNOWN)
    call.keys(number)
    call.keys("9")
    call.keys(HER_PIN)
    assert call.heard == "guard.menu"


def test_one_of_a_household_who_is_a_guardian(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    with house.database.transaction() as session:
        other = add_customer(session, phones=[GUARDIAN], sms=[], now=NOW)
        set_pin(session, other.id, OTHERS_PIN, house.keyring, NOW)
    call = house.call(GUARDIAN)
    call.keys("9")
    call.keys(OTHERS_PIN)  # right, but of somebody who looks after nobody
    assert call.heard == "pin.retry"
    call.keys(HER_PIN)
    assert call.heard == "guard.menu"


# Whatever is wrong sounds the same.


def _wrong_pin(house: House, ward: str) -> list[str]:  # noqa: F811
    _guardian(house, ward)
    return _tries(house.call(GUARDIAN), WRONG)


def _locked(house: House, ward: str) -> list[str]:  # noqa: F811
    guardian = _guardian(house, ward)
    with house.database.transaction() as session:
        for i in range(budget.FREE_IN_A_ROW):
            budget.record_failure(session, [guardian], f"CAx{i}", "1", NOW)
    return _tries(house.call(GUARDIAN), HER_PIN)


def _unknown_caller(house: House, ward: str) -> list[str]:  # noqa: F811
    _guardian(house, ward)
    return _tries(house.call(UNKNOWN), HER_PIN)


def _without_wards(house: House, ward: str) -> list[str]:  # noqa: F811
    _guardian(house)
    return _tries(house.call(GUARDIAN), HER_PIN)


def _supervisor(house: House, ward: str) -> list[str]:  # noqa: F811
    _guardian(house, ward, role=Role.SUPERVISOR)
    return _tries(house.call(GUARDIAN), HER_PIN)


def _shares_a_number_now(house: House, ward: str) -> list[str]:  # noqa: F811
    guardian = _guardian(house, ward)
    with house.database.transaction() as session:
        add_caller_id(session, guardian, ALICE, NOW)
    return _tries(house.call(GUARDIAN), HER_PIN)


def _silent(house: House, ward: str) -> list[str]:  # noqa: F811
    _guardian(house, ward)
    return _tries(house.call(GUARDIAN), "")


def _tries(call: Telephone, pin: str) -> list[str]:
    seen = [call.carrier_sees]
    call.keys("9")
    seen.append(call.carrier_sees)
    for _ in range(ATTEMPTS):
        if pin:
            call.keys(pin)
        else:
            call.is_silent()
        seen.append(call.carrier_sees)
    assert (call.heard, call.answer.then) == ("refused", "hang_up")
    return seen


WRONGS = [_locked, _unknown_caller, _without_wards, _supervisor, _shares_a_number_now, _silent]


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda f: f.__name__)
def test_whoever_may_not_manage_hears_what_a_wrong_pin_makes_heard(
    house: House,  # noqa: F811
    ward: str,
    wrong: Callable[[House, str], list[str]],
    redis_client: redis.Redis,
) -> None:
    seen = wrong(house, ward)
    redis_client.flushall()
    with house.database.transaction() as session:
        for table in reversed(Customer.metadata.sorted_tables):
            session.execute(table.delete())
    house.calls = 0
    assert seen == _wrong_pin(house, house.customer(voice=None))


@pytest.mark.parametrize("phone", [ALICE, None])
def test_nobody_manages_from_the_wards_telephone_nor_from_a_withheld_number(
    house: House, ward: str, guardian: str, phone: str | None  # noqa: F811
) -> None:
    with house.database.transaction() as session:
        number = session.get_one(Customer, guardian).number
    sid = "CA" + "7" * 32
    answer: Answer = house.engine.ring(sid, phone, "TN-Validation-Passed-A", "en")
    call = Telephone(house.engine, house.judge, house.settings, sid, answer)
    call.keys(number)
    call.keys("9")
    for _ in range(ATTEMPTS):
        call.keys(HER_PIN)
    assert call.heard == "refused"


def test_of_two_wards_she_manages_from_the_ones_telephone_the_other_only(house: House, ward: str) -> None:  # noqa: F811
    tom = house.customer(WARD_2, voice=None)
    guardian = _guardian(house, ward, tom)
    with house.database.transaction() as session:
        number = session.get_one(Customer, guardian).number
    call = house.call(ALICE)
    call.keys(number)
    call.keys("9")
    call.keys(HER_PIN)
    assert call.heard == "guard.menu"
    assert "You look after Tom." in call.carrier_sees


def test_wrong_pins_are_counted_in_the_one_budget_and_lock(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    for wrong in (3, 2):
        call = house.call(GUARDIAN)
        call.keys("9")
        for _ in range(wrong):
            call.keys(WRONG)
    with house.database.transaction() as session:
        assert budget.failures_in_a_row(session, guardian) == budget.FREE_IN_A_ROW
        assert budget.failures_in_a_row(session, ward) == 0
        turns = session.scalars(select(Turn).where(Turn.state == State.GUARD_PIN)).all()
        assert all(turn.decisions["pin"] is False for turn in turns)
    call.keys(HER_PIN)
    assert call.heard == "refused"


@pytest.mark.parametrize("phone", [GUARDIAN, ALICE, UNKNOWN])
def test_one_pin_is_checked_whoever_calls(
    house: House, guardian: str, phone: str, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """So that the time which it takes tells nothing."""
    checked: list[str] = []
    real = pins.check_pin

    def check_pin(session, customer_id, pin, keyring):  # type: ignore[no-untyped-def]
        checked.append(customer_id)
        return real(session, customer_id, pin, keyring)

    monkeypatch.setattr(pins, "check_pin", check_pin)
    call = house.call(phone)
    call.keys("9")
    call.keys(WRONG)
    assert checked == [guardian if phone == GUARDIAN else ""]


# A step is judged once.


def test_a_change_is_made_once_however_often_the_carrier_asks(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    call.answers(SMALL)
    call.keys("15")
    step = call.answer.step
    at = call.engine.store.load(call.sid)
    assert at
    for _ in range(2):  # judged again: whoever judged first died before the call moved on
        call.judge.conclude(step, at[1], Heard(EndReason.KEYS, keys="1", answer="yes"))
    answers = [call.engine.turn_over(call.sid, step), call.engine.turn_over(call.sid, step)]
    answers.append(call.engine.key_pressed(call.sid, step, "1"))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]
    assert answers[0].lines[-1].prompt == "guard.done"
    with house.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(PolicyVersion)) == 1
    assert _told(house) == [guardian]


def test_an_address_is_removed_once_though_another_took_its_number(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    call.answers(ADDRESS)
    call.answers(1)
    step, at = call.answer.step, call.engine.store.load(call.sid)
    assert at
    yes = Heard(EndReason.KEYS, keys="1", answer="yes")
    call.judge.conclude(step, at[1], yes)
    with house.database.transaction() as session:
        assert addresses.add(session, ward, "aunt", "3 Far Away", who="test", now=NOW).number == 1
    call.judge.conclude(step, at[1], yes)
    with house.database.transaction() as session:
        assert [address.label for address in addresses.book(session, ward)] == ["aunt", "school"]


def test_the_menu_does_not_go_on_for_ever(house: House, ward: str, guardian: str) -> None:  # noqa: F811
    call = _in_menu(house)
    for _ in range(MENU_CHOICES - 1):
        call.answers(HEAR)
        assert call.heard == "guard.limits"
    call.answers(HEAR)
    assert (call.heard, call.answer.then) == ("guard.over", "hang_up")
