"""A family for the tests of approvals: a payer, those who look after her, a bill; and the worker that debits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from payments_support import add_payer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval import appointments, gate, policies, requests, verify
from ivr.approval.models import Answer, Appointment, ApprovalRequest
from ivr.approval.policy import Policy, Role
from ivr.approval.requests import Result
from ivr.customers.bills import create_bill
from ivr.customers.models import Card, Customer, Notice
from ivr.customers.pins import set_pin
from ivr.customers.register import add_customer
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.payments.states import State
from ivr.store.db import Database

PIN, WRONG = "482915", "482916"
SPOKEN = ("spoken card", "voice", "challenge")
ADDRESS = "1 Main Street, Springfield"


@dataclass
class Family:
    """One ward, her approvers, and what is done in their names. Times are given: no test waits."""

    database: Database
    keyring: Keyring
    now: datetime
    ward_id: str = ""
    card_id: str = ""
    approvers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.database.transaction() as session:
            payer = add_payer(session)
            self.ward_id, self.card_id = payer.customer_id, payer.card_id
            set_pin(session, self.ward_id, PIN, self.keyring, self.now)

    def approver(
        self, role: Role = Role.GUARDIAN, *, accepted: bool = True, phone: str | None = None, **more: Any
    ) -> str:
        """Somebody with a PIN and a settled telephone number, named, and by default accepted."""
        number = phone or f"+1415555{2000 + len(self.approvers)}"
        long_ago = self.now - timedelta(days=30)
        with self.database.transaction() as session:
            customer = add_customer(session, phones=[number], sms=[number], now=long_ago)
            set_pin(session, customer.id, PIN, self.keyring, long_ago)
            appointment = appointments.propose(
                session, role, ward_id=self.ward_id, approver_id=customer.id, label="Lea",
                who="test", now=self.now, **more,
            )  # fmt: skip
            if accepted:
                appointments.accept(session, appointment.id, customer.id, channel="test", now=self.now)
        self.approvers.append(customer.id)
        return customer.id

    def bill(self, amount_minor: int = 4_210, **more: Any) -> str:
        with self.database.transaction() as session:
            values = {"merchant": "Corner Bookshop", "currency": "USD", "now": self.now, **more}
            return create_bill(session, self.ward_id, amount_minor=amount_minor, **values).id

    def pay(
        self, bill_id: str, *, factors: Sequence[str] = SPOKEN, key: str = "", now: datetime | None = None
    ) -> Payment:
        with self.database.transaction() as session:
            return gate.start(
                session,
                bill_id=bill_id,
                customer_id=self.ward_id,
                card_id=self.card_id,
                idempotency_key=key or f"call:{bill_id}",
                call_sid="CA1",
                factors=factors,
                attestation="TN-Validation-Passed-A",
                attested=True,
                now=now or self.now,
            )

    def token(self, token: str) -> None:
        """The bank's token of the ward's card, where a bank debits it."""
        with self.database.transaction() as session:
            session.get_one(Card, self.card_id).bank_token = token

    def request_of(self, payment: Payment) -> str:
        with self.database.transaction() as session:
            return session.scalars(select(ApprovalRequest.id).where(ApprovalRequest.payment_id == payment.id)).one()

    def answers(
        self,
        approver_id: str,
        payment: Payment,
        given: Answer = Answer.APPROVE,
        *,
        pin: str = PIN,
        now: datetime | None = None,
    ) -> Result | None:
        """What a page does with a posted answer; None where the PIN was wrong."""
        request_id = self.request_of(payment)
        with self.database.transaction() as session:
            moment = now or self.now + timedelta(minutes=1)
            if not verify.by_pin(session, approver_id, pin, self.keyring, "page", moment):
                return None
            return requests.answer(session, request_id, approver_id, given, verified_by="pin, page", now=moment)

    def state(self, payment: Payment) -> State:
        with self.database.transaction() as session:
            return session.get_one(Payment, payment.id).state

    def reason(self, payment: Payment) -> str | None:
        with self.database.transaction() as session:
            return session.get_one(Payment, payment.id).decline_reason

    def request_state(self, payment: Payment) -> str:
        with self.database.transaction() as session:
            return session.get_one(ApprovalRequest, self.request_of_in(session, payment)).state.value

    @staticmethod
    def request_of_in(session: Session, payment: Payment) -> str:
        return session.scalars(select(ApprovalRequest.id).where(ApprovalRequest.payment_id == payment.id)).one()

    def policy(self, policy: Policy | None) -> None:
        with self.database.transaction() as session:
            policies.put(session, self.ward_id, policy, who="test", now=self.now)

    def notices(self, customer_id: str) -> list[str]:
        with self.database.transaction() as session:
            query = select(Notice.template).where(Notice.customer_id == customer_id)
            return sorted(session.scalars(query))

    def appointment_of(self, approver_id: str) -> Appointment:
        with self.database.transaction() as session:
            return session.scalars(select(Appointment).where(Appointment.approver_id == approver_id)).one()

    def customer(self, customer_id: str) -> Customer:
        with self.database.transaction() as session:
            return session.get_one(Customer, customer_id)
