"""One failure budget a customer, over all calls and all factors: card, voice, challenge, PIN and code.

Failures of calls whose caller id is not fully attested are counted apart and lock such calls only, so that
nobody can lock a customer out of her own telephone from one that merely claims her number. She is told of every lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ivr.customers.models import Failure, FailureBudget
from ivr.customers.notices import notify
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


def hold(session: Session, customer_ids: Iterable[str]) -> None:
    """Lock the customers' budgets until the transaction ends: parallel calls wait for each other here.

    Whoever judges a guess calls this before ``is_locked``; else parallel calls guess more than the budget.
    """
    for customer_id in sorted(set(customer_ids)):  # one order everywhere, so that two calls cannot deadlock
        for attested in (False, True):
            _locked(session, customer_id, attested)


def is_locked(session: Session, customer_id: str, now: datetime, *, attested: bool = True) -> bool:
    """Whether nothing the caller says may be accepted, for a while or until an operator resets the budget.

    What attested calls failed locks every call; what unattested calls failed locks unattested ones.
    """
    kinds = (True,) if attested else (True, False)
    budgets = [session.get(FailureBudget, (customer_id, kind)) for kind in kinds]
    return any(budget is not None and is_spent(budget, now) for budget in budgets)


def is_spent(budget: FailureBudget, now: datetime) -> bool:
    """Whether this one budget locks, for a while or until an operator resets it."""
    return budget.total >= MOST_IN_ALL or (budget.locked_until is not None and now < budget.locked_until)


def failures_in_a_row(session: Session, customer_id: str, *, attested: bool = True) -> int:
    """Failures since this kind of call last succeeded. Call ``hold`` before."""
    budget = session.get(FailureBudget, (customer_id, attested))
    return budget.in_a_row if budget else 0


def record_failure(
    session: Session,
    customer_ids: Iterable[str],
    call_sid: str,
    step: str,
    now: datetime,
    *,
    attested: bool = True,
) -> None:
    """Count a failed step, once, for every customer it may have been aimed at.

    A customer who is locked is charged nothing more: trying again does not lengthen her own lock.
    """
    charged = sorted(set(customer_ids))
    hold(session, charged)
    for customer_id in charged:
        if is_locked(session, customer_id, now, attested=attested):
            continue
        failure = {"call_sid": call_sid, "step": step, "customer_id": customer_id, "at": now}
        if not insert_new(session, Failure, failure):
            continue
        budget = session.get_one(FailureBudget, (customer_id, attested))
        budget.in_a_row += 1
        budget.total += 1
        if wait := wait_after(budget.in_a_row):
            budget.locked_until = now + wait
        if is_spent(budget, now):
            notify(session, customer_id, "locked" if attested else "locked.unattested", {}, now)
    session.flush()


def record_success(session: Session, customer_id: str, call_sid: str, *, attested: bool = True) -> None:
    """The caller proved to be this customer: her row of failures, of this kind of call, ends.

    Nothing is given back to anybody: who ends a call with his own card may have guessed at another's in it.
    """
    _locked(session, customer_id, attested).in_a_row = 0
    session.flush()


def reset(session: Session, customer_id: str) -> None:
    """An operator's word that the customer may call again at once, over any line."""
    for attested in (False, True):
        budget = _locked(session, customer_id, attested)
        budget.in_a_row, budget.total, budget.locked_until = 0, 0, None
    session.flush()


def _locked(session: Session, customer_id: str, attested: bool) -> FailureBudget:
    """One budget of the customer, its row made if missing and locked until the transaction ends."""
    key = {"customer_id": customer_id, "attested": attested}
    insert_new(session, FailureBudget, {**key, "in_a_row": 0, "total": 0, "locked_until": None})
    return session.get_one(FailureBudget, (customer_id, attested), with_for_update=True)
