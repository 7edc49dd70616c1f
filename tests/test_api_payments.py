"""What merchants see of payments, and what they may do with them: refunds, and holds posted or released."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from api_support import Program, now, program
from flask import Flask
from people_support import add_person
from sqlalchemy import select

from ivr.approval import gate
from ivr.customers.models import Card
from ivr.keys import Keyring
from ivr.payments import service
from ivr.payments.models import Payment
from ivr.payments.states import Event, State
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]


@dataclass
class Shop:
    """A merchant with a customer who pays."""

    program: Program
    other: Program
    database: Database
    customer: str
    customer_id: str

    def paid(self, *events: Event, amount_minor: int = 5_000, hold_only: bool = False) -> dict[str, Any]:
        """A payment of a new bill, moved so far; as the API shows it."""
        asked = {"customer": self.customer, "amount_minor": amount_minor, "currency": "USD", "hold_only": hold_only}
        bill = self.program.made("/bills", asked)
        with self.database.transaction() as session:
            card = session.scalar(select(Card).where(Card.customer_id == self.customer_id))
            assert card
            payment = gate.start(
                session, bill_id=bill["id"], customer_id=self.customer_id, card_id=card.id,
                idempotency_key=f"key-{bill['id']}", call_sid="CA" + "1" * 32, factors=("pin",), attestation=None,
                attested=False, now=now(),
            )  # fmt: skip
            for event in events:
                move = service.Move(payment.id, event, "test", bank_reference="ref")
                service.record_move(session, move, who="test", now=now())
        found: dict[str, Any] = self.program.get(f"/payments/{payment.id}").get_json()
        return found


@pytest.fixture
def shop(pages: Flask, database: Database, keyring: Keyring) -> Shop:
    client = pages.test_client()
    ours, other = program(client, database), program(client, database, "Other Shop")
    with database.transaction() as session:
        person = add_person(session, keyring)
    customer = ours.made("/customers", {"reference": "c", "number": person.number})
    return Shop(ours, other, database, customer["id"], person.id)


PAID = (Event.SEND, Event.AUTHORISE, Event.CAPTURE)
HELD = (Event.SEND, Event.HOLD)


def test_a_payment_is_seen_by_its_merchant_alone(shop: Shop) -> None:
    payment = shop.paid(*PAID)
    assert (payment["status"], payment["amount_minor"]) == ("paid", 5_000)
    assert payment["receipt_number"]
    assert shop.program.get("/payments", bill=payment["bill"]).get_json()["data"] == [payment]
    assert shop.program.get(f"/bills/{payment['bill']}").get_json()["status"] == "paid"
    assert shop.other.get(f"/payments/{payment['id']}").status_code == 404
    assert shop.other.get("/payments").get_json()["data"] == []
    for what in ("post", "release"):
        assert shop.other.post(f"/payments/{payment['id']}/{what}").status_code == 404


@pytest.mark.parametrize(
    ("events", "status"),
    [((), "under_way"), ((Event.SEND,), "under_way"), ((Event.SEND, Event.LOSE), "under_way"),
     ((Event.SEND, Event.DECLINE), "failed"), ((Event.CANCEL,), "failed"), (PAID, "paid")],
)  # fmt: skip
def test_a_merchant_is_told_how_a_payment_stands_and_not_why(
    shop: Shop, events: tuple[Event, ...], status: str
) -> None:
    payment = shop.paid(*events)
    assert payment["status"] == status
    assert payment.keys() == {
        "id", "bill", "amount_minor", "currency", "status", "ship_to", "receipt_number", "created_at"
    }  # fmt: skip


def test_refunds_up_to_what_was_paid(shop: Shop) -> None:
    payment = shop.paid(*PAID)
    part = shop.program.made("/refunds", {"payment": payment["id"], "amount_minor": 2_000})
    assert (part["status"], part["amount_minor"]) == ("requested", 2_000)
    too_much = shop.program.post("/refunds", {"payment": payment["id"], "amount_minor": 3_001})
    assert (too_much.status_code, too_much.get_json()["code"]) == (409, "conflict")
    rest = shop.program.made("/refunds", {"payment": payment["id"]}, key="the-rest-of-it")
    assert rest["amount_minor"] == 3_000
    assert shop.program.made("/refunds", {"payment": payment["id"]}, key="the-rest-of-it") == rest
    assert [r["id"] for r in shop.program.get("/refunds", payment=payment["id"]).get_json()["data"]] == [
        rest["id"], part["id"]
    ]  # fmt: skip
    assert shop.other.get(f"/refunds/{part['id']}").status_code == 404
    assert shop.other.post("/refunds", {"payment": payment["id"]}).status_code == 404
    unpaid = shop.paid()
    assert shop.program.post("/refunds", {"payment": unpaid["id"]}).status_code == 409


def test_what_is_held_is_posted_or_released_once(shop: Shop) -> None:
    held = shop.paid(*HELD, hold_only=True)
    assert held["status"] == "held"
    assert shop.program.post(f"/payments/{held['id']}/post", {"amount_minor": 5_001}).status_code == 409
    posted = shop.program.made(f"/payments/{held['id']}/post", {"amount_minor": 1_500})
    assert (posted["status"], posted["amount_minor"]) == ("under_way", 1_500)
    assert shop.program.post(f"/payments/{held['id']}/release").status_code == 409
    other = shop.paid(*HELD, hold_only=True)
    assert shop.program.made(f"/payments/{other['id']}/release")["status"] == "under_way"
    with shop.database.transaction() as session:
        assert session.get_one(Payment, held["id"]).state is State.AUTHORISED
        assert session.get_one(Payment, other["id"]).state is State.VOIDING
