"""A guardian manages what her ward may pay: her PIN, then a menu whose every change is read back and confirmed.

Whoever calls from a ward's own telephone, or from a number that is withheld and so may be that one, is no guardian of
this ward, and hears what everyone hears who is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from babel.numbers import get_currency_precision
from pydantic import ValidationError
from sqlalchemy import func, select

from ivr.approval import addresses, appointments, freezes, policies, requests, telling
from ivr.approval.models import Address, Appointment
from ivr.approval.policy import Policy, Role
from ivr.approval.wards import WardSettings, policy_of, settings_of
from ivr.call.flow import Call, Event
from ivr.call.judging.desk import Desk, Verdict
from ivr.customers import budget
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Bill, Customer
from ivr.payments.models import Payment

MOST_CHOICES = 9  # one key chooses; there is more on the page
LAST_MERCHANTS = 5
#: A PIN is checked also where nobody is a guardian: it takes as long, and is as wrong.
NOBODY = ("",)


def pin(desk: Desk, call: Call) -> Verdict:
    """The PIN of a guardian among those whom the caller may be."""
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    wards = {who: found for who in call.customer_ids if (found := list(islice(_wards(desk, call, who), MOST_CHOICES)))}
    for customer_id in wards or NOBODY:
        if desk.right_pin(call, customer_id):
            return _proved(desk, call, customer_id, wards[customer_id])
    return desk.fail(call, [*wards] or call.customer_ids, pin=False)


def choose(desk: Desk, call: Call) -> Verdict:
    """Which ward; which merchant is blocked, or not any more; which address goes."""
    number = desk.heard.answer
    if not isinstance(number, int) or not 1 <= number <= len(call.options):
        return Verdict(Event.AGAIN, call)
    name, value = call.options[number - 1]
    if call.ward is None:
        return Verdict(Event.PROVED, replace(call, payer=name, ward={"id": value}))
    return Verdict(Event.CHOSEN, replace(call, change=(call.change[0] or value, name, value)))


def menu(desk: Desk, call: Call) -> Verdict:
    """What she wants to hear or to change, by one digit."""
    if not isinstance(desk.heard.answer, int):
        return Verdict(Event.AGAIN, call)
    if not _may_still(desk, call):
        return Verdict(Event.TOO_LATE, call)
    ward_id = _ward_id(call)
    limits, book = _limits(desk, ward_id), addresses.book(desk.session, ward_id)
    call = replace(call, ward={"id": ward_id, **_spoken(limits)}, options=_named(book))
    match desk.heard.answer:
        case 1:
            return Verdict(Event.LIMITS, call)
        case 2 | 3 | 4 if limits is None:
            return Verdict(Event.OPERATORS, call)
        case 2:
            return Verdict(Event.AMOUNT, replace(call, change=("small", "", "")))
        case 3:
            return Verdict(Event.AMOUNT, replace(call, change=("normal", "", "")))
        case 4:
            assert limits
            options = _merchants(desk, ward_id, limits.blocked)
            call = replace(call, options=options, change=("", "", ""))  # to block or to allow: as it is chosen
            return Verdict(Event.MERCHANTS if options else Event.NONE, call)
        case 5:
            return Verdict(Event.BOOK if book else Event.NONE, replace(call, change=("remove", "", "")))
        case _:
            return Verdict(Event.CHOSEN, replace(call, change=("stop", "", "")))


def amount(desk: Desk, call: Call) -> Verdict:
    """A limit in whole units of its currency. Small payments end no higher than large ones begin."""
    assert call.ward
    if not desk.heard.keys:
        return Verdict(Event.AGAIN, call)
    kind, minor = call.change[0], int(desk.heard.keys) * 10 ** get_currency_precision(str(call.ward["currency"]))
    limits = {**call.ward, kind: minor}
    if int(limits["small"]) > int(limits["normal"]):
        return Verdict(Event.AGAIN, call)
    return Verdict(Event.CHOSEN, replace(call, change=(kind, "", str(minor))))


def confirm(desk: Desk, call: Call) -> Verdict:
    """Yes: it is so from now on, and all who must agree for this ward are told. What is so already stays as it is."""
    if desk.heard.answer != "yes":
        return Verdict(Event.NO if desk.heard.answer == "no" else Event.AGAIN, call)
    ward_id = _ward_id(call)
    lock_customer(desk.session, ward_id)  # nobody else changes what she may pay meanwhile
    if not _may_still(desk, call):
        return Verdict(Event.TOO_LATE, call)
    kind, who = call.change[0], f"customer {call.customer_id}"
    match kind:
        case "remove":
            changed = _remove(desk, ward_id, call.change[2], who)
        case "stop":
            changed = not freezes.is_frozen(desk.session, ward_id)
            requests.stop(desk.session, ward_id, who=who, now=desk.now)
        case _:
            limits = _limits(desk, ward_id)
            if limits is None:
                return Verdict(Event.OPERATORS, call)
            policy = _changed(limits, call.change)
            if policy is None:  # another changed them while this one was read back
                return Verdict(Event.NO, call)
            changed = policy != policy_of(limits)
            if changed:
                policies.put(desk.session, ward_id, policy, who=who, now=desk.now)
    if changed:
        telling.tell_approvers(desk.session, ward_id, "ward.changed", {}, desk.now)
    return Verdict(Event.SET, call, {"change": kind})


def _proved(desk: Desk, call: Call, customer_id: str, wards: list[Appointment]) -> Verdict:
    budget.record_success(desk.session, customer_id, call.sid, attested=call.attested)
    locale = desk.session.get_one(Customer, customer_id).locale  # all that follows can be keyed in any language
    call = replace(call, customer_ids=(customer_id,), customer_id=customer_id, locale=locale)
    if len(wards) > 1:
        options = tuple((a.label, a.ward_id) for a in wards)
        return Verdict(Event.WARDS, replace(call, options=options), {"pin": True})
    call = replace(call, payer=wards[0].label, ward={"id": wards[0].ward_id})
    return Verdict(Event.PROVED, call, {"pin": True})


def _wards(desk: Desk, call: Call, guardian_id: str) -> Iterator[Appointment]:
    """Whom she may manage in this call."""
    standing = appointments.wards(desk.session, guardian_id, desk.now)
    return (appointment for appointment in standing if _may(desk, call, appointment))


def _may(desk: Desk, call: Call, appointment: Appointment) -> bool:
    ward_id, guardian_id = appointment.ward_id, appointment.approver_id
    return (
        appointment.role is Role.GUARDIAN
        and call.caller_id is not None
        and call.caller_id not in appointments.reached_at(desk.session, ward_id)
        and appointments.conflict(desk.session, ward_id, guardian_id) is None
    )


def _may_still(desk: Desk, call: Call) -> bool:
    """An appointment may end while she talks."""
    assert call.customer_id
    standing = appointments.between(desk.session, call.customer_id, _ward_id(call), desk.now)
    return any(_may(desk, call, appointment) for appointment in standing)


def _ward_id(call: Call) -> str:
    assert call.ward
    return str(call.ward["id"])


def _limits(desk: Desk, ward_id: str) -> WardSettings | None:
    """What is in force; None where an operator's own policy is."""
    return settings_of(policies.own(desk.session, ward_id)[1] or policies.WARD)


