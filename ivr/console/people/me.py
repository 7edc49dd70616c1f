"""The payer's own page: who agrees to her payments, and her PIN."""

from __future__ import annotations

import re

from flask import Response, abort, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval import appointments, freezes
from ivr.approval.models import Appointment, Standing
from ivr.approval.policy import Role
from ivr.call import bill_calls
from ivr.console.people import limits
from ivr.console.people.desk import back, blueprint, desk, now, page, person, reading, refusal, store, who, writing
from ivr.console.people.limits_form import Unusable, amount
from ivr.customers import apps, audit, pins
from ivr.customers.apps import AppBinding
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import customer_by_number, lock_customer
from ivr.customers.models import Customer, Pin
from ivr.customers.money import check_currency
from ivr.customers.notices import notify


@blueprint.get("/me")
def me() -> Response:
    with reading() as session:
        mine = _appointed(session)
        numbers = {
            c.id: c.number
            for c in session.scalars(select(Customer).where(Customer.id.in_({a.approver_id for a in mine})))
        }
        return page(
            "me",
            mine=mine,
            numbers=numbers,
            frozen=freezes.is_frozen(session, person().customer_id),
            minor=session.get_one(Customer, person().customer_id).minor,
            supervised=_supervised(session),
            proposal_life=appointments.PROPOSAL_LIFE,
            bindings=apps.bindings_of(session, person().customer_id),
            charged=apps.charged(session, person().customer_id),
            now=now(),
        )


@blueprint.post("/me/apps/<binding_id>/end")
def unbind(binding_id: str) -> Response:
    """No PIN: whoever is pressed, or has forgotten it, may always take back what lets another debit her."""
    with writing() as session:
        found = session.get(AppBinding, binding_id)
        if found is None or found.customer_id != person().customer_id:
            abort(404)
        apps.unbind(session, found, who=who(), now=now())
    return back("me", said="said.unbound")


@blueprint.route("/me/supervisor", methods=["GET", "POST"])
def name_supervisor() -> Response:
    fields = {name: request.form.get(name, "").strip() for name in ("number", "label", "amount", "currency")}
    error = ""
    if request.method == "POST":
        limits.by_customer("name", person().customer_id, limits.NAMED_A_DAY, limits.DAY_S)
        try:
            with writing() as session:
                error = refusal(session)
                if not error:
                    _propose(session, fields)
        except Unusable as unusable:
            error = unusable.key
        except InvalidInput:
            error = "error.supervisor"  # one answer for all: it would tell who is a customer
        if not error:
            return back("me", said="said.named")
    with reading() as session:
        supervised = _supervised(session)
    errors = [error] if error else []
    return page("supervisor", 422 if error else 200, fields=fields, supervised=supervised, errors=errors)


@blueprint.route("/me/appointments/<appointment_id>/end", methods=["GET", "POST"])
def end_mine(appointment_id: str) -> Response:
    """The payer asks that a supervisor's or guardian's part ends: after a wait, and they are told."""
    with store() as session:
        found = session.get(Appointment, appointment_id)
        if found is None or found.ward_id != person().customer_id or found.standing is Standing.ENDED:
            abort(404)
        if found.role is Role.GUARDIAN and session.get_one(Customer, found.ward_id).minor:
            abort(404)
        if request.method == "GET":
            return page("end_mine", found=found, wait=appointments.REMOVAL_WAIT)
        if error := refusal(session):
            return back("end_mine", appointment_id=found.id, error=error)
        ended = appointments.end(session, found.id, by_approver=False, who=who(), now=now())
    return back("me", said="said.withdrawn" if ended.standing is Standing.ENDED else "said.ending")


@blueprint.route("/me/pin", methods=["GET", "POST"])
def change_pin() -> Response:
    if request.method == "GET":
        return page("pin")
    new = request.form.get("new", "")
    if not re.fullmatch(r"\d{6}", new, re.ASCII):
        return back("change_pin", error="error.pin_digits")
    if new != request.form.get("again"):
        return back("change_pin", error="error.pin_differs")
    mine = person().customer_id
    with writing() as session:
        if error := refusal(session):
            return back("change_pin", error=error)
        row = session.get_one(Pin, mine)
        try:  # what made the old one provisional makes the new one so
            pins.set_pin(
                session, mine, new, desk().keyring, now(),
                provisional_until=row.provisional_until, call_sid=row.call_sid,
            )  # fmt: skip
        except pins.TrivialPin:
            return back("change_pin", error="error.pin_trivial")
        audit.record(session, who(), "pin.changed", mine, now())
        notify(session, mine, "pin_changed", {}, now())
    return back("me", said="said.pin")


@blueprint.route("/me/rung", methods=["GET", "POST"])
def rung() -> Response:
    """Whether she wants to be rung up about bills. For minors an operator notes it, whom a guardian has told so."""
    mine = person().customer_id
    with store() as session:
        if session.get_one(Customer, mine).minor:
            abort(404)
        if request.method == "GET":
            return page("rung", agreed=bill_calls.may_be_rung(session, mine))
        if error := refusal(session):
            return back("rung", error=error)
        if "withdraw" in request.form:
            bill_calls.withdraw(session, mine, who=who(), now=now())
            said = "said.rung_withdrawn"
        else:
            bill_calls.agree(session, mine, who=who(), channel="page", now=now())
            said = "said.rung_agreed"
    return back("me", said=said)


def _propose(session: Session, fields: dict[str, str]) -> None:
    """Raises Unusable, InvalidInput."""
    currency = above_minor = None
    if fields["amount"]:
        currency = fields["currency"].upper()
        try:
            check_currency(currency)
        except InvalidInput:
            raise Unusable("error.currency") from None
        above_minor = amount(fields["amount"], currency)
    if not 1 <= len(fields["label"]) <= 40:
        raise Unusable("error.label")
    lock_customer(session, person().customer_id)
    if _supervised(session):
        raise Unusable("error.supervised")
    named = customer_by_number(session, re.sub(r"[\s-]", "", fields["number"]))
    if named is None:
        raise Unusable("error.supervisor")
    appointments.propose(
        session,
        Role.SUPERVISOR,
        ward_id=person().customer_id,
        approver_id=named.id,
        label=fields["label"],
        currency=currency,
        above_minor=above_minor,
        who=who(),
        now=now(),
    )


def _supervised(session: Session) -> bool:
    """Whether she has a supervisor, or has named one.

    Then no other is named here: whoever presses her could have his helper named, who agrees as well as the first.
    """
    return any(a.role is Role.SUPERVISOR for a in _appointed(session))


def _appointed(session: Session) -> list[Appointment]:
    query = select(Appointment).where(
        Appointment.ward_id == person().customer_id, Appointment.standing != Standing.ENDED
    )
    found = session.scalars(query.order_by(Appointment.proposed_at, Appointment.id))
    return [a for a in found if a.ends_at is None or a.ends_at > now()]
