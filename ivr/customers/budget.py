"""One failure budget a customer, over all calls and all factors: card, voice, challenge, PIN and code."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ivr.customers.models import Failure, FailureBudget
from ivr.store.insert import insert_new

FREE_IN_A_ROW = 5
MOST_IN_ALL = 50
FIRST_WAIT = timedelta(minutes=15)
LONGEST_WAIT = timedelta(hours=24)


def wait_after(in_a_row: int) -> timedelta:
    """The wait after that many failures in a row: none before the fifth, then twice as long each time."""
    if in_a_row < FREE_IN_A_ROW:
        return timedelta(0)
    doublings = min(in_a_row - FREE_IN_A_ROW, 10)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)


def is_locked(session: Session, customer_id: str, now: datetime) -> bool:
    """Whether nothing the caller says may be accepted, for a while or until an operator resets the budget."""
    budget = session.get(FailureBudget, customer_id)
    if budget is None:
        return False
    return budget.total >= MOST_IN_ALL or (budget.locked_until is not None and now < budget.locked_until)


def record_failure(
    session: Session, customer_ids: Iterable[str], call_sid: str, step: str, now: datetime
) -> None:
    """Count a failed step, once, for every customer it may have been aimed at."""
    for customer_id in sorted(customer_ids):  # one order everywhere, so that two calls cannot deadlock
        failure = {
            "call_sid": call_sid,
            "step": step,
            "customer_id": customer_id,
            "at": now,
            "taken_back": False,
        }
        if not insert_new(session, Failure, failure):
            continue
        budget = _locked(session, customer_id)
        budget.in_a_row += 1
        budget.total += 1
        if wait := wait_after(budget.in_a_row):
            budget.locked_until = now + wait
    session.flush()


def record_success(session: Session, customer_id: str, call_sid: str) -> None:
    """The caller proved to be this customer.

    Her row of failures ends, and what this call counted against others who share her telephone is taken back.
    """
    others = session.scalars(
        select(Failure.customer_id)
        .where(
            Failure.call_sid == call_sid, Failure.customer_id != customer_id, Failure.taken_back.is_(False)
        )
        .distinct()
    )
    for who in sorted({customer_id, *others}):
        budget = _locked(session, who)
        if who == customer_id:
            budget.in_a_row = 0
        else:
            _take_back(session, budget, call_sid)
        if budget.in_a_row < FREE_IN_A_ROW:
            budget.locked_until = None
    session.flush()


def reset(session: Session, customer_id: str) -> None:
    """An operator's word that the customer may call again at once."""
    budget = _locked(session, customer_id)
    budget.in_a_row, budget.total, budget.locked_until = 0, 0, None
    session.flush()


def _take_back(session: Session, budget: FailureBudget, call_sid: str) -> None:
    this_calls = (
        Failure.call_sid == call_sid,
        Failure.customer_id == budget.customer_id,
        Failure.taken_back.is_(False),
    )
    statement = update(Failure).where(*this_calls).values(taken_back=True).returning(Failure.step)
    taken = len(session.scalars(statement).all())
    budget.in_a_row = max(0, budget.in_a_row - taken)
    budget.total = max(0, budget.total - taken)


def _locked(session: Session, customer_id: str) -> FailureBudget:
    """The customer's budget, its row locked until the transaction ends."""
    insert_new(
        session, FailureBudget, {"customer_id": customer_id, "in_a_row": 0, "total": 0, "locked_until": None}
    )
    return session.get_one(FailureBudget, customer_id, with_for_update=True, populate_existing=True)
