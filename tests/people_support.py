"""What the tests of the pages share: people, who looks after whom, payments that wait, a browser without scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from ivr.approval import appointments, gate, sign_in
from ivr.approval.links import reveal
from ivr.approval.models import ApprovalRequest
from ivr.approval.policy import Role
from ivr.customers import pins
from ivr.customers.bills import create_bill
from ivr.customers.cards import add_card
from ivr.customers.models import Card, ContactKind, Customer, Notice, new_id
from ivr.customers.register import add_contact, add_customer
from ivr.jobs import take
from ivr.keys import Keyring
from ivr.store.db import Database

PIN, OTHER_PIN, WRONG_PIN = "481516", "902137", "730285"
BASE_URL = "https://pay.example.com"
PHONES = iter(f"+1415555{n:04d}" for n in range(100, 10_000))
MERCHANT = "City Water"


def now() -> datetime:
    return datetime.now(UTC)


def add_person(
    session: Session, keyring: Keyring, *, pin: str = PIN, locale: str = "en", minor: bool = False, days: int = 30
) -> Customer:
    """A customer with a PIN, a card, and a telephone that she was given so many days ago."""
    phone, then = next(PHONES), now() - timedelta(days=days)
    long_ago = now() - timedelta(days=60)
    customer = add_customer(session, phones=[phone], locale=locale, minor=minor, test=True, now=long_ago)
    add_contact(session, customer.id, ContactKind.SMS, phone, then)
    pins.set_pin(session, customer.id, pin, keyring, then)
    add_card(
        session, customer.id, "4242424242424242", exp_year=then.year + 3, exp_month=1, token="tok",
        authorised_by="test", keyring=keyring, now=then,
    )  # fmt: skip
    return customer


def appoint(
    session: Session, role: Role, ward: Customer, approver: Customer, label: str = "Grandma", **more: Any
) -> str:
    """The id of an appointment that the approver has accepted."""
    proposed = appointments.propose(
        session, role, ward_id=ward.id, approver_id=approver.id, label=label, who="test", now=now(), **more
    )
    appointments.accept(session, proposed.id, approver.id, channel="test", now=now())
    return proposed.id


def pay(
    session: Session,
    payer: Customer,
    amount_minor: int = 5_000,
    *,
    ship_to: str | None = None,
    merchant: str = MERCHANT,
    factors: tuple[str, ...] = ("spoken card", "voice", "challenge", "pin"),
) -> str:
    """A payment that the payer confirmed in a call; its id."""
    bill = create_bill(
        session, payer.id, amount_minor=amount_minor, currency="USD", merchant=merchant, ship_to=ship_to, now=now()
    )
    card = session.scalar(select(Card).where(Card.customer_id == payer.id))
    assert card is not None
    return gate.start(
        session,
        bill_id=bill.id,
        customer_id=payer.id,
        card_id=card.id,
        idempotency_key=new_id(),
        call_sid="CA" + "1" * 32,
        factors=factors,
        attestation="TN-Validation-Passed-A",
        attested=True,
        now=now(),
    ).id


def request_of(session: Session, payment_id: str) -> str:
    found = session.scalar(select(ApprovalRequest.id).where(ApprovalRequest.payment_id == payment_id))
    assert found is not None
    return found


def sent(database: Database, customer: Customer, template: str, keyring: Keyring) -> dict[str, Any]:
    """The values of the newest notice of a kind, as its message has them."""
    with database.transaction() as session:
        notice = session.scalar(
            select(Notice)
            .where(Notice.customer_id == customer.id, Notice.template == template)
            .order_by(Notice.created_at.desc())
            .limit(1)
        )
        assert notice is not None, f"no {template}"
        return reveal(notice.values, keyring, BASE_URL)


def link_path(database: Database, customer: Customer, keyring: Keyring, template: str = "approval.ask") -> str:
    return str(sent(database, customer, template, keyring)["link"]).removeprefix(BASE_URL)


def run_code_jobs(database: Database) -> int:
    """Do what a worker does when somebody asked for a code."""
    done = 0
    while held := take(database, "test", {sign_in.CODE_JOB}, timedelta(seconds=30)):
        sign_in.send_code(held)
        held.done()
        done += 1
    return done


@dataclass
class Browser:
    """Follows forms as a browser without scripts does: the token of the page, redirects after a post."""

    client: FlaskClient
    database: Database
    keyring: Keyring
    address: str = "203.0.113.7"
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    path: str = ""

    def get(self, path: str, **options: Any) -> TestResponse:
        return self._keep(self._open(path, **options))

    def post(self, path: str, _token: str | None = None, **form: str) -> TestResponse:
        """Post a form of the page that is open, which is fetched first if there is none."""
        if "csrf_token" not in self.text:
            self.get(path)
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.text)
        token = _token if _token is not None else found[1] if found else ""
        given = self._open(path, method="POST", data={"csrf_token": token, **form})
        return self._keep(given)

    def sign_in(self, customer: Customer) -> TestResponse:
        self.get("/my/")
        self.post("/my/", number=customer.number)
        run_code_jobs(self.database)
        code = sent(self.database, customer, "page.code", self.keyring)["code"]
        given = self.post("/my/code", code=code)
        assert self.path == "/my/requests", self.text
        return given

    def _open(self, path: str, **options: Any) -> TestResponse:
        where = {"base_url": BASE_URL, "environ_base": {"REMOTE_ADDR": self.address}}
        return self.client.open(path, **where, headers=self.headers, follow_redirects=True, **options)

    def _keep(self, given: TestResponse) -> TestResponse:
        self.text, self.path = unescape(given.text), given.request.path
        return given
