"""What the tests of the operators' console share: operators with their second factors, and a call that left traces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pyotp
from flask import Flask
from people_support import Browser, add_person, appoint, now, pay
from sqlalchemy import select
from werkzeug.test import TestResponse

from ivr.approval import freezes
from ivr.approval.policy import Role as Appointed
from ivr.call.flow import FULL_ATTESTATION, Event, State
from ivr.call.models import Turn
from ivr.call.session import Outcome
from ivr.console.operators import accounts
from ivr.console.operators.models import Role
from ivr.customers import audit, budget
from ivr.customers.bills import create_bill
from ivr.customers.models import Card
from ivr.customers.voiceprints import record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.ledger import outbox
from ivr.payments.models import Payment, Refund, RefundState, Transfer
from ivr.store.db import Database

PASSWORD = "correct horse battery"
SID, OTHER_SID = "CA" + "ab" * 16, "CA" + "cd" * 16
PAN = "4242424242424242"  # of everybody's card (people_support)
SPELLED = "four two four two four two four two"


def add_operator(database: Database, keyring: Keyring, name: str, role: Role = Role.ADMIN) -> pyotp.TOTP:
    """An operator; what makes her codes."""
    with database.transaction() as session:
        secret = accounts.add(session, name, role, PASSWORD, keyring, who="test", now=now())
    return pyotp.TOTP(parse_qs(urlsplit(secret.uri).query)["secret"][0])


def code(totp: pyotp.TOTP, steps: int = 0, at: datetime | None = None) -> str:
    """The code of now, or of so many half minutes later."""
    return totp.generate_otp(totp.timecode(at or now()) + steps)


class DeskBrowser(Browser):
    """At the console."""

    def try_to_enter(self, name: str, password: str, code: str) -> TestResponse:
        self.get("/desk/sign-in")
        return self.post("/desk/sign-in", name=name, password=password, code=code)

    def enter(self, name: str, role: Role = Role.ADMIN) -> None:
        totp = add_operator(self.database, self.keyring, name, role)
        self.try_to_enter(name, PASSWORD, code(totp))
        assert self.path == "/desk/", self.text


@dataclass(frozen=True)
class Traces:
    """What a call, and what came after it, left behind."""

    customer_id: str
    number: str
    payment_id: str
    waiting_id: str  # a ward's payment that waits for her guardian


def a_call(app: Flask, database: Database, keyring: Keyring) -> Traces:
    """A caller who is known, fails at first, confirms and pays; then a refund, a lock, a freeze.

    Wherever people or programs write freely, somebody wrote a card number.
    """
    engine = app.extensions["ivr"].engine
    with database.transaction() as session:
        caller = add_person(session, keyring)
        card = session.scalars(select(Card).where(Card.customer_id == caller.id)).one()
        card.authorised_by = f"on paper, {PAN}"
        bill = create_bill(
            session, caller.id, amount_minor=4210, currency="USD", merchant="Corner Bookshop", now=now(),
            description="two books",
        )  # fmt: skip
        ward, guardian = add_person(session, keyring), add_person(session, keyring)
        appoint(session, Appointed.GUARDIAN, ward, guardian)
        waiting_id = pay(session, ward, 5_000)
        consent = record_consent(session, caller.id, text_version="voiceprint-1", channel=f"card {SPELLED}", now=now())
        store_voiceprint(session, caller.id, b"voice", "model-1", 8000, "telephone", consent.id, keyring, now())
        for n in range(5):
            budget.record_failure(session, [caller.id], OTHER_SID, str(n), now())
        freezes.freeze(session, caller.id, who="test", now=now())
        freezes.clear(session, caller.id, who="test", now=now())
        audit.record(session, "operator test", "note", caller.id, now(), said=f"card 4242-4242 4242 4242; {SPELLED}")
        phone = caller.caller_ids[0].e164
    assert engine.ring(SID, phone, FULL_ATTESTATION, "en").state is State.CARD
    call = engine.store.load(SID)[1]
    _turn(database, 1, State.CARD, Event.AGAIN, {"end": "words", "note": PAN})
    engine.store.put_outcome(1, Outcome(Event.AGAIN, call))
    engine.turn_over(SID, 1)
    known = replace(
        engine.store.load(SID)[1], customer_id=caller.id, card_id=card.id, last4="4242",
        evidence=("spoken card", "voice", "challenge"),
        bill={"id": bill.id, "merchant": bill.merchant, "amount_minor": 4210, "currency": "USD"},
    )  # fmt: skip
    _turn(database, 2, State.CARD, Event.ONE_BILL, {"end": "words", "voice": [["match", 4.25]], "card": True})
    engine.store.put_outcome(2, Outcome(Event.ONE_BILL, known))
    assert engine.turn_over(SID, 2).state is State.CONFIRM
    _turn(database, 3, State.CONFIRM, Event.CONFIRMED, {"end": "words", "voice": [["match", 3.5]]})
    engine.store.put_outcome(3, Outcome(Event.CONFIRMED, engine.store.load(SID)[1]))
    assert engine.turn_over(SID, 3).state is State.DEBIT
    engine.end(SID)
    with database.transaction() as session:
        payment = session.scalars(select(Payment).where(Payment.call_sid == SID)).one()
        payment.ship_to = f"12 Garden Road {PAN}"
        outbox.settled(session, payment, now())
        session.add(
            Transfer(
                cause="debit", payment_id=payment.id, kind="debit", debit="bank", credit="merchant:Corner Bookshop",
                amount_minor=4210, currency="USD", at=now(),
            )
        )  # fmt: skip
        session.add(
            Refund(
                payment_id=payment.id, amount_minor=500, state=RefundState.REQUESTED, bank_key="key",
                why=f"card {PAN} was debited twice", created_at=now(), updated_at=now(),
            )
        )  # fmt: skip
        return Traces(caller.id, caller.number, payment.id, waiting_id)


def _turn(database: Database, step: int, state: State, event: Event, decisions: dict[str, object]) -> None:
    at = now() + timedelta(milliseconds=step)
    with database.transaction() as session:
        session.add(Turn(call_sid=SID, step=step, at=at, state=state, event=event, decisions=decisions))


def pages_of(traces: Traces) -> dict[str, str]:
    """Every page by its endpoint."""
    return {
        "desk.calls": "/desk/",
        "desk.call": f"/desk/calls/{SID}",
        "desk.payments": "/desk/payments",
        "desk.payment": f"/desk/payments/{traces.payment_id}",
        "desk.approvals": "/desk/approvals",
        "desk.customers": "/desk/customers",
        "desk.customer": f"/desk/customers/{traces.customer_id}",
        "desk.models": "/desk/models",
        "desk.plot": "/desk/models/digits/reliability.png",
        "desk.ledger": "/desk/ledger",
        "desk.health": "/desk/health",
        "desk.operators": "/desk/operators",
    }
