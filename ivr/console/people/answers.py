"""Requests that wait for an answer, and those that were answered."""

from __future__ import annotations

from flask import Response, abort, request
from sqlalchemy.orm import Session

from ivr.approval import addresses, requests
from ivr.approval.models import Answer, ApprovalRequest
from ivr.approval.requests import Result
from ivr.console.people import shown
from ivr.console.people.desk import back, blueprint, now, page, person, reading, refusal, who, words, writing
from ivr.customers.errors import InvalidInput
from ivr.payments.models import Payment

VERIFIED_BY = "pin, page"


@blueprint.get("/requests")
def requests_page() -> Response:
    reader = person()
    with reading() as session:
        waiting = shown.waiting(session, reader.customer_id, reader.device, now())
        history = shown.history(session, reader.customer_id, reader.device, now())
    return page("requests", waiting=waiting, history=history, now=now())


@blueprint.route("/requests/<request_id>", methods=["GET", "POST"])
def request_page(request_id: str) -> Response:
    if request.method == "POST":
        return _answer(request_id)
    reader = person()
    with reading() as session:
        found = shown.one(session, request_id, reader.customer_id, reader.device, now())
    if found is None:
        abort(404)
    return page("request", shown=found, now=now())


def _answer(request_id: str) -> Response:
    if request.form.get("answer") not in list(Answer):
        abort(400)
    given, reader = Answer(request.form["answer"]), person()
    with writing() as session:
        asked = session.get(ApprovalRequest, request_id)
        if error := refusal(session, asked.ward_id if asked else None):
            return back("request_page", request_id=request_id, error=error)
        # Whether this person may add it is known before the answer; the answer does not hang on whether it can be.
        found = shown.one(session, request_id, reader.customer_id, reader.device, now())
        result = requests.answer(session, request_id, reader.customer_id, given, verified_by=VERIFIED_BY, now=now())
        problem = ""
        if result in (Result.APPROVED, Result.MORE_NEEDED) and found and found.may_add_address and _wanted():
            assert asked is not None
            problem = _add_address(session, asked)
    if result is Result.NOT_YOURS:
        return page("error", 404, key="result.not_yours")
    return back("request_page", request_id=request_id, said=f"result.{result}", error=problem)


def _wanted() -> bool:
    return "add_address" in request.form


def _add_address(session: Session, asked: ApprovalRequest) -> str:
    """Put the goods' address into the payer's book; why it could not be, as a key of words."""
    label = request.form.get("address_label", "").strip() or words()("request.address_label_default")
    text = session.get_one(Payment, asked.payment_id).ship_to
    assert text is not None
    try:
        addresses.add(session, asked.ward_id, label, text, who=who(), now=now())
    except InvalidInput:  # checked before anything is written
        return "error.address_not_added"
    return ""
