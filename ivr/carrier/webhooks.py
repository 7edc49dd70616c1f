"""What the carrier requests over HTTP. Each view verifies, moves the call on by one step and answers."""

from __future__ import annotations

import re

import structlog
from flask import Blueprint, Response, abort, current_app, request

from ivr.approval.models import ApprovalRequest
from ivr.call.engine import NoSuchCall
from ivr.call.session import Answer
from ivr.carrier import twiml
from ivr.carrier.signature import is_from_carrier, public_url
from ivr.customers.lookup import customer_by_number, customers_for_caller, normalise_caller
from ivr.customers.models import Bill, Customer
from ivr.locales import LOCALES
from ivr.payments.banks import connect
from ivr.services import Services

log = structlog.get_logger()

LONGEST_KEYS = 2  # in a form; longer ones may be a card number, and forms are logged along the way
MOST_WAITS = 5
SID = re.compile(r"[A-Za-z0-9]{2,64}")

blueprint = Blueprint("carrier", __name__, url_prefix="/voice")


def services() -> Services:
    found: Services = current_app.extensions["ivr"]
    return found


@blueprint.before_request
def refuse_strangers() -> None:
    """403 for whoever is not the carrier, before anything else happens."""
    if not is_from_carrier(request, services().settings):
        log.warning("request without a valid signature", path=request.path)
        abort(403)
    if len(request.form.get("Digits", "")) > LONGEST_KEYS:
        abort(400)
    sid = request.form.get("MessageSid" if request.endpoint == "carrier.message" else "CallSid", "")
    if request.method == "POST" and not SID.fullmatch(sid):
        abort(400)


@blueprint.errorhandler(NoSuchCall)
def no_such_call(_error: NoSuchCall) -> Response:
    """A call that we do not know (any more) is told so politely; a stranger learns nothing from it."""
    return _xml(services().engine.apologise(""))


@blueprint.post("/answer")
def answer() -> Response:
    locale = request.args.get("locale", services().settings.locale)
    first = services().engine.ring(
        request.form["CallSid"],
        normalise_caller(request.form.get("From")),
        request.form.get("StirVerstat"),
        locale if locale in LOCALES else services().settings.locale,
    )
    return _xml(first)


@blueprint.post("/approver")
def approver() -> Response:
    """An approver took up the call that we placed."""
    if _is_machine():
        return Response(twiml.hang_up(), mimetype="text/xml")
    sid, about = request.form["CallSid"], request.args
    return _xml(services().engine.ring_approver(sid, about.get("request", ""), about.get("approver", "")))


@blueprint.post("/bill")
def bill() -> Response:
    """A customer took up the call that we placed about a bill."""
    if _is_machine():
        return Response(twiml.hang_up(), mimetype="text/xml")
    return _xml(services().engine.ring_payer(request.form["CallSid"], request.args.get("bill", "")))


@blueprint.post("/turn/<int:step>")
def turn(step: int) -> Response:
    """A listening turn is over, or a hold."""
    engine, sid = services().engine, request.form["CallSid"]
    following = engine.turn_over(sid, step)
    if following is None:
        waited = request.args.get("waited", 0, int)
        if waited < MOST_WAITS:
            return Response(twiml.wait(_base(), step, waited), mimetype="text/xml")
        following = engine.give_up_waiting(sid, step)
    return _xml(following)


@blueprint.post("/turn/<int:step>/key")
def key(step: int) -> Response:
    """One key, pressed while the question was being read out."""
    return _xml(services().engine.key_pressed(request.form["CallSid"], step, request.form.get("Digits", "")))


@blueprint.post("/status")
def status() -> Response:
    """The carrier tells how the call goes; we care for its end."""
    if request.form.get("CallStatus") in ("completed", "busy", "failed", "no-answer", "canceled"):
        services().engine.end(request.form["CallSid"])
    return Response(status=204)


@blueprint.post("/rehearsal")
def rehearsal() -> tuple[dict[str, bool], int]:
    """Asked by a simulated carrier before it plays a call: whether that could be about anybody but test customers.

    Told to whoever can sign as the carrier, and no more than yes or no of everybody together.
    """
    asked = request.form
    with services().database.transaction() as session:
        touched = customers_for_caller(session, asked.get("From"))
        touched += [c for number in asked.get("Customers", "").split() if (c := customer_by_number(session, number))]
        owed = session.get(Bill, asked.get("Bill", ""))
        open_request = session.get(ApprovalRequest, asked.get("Request", ""))
        ids = {owed and owed.customer_id, open_request and open_request.ward_id, asked.get("Approver")}
        touched += [c for customer_id in ids if customer_id and (c := session.get(Customer, customer_id))]
        only_tests = all(customer.test for customer in touched)
    test_bank = connect(services().settings).test_only
    log.info("asked about a simulated call", test_customers=only_tests, test_bank=test_bank)
    return {"test_customers": only_tests, "test_bank": test_bank}, 200


@blueprint.post("/message")
def message() -> Response:
    """A text message to our number: nothing is said to it (a STOP the carrier itself heeds)."""
    return Response(twiml.silence(), mimetype="text/xml")


@blueprint.post("/fallback")
def fallback() -> Response:
    """Something of ours did not answer: apologise."""
    log.error("fallback requested", call=request.form["CallSid"], error=request.form.get("ErrorCode"))
    return _xml(services().engine.apologise(request.form["CallSid"]))


def _is_machine() -> bool:
    """Whether a machine took up a call that we placed; it is told nothing."""
    return request.form.get("AnsweredBy", "human") not in ("human", "unknown")


def _base() -> str:
    return public_url(request, services().settings).split("/voice/")[0]


def _xml(given: Answer) -> Response:
    token = services().calls.stream_token(request.form["CallSid"], given.step) if given.then == "listen" else ""
    return Response(twiml.twiml(given, _base(), token, services().settings), mimetype="text/xml")
