"""Ringing up a customer about a bill, where she agreed to that: who is rung, for how long, until when.

The worker places the call; what is said in it is the call's own matter (``ivr.call.judging.rung``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from ivr import jobs
from ivr.approval import appointments, freezes
from ivr.clock import utc_now
from ivr.customers import audit, budget, rings
from ivr.customers.bills import has_live_payment
from ivr.customers.cards import authorised_cards
from ivr.customers.lookup import customers_for_caller, lock_customer
from ivr.customers.models import Bill, BillStatus, Consent
from ivr.customers.pins import has_pin
from ivr.customers.rings import Dial, Kind, Ring
from ivr.customers.voiceprints import record_consent, voiceprint_of
from ivr.jobs import Held

RING_JOB = "bill.ring"
PAGE = "bill"
BILL_CALLS = Kind(rung="bill.rung", apart=timedelta(hours=1))
TAKEN_UP = "bill.taken_up"
ASKED_FOR = timedelta(days=1)
"""After this a bill that was to ring does so no more, until its merchant asks again."""

CONSENT_KIND = "rung_for_bills"
CONSENT_TEXT_VERSION = "rung-for-bills-1"


def may_be_rung(session: Session, customer_id: str) -> bool:
    """Whether the customer agreed to be rung up about bills, and still does."""
    return session.scalar(_consents(customer_id)) is not None


def agree(session: Session, customer_id: str, *, who: str, channel: str, now: datetime) -> bool:
    """The customer agrees to be rung up about bills; False if she did before."""
    lock_customer(session, customer_id)
    if may_be_rung(session, customer_id):
        return False
    record_consent(session, customer_id, kind=CONSENT_KIND, text_version=CONSENT_TEXT_VERSION, channel=channel, now=now)
    audit.record(session, who, "rung_for_bills.agreed", customer_id, now)
    return True


def withdraw(session: Session, customer_id: str, *, who: str, now: datetime) -> bool:
    """The customer does not want to be rung up any more; False if she never did, or said so before."""
    lock_customer(session, customer_id)
    standing = session.scalars(_consents(customer_id)).all()
    for consent in standing:
        consent.withdrawn_at = now
    if standing:
        audit.record(session, who, "rung_for_bills.withdrawn", customer_id, now)
        session.flush()
    return bool(standing)


def plan(session: Session, bill_id: str, now: datetime) -> None:
    """Have the worker ring whoever owes the bill, if anybody does; asked again on the same day, the same."""
    payload = {"bill_id": bill_id, "asked_at": now.isoformat()}
    jobs.put(session, RING_JOB, payload, f"{RING_JOB}:{bill_id}:{now:%Y-%m-%d}", now)


def ring(held: Held, dial: Dial | None, zone: str, clock: Callable[[], datetime] = utc_now) -> None:
    """Ring, until somebody has taken up the call, the day is over or there is no reason to any more. Raises Again."""
    bill_id, asked_at, now = held.payload["bill_id"], datetime.fromisoformat(held.payload["asked_at"]), clock()

    def wanted(session: Session) -> Ring | None:
        if now >= asked_at + ASKED_FOR or audit.last(session, TAKEN_UP, bill_id, since=asked_at):
            return None
        return whom(session, bill_id, now)

    rings.ring(held, dial, BILL_CALLS, wanted, now=now, zone=zone)


def taken_up(session: Session, bill_id: str, call_sid: str, now: datetime) -> Ring | None:
    """Somebody took up the call about the bill, which rings no more; None when there is nothing to talk about."""
    wanted = whom(session, bill_id, now)
    if wanted is not None:
        audit.record(session, "the service", TAKEN_UP, bill_id, now, call=call_sid)
    return wanted


def whom(session: Session, bill_id: str, now: datetime) -> Ring | None:
    """Who is to be rung about the bill, and where; None unless she agreed to it, owes it and could pay it so.

    The number is one that she calls from, alone, and has for some days: else another would take up the call.
    """
    bill = session.get(Bill, bill_id)
    if bill is None or bill.status is not BillStatus.OPEN or has_live_payment(session, bill_id):
        return None
    payer = bill.customer_id
    if not may_be_rung(session, payer) or freezes.is_frozen(session, payer):
        return None
    proves = voiceprint_of(session, payer) and has_pin(session, payer) and authorised_cards(session, payer, now.date())
    if not proves or budget.is_locked(session, payer, now):
        return None
    for number in appointments.settled_caller_ids(session, payer, now):
        if len(customers_for_caller(session, number)) == 1:
            return Ring(payer, number, PAGE, {"bill": bill_id})
    return None


def _consents(customer_id: str) -> Select[Consent]:
    return select(Consent).where(
        Consent.customer_id == customer_id, Consent.kind == CONSENT_KIND, Consent.withdrawn_at.is_(None)
    )