def _spoken(limits: WardSettings | None) -> dict[str, str | int]:
    """What of them is told."""
    if limits is None:
        return {}
    return limits.model_dump(include={"currency", "small", "normal", "month"}, exclude_none=True)


def _named(book: list[Address]) -> tuple[tuple[str, str], ...]:
    return tuple((address.label, address.id) for address in book)


def _merchants(desk: Desk, ward_id: str, blocked: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Whom the ward paid, or tried to, the last first, and then others that are blocked; and what can be done."""
    query = (
        select(Bill.merchant)
        .join(Payment, Payment.bill_id == Bill.id)
        .where(Payment.customer_id == ward_id)
        .group_by(Bill.merchant)
        .order_by(func.max(Payment.created_at).desc(), Bill.merchant)
        .limit(LAST_MERCHANTS)
    )
    found = dict.fromkeys([*desk.session.scalars(query), *sorted(blocked)])
    return tuple((name, "allow" if name in blocked else "block") for name in islice(found, MOST_CHOICES))


def _changed(limits: WardSettings, change: tuple[str, str, str]) -> Policy | None:
    """The policy with the change; None where it makes none."""
    kind, merchant, value = change
    new: dict[str, object] = dict(limits)
    if kind in ("small", "normal"):
        new[kind] = int(value)
    else:
        new["blocked"] = limits.blocked | {merchant} if kind == "block" else limits.blocked - {merchant}
    try:
        return policy_of(WardSettings.model_validate(new))
    except ValidationError:
        return None


def _remove(desk: Desk, ward_id: str, address_id: str, who: str) -> bool:
    """Whether the address was there: by its id, for another may have come under its number since."""
    for address in addresses.book(desk.session, ward_id):
        if address.id == address_id:
            addresses.remove(desk.session, ward_id, address.number, who=who, now=desk.now)
            return True
    return False
