"""Being asked to look after somebody's payments: what it means, and yes or no."""

from __future__ import annotations

from flask import Response, abort, request

from ivr.approval import appointments
from ivr.approval.models import Appointment, Standing
from ivr.console.people.desk import back, blueprint, now, page, person, reading, refusal, who, writing


@blueprint.route("/appointments/<appointment_id>", methods=["GET", "POST"])
def appointment(appointment_id: str) -> Response:
    if request.method == "POST":
        return _decide(appointment_id)
    with reading() as session:
        found = session.get(Appointment, appointment_id)
    if found is None or found.approver_id != person().customer_id:
        abort(404)
    over = found.standing is Standing.PROPOSED and now() > found.proposed_at + appointments.PROPOSAL_LIFE
    return page("appointment", found=found, state="ended" if over else found.standing.value)


def _decide(appointment_id: str) -> Response:
    if request.form.get("decision") not in ("accept", "decline"):
        abort(400)
    mine = person().customer_id
    try:
        with writing() as session:
            found = session.get(Appointment, appointment_id)
            if error := refusal(session, found.ward_id if found else None):
                return back("appointment", appointment_id=appointment_id, error=error)
            if found is None or found.approver_id != mine:
                return page("error", 404, key="error.404")
            if request.form["decision"] == "accept":
                appointments.accept(session, appointment_id, mine, channel="page, pin", now=now())
                said = "said.accepted"
            elif found.standing is Standing.PROPOSED:
                appointments.end(session, appointment_id, by_approver=True, who=who(), now=now())
                said = "said.declined"
            else:  # one that stands is ended on its own page, which says what that means
                raise appointments.NotAppointed("this was decided before")
    except appointments.NotAppointed:
        return back("appointment", appointment_id=appointment_id, error="error.appointment")
    return back("appointment", appointment_id=appointment_id, said=said)
