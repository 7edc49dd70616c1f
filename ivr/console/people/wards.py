"""Those whose payments somebody looks after, and what she may set for them."""

from __future__ import annotations

from flask import Response, abort, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval import addresses, appointments, explain, freezes, minors, policies
from ivr.approval.models import Appointment, Standing, Tell
from ivr.approval.policy import Role
from ivr.approval.wards import policy_of, settings_of
from ivr.console.people import limits_form
from ivr.console.people.desk import back, blueprint, now, page, person, reading, refusal, store, who, words, writing
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Bill, Customer
from ivr.customers.voiceprints import guardians_consent
from ivr.payments.models import Payment

MOST_PAYMENTS = 20


@blueprint.get("/wards")
def wards_page() -> Response:
    with reading() as session:
        mine = appointments.wards(session, person().customer_id, now())
        frozen = {a.id for a in mine if freezes.is_frozen(session, a.ward_id)}
        proposed = session.scalars(
            select(Appointment).where(
                Appointment.approver_id == person().customer_id, Appointment.standing == Standing.PROPOSED
            )
        ).all()
    proposed = [a for a in proposed if now() <= a.proposed_at + appointments.PROPOSAL_LIFE]
    return page("wards", mine=mine, frozen=frozen, proposed=proposed)


@blueprint.get("/wards/<appointment_id>")
def ward(appointment_id: str) -> Response:
    with reading() as session:
        mine = _mine(session, appointment_id)
        guardian = mine.role is Role.GUARDIAN
        payments = _payments(session, mine.ward_id) if guardian else []
        frozen = freezes.is_frozen(session, mine.ward_id)
        minor = session.get_one(Customer, mine.ward_id).minor
    return page("ward", mine=mine, guardian=guardian, payments=payments, frozen=frozen, minor=minor)


@blueprint.route("/wards/<appointment_id>/limits", methods=["GET", "POST"])
def ward_limits(appointment_id: str) -> Response:
    with store() as session:
        mine = _mine(session, appointment_id, Role.GUARDIAN)
        version, own = policies.own(session, mine.ward_id)
        settings = settings_of(own or policies.WARD)
        guardians = sum(a.role is Role.GUARDIAN for a in appointments.active(session, mine.ward_id, now()))
        if settings is None:
            assert own is not None
            lines = list(explain.rules(own, words().locale))
            return page("limits_told", 200 if request.method == "GET" else 409, mine=mine, lines=lines, policy=own)
        fields, error = limits_form.fields(settings), ""
        if request.method == "POST":
            fields |= {name: request.form.get(name, "") for name in fields}
            try:
                given = limits_form.read(fields, guardians)
            except limits_form.Unusable as unusable:
                error = unusable.key
            else:
                stale = request.form.get("version") != str(version)
                error = "error.changed_meanwhile" if stale else refusal(session, mine.ward_id)
            if not error:
                policies.put(session, mine.ward_id, policy_of(given), who=who(), now=now())
                return back("ward", appointment_id=mine.id, said="said.limits")
        return page(
            "limits",
            422 if error else 200,
            mine=mine,
            fields=fields,
            guardians=guardians,
            version=version,
            errors=[error] if error else [],
        )


@blueprint.route("/wards/<appointment_id>/addresses", methods=["GET", "POST"])
def ward_addresses(appointment_id: str) -> Response:
    with store() as session:
        mine = _mine(session, appointment_id, Role.GUARDIAN)
        fields, error = {"label": "", "text": ""}, ""
        if request.method == "POST":
            error = refusal(session, mine.ward_id)
            if not error and "remove" in request.form:
                number = request.form["remove"]
                try:
                    addresses.remove(
                        session, mine.ward_id, int(number) if number.isdigit() else 0, who=who(), now=now()
                    )
                except addresses.InvalidAddress:
                    error = "error.address_gone"
                if not error:
                    return back("ward_addresses", appointment_id=mine.id, said="said.address_removed")
            elif not error:
                try:
                    addresses.add(
                        session, mine.ward_id, request.form.get("label", ""), request.form.get("text", ""),
                        who=who(), now=now(),
                    )  # fmt: skip
                except addresses.InvalidAddress:
                    error = "error.addresses_full"
                except InvalidInput:
                    error = "error.address"
                if not error:
                    return back("ward_addresses", appointment_id=mine.id, said="said.address_added")
            fields = {name: request.form.get(name, "") for name in fields}
        book = addresses.book(session, mine.ward_id)
        return page(
            "addresses",
            422 if error else 200,
            mine=mine,
            book=book,
            fields=fields,
            most=addresses.MOST,
            errors=[error] if error else [],
        )


