"""The books: a transfer for every amount held, released, debited and given back.

==========  ===============  ================  ====================================
kind        debit            credit            when
==========  ===============  ================  ====================================
hold        held:BANK        pending:MERCHANT  the bank authorised
release     pending:MERCHANT held:BANK         what was held is resolved, either way
post        bank:BANK        merchant:MERCHANT the bank debited the card
refund      merchant:MERCHANT bank:BANK        the bank gave back
==========  ===============  ================  ====================================
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr.customers.models import Bill
from ivr.payments.models import Payment, Transfer
from ivr.payments.states import Event

_RESOLVING = {Event.CAPTURE, Event.VOID, Event.DECLINE}


def book_move(session: Session, payment: Payment, event: Event, now: datetime) -> None:
    """Book what an event of the debit means. Booking the same twice is an IntegrityError."""
    if event in (Event.AUTHORISE, Event.HOLD):
        _book(session, payment, "hold", f"{payment.id}:hold", payment.amount_minor, now)
    if event in _RESOLVING and session.scalar(select(Transfer.id).where(Transfer.cause == f"{payment.id}:hold")):
        _book(session, payment, "release", f"{payment.id}:release", payment.amount_minor, now)
    if event is Event.CAPTURE:
        _book(session, payment, "post", f"{payment.id}:post", payment.debit_minor, now)


def book_refund(session: Session, payment: Payment, refund_id: str, amount_minor: int, now: datetime) -> None:
    """Book an amount given back. Booking the same refund twice is an IntegrityError."""
    _book(session, payment, "refund", f"{refund_id}:refund", amount_minor, now)


def balances(session: Session) -> dict[tuple[str, str], int]:
    """Debits less credits, in minor units, by account and currency; their sum is zero in each currency."""
    found: dict[tuple[str, str], int] = {}
    for account, sign in ((Transfer.debit, 1), (Transfer.credit, -1)):
        query = select(account, Transfer.currency, func.sum(Transfer.amount_minor)).group_by(account, Transfer.currency)
        for name, currency, amount in session.execute(query):
            found[name, currency] = found.get((name, currency), 0) + sign * int(amount)
    return found


def _book(session: Session, payment: Payment, kind: str, cause: str, amount_minor: int, now: datetime) -> None:
    merchant = session.get_one(Bill, payment.bill_id).merchant
    held = (f"held:{payment.bank}", f"pending:{merchant}")
    money = (f"bank:{payment.bank}", f"merchant:{merchant}")
    debit, credit = {"hold": held, "release": held[::-1], "post": money, "refund": money[::-1]}[kind]
    session.add(
        Transfer(
            cause=cause,
            payment_id=payment.id,
            kind=kind,
            debit=debit,
            credit=credit,
            amount_minor=amount_minor,
            currency=payment.currency,
            at=now,
        )
    )
    session.flush()