@blueprint.route("/wards/<appointment_id>/telling", methods=["GET", "POST"])
def ward_telling(appointment_id: str) -> Response:
    """Guardians and supervisors choose how they hear of payments."""
    if request.method == "GET":
        with reading() as session:
            return page("telling", mine=_mine(session, appointment_id), ways=list(Tell))
    if request.form.get("tell") not in list(Tell):
        abort(400)
    with writing() as session:
        mine = _mine(session, appointment_id)
        if error := refusal(session, mine.ward_id):
            return back("ward_telling", appointment_id=mine.id, error=error)
        mine.tell = Tell(request.form["tell"])
        audit.record(session, who(), "appointment.tell", mine.ward_id, now(), appointment=mine.id, tell=mine.tell)
    return back("ward", appointment_id=mine.id, said="said.telling")


@blueprint.route("/wards/<appointment_id>/voice", methods=["GET", "POST"])
def ward_voice(appointment_id: str) -> Response:
    """A guardian's consent to a minor's voiceprint, given or withdrawn."""
    with store() as session:
        mine = _mine(session, appointment_id, Role.GUARDIAN)
        if not session.get_one(Customer, mine.ward_id).minor:
            abort(404)
        standing = guardians_consent(session, mine.ward_id)
        if request.method == "GET":
            return page("voice", mine=mine, standing=standing)
        if error := refusal(session, mine.ward_id):
            return back("ward_voice", appointment_id=mine.id, error=error)
        if "withdraw" in request.form:
            minors.withdraw(session, mine.ward_id, mine.approver_id, now=now())
            said = "said.voice_withdrawn"
        else:
            minors.consent(session, mine.ward_id, mine.approver_id, channel=f"page, {who()}", now=now())
            said = "said.voice_consented"
    return back("ward_voice", appointment_id=mine.id, said=said)


@blueprint.route("/wards/<appointment_id>/freeze", methods=["GET", "POST"])
def ward_freeze(appointment_id: str) -> Response:
    """A guardian lets the ward pay again."""
    with store() as session:
        mine = _mine(session, appointment_id, Role.GUARDIAN)
        if request.method == "GET":
            return page("freeze", mine=mine, frozen=freezes.is_frozen(session, mine.ward_id))
        if error := refusal(session, mine.ward_id):
            return back("ward_freeze", appointment_id=mine.id, error=error)
        freezes.clear(session, mine.ward_id, who=who(), now=now())
    return back("ward", appointment_id=mine.id, said="said.cleared")


@blueprint.route("/wards/<appointment_id>/end", methods=["GET", "POST"])
def ward_end(appointment_id: str) -> Response:
    """A guardian or supervisor resigns, at once."""
    with store() as session:
        mine = _mine(session, appointment_id)
        if request.method == "GET":
            minor = session.get_one(Customer, mine.ward_id).minor
            return page("end", mine=mine, minor=minor and mine.role is Role.GUARDIAN)
        if error := refusal(session, mine.ward_id):
            return back("ward_end", appointment_id=mine.id, error=error)
        appointments.end(session, mine.id, by_approver=True, who=who(), now=now())
    return back("wards_page", said="said.resigned")


def _mine(session: Session, appointment_id: str, role: Role | None = None) -> Appointment:
    """An appointment that stands, of the signed-in person; 404 for every other."""
    for appointment in appointments.wards(session, person().customer_id, now()):
        if appointment.id == appointment_id and role in (None, appointment.role):
            return appointment
    abort(404)


def _payments(session: Session, ward_id: str) -> list[tuple[Payment, Bill]]:
    query = (
        select(Payment, Bill)
        .join(Bill, Bill.id == Payment.bill_id)
        .where(Payment.customer_id == ward_id)
        .order_by(Payment.created_at.desc(), Payment.id)
        .limit(MOST_PAYMENTS)
    )
    return [(payment, bill) for payment, bill in session.execute(query)]
