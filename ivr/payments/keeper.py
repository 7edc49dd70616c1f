"""What keeps the index of pending debits whole: everything that may be confirmed now, read from the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import redis
import structlog
from sqlalchemy import exists, select
from sqlalchemy.exc import SQLAlchemyError

from ivr.customers.models import Bill, Card
from ivr.payments.models import DebitNotice, Payment
from ivr.payments.pending import Debit, Pending, PendingDebits
from ivr.payments.states import State
from ivr.store.db import Database

LOOK_EVERY_S = 1.0
PAGE = 1000

log = structlog.get_logger(__name__)


def as_pending(payment: Payment, card_token: str, merchant: str) -> Pending:
    """An authorised payment as the bank will announce it."""
    debit = Debit(merchant, card_token, payment.debit_minor, payment.currency, payment.bank_reference)
    return Pending(payment.id, debit, payment.hold_expires_at)


def pages(database: Database, bank: str) -> Iterator[Sequence[Pending]]:
    """Every debit that is pending, in transactions of their own, so that nobody waits for all of them."""
    confirmed = exists().where(DebitNotice.payment_id == Payment.id, DebitNotice.reason.is_(None))
    query = (
        select(Payment, Card.bank_token, Bill.merchant)
        .join(Card, Card.id == Payment.card_id)
        .join(Bill, Bill.id == Payment.bill_id)
        .where(Payment.state == State.AUTHORISED, Payment.bank == bank, ~confirmed)
        .order_by(Payment.id)
        .limit(PAGE)
    )
    last = ""
    while True:
        with database.transaction() as session:
            page = [as_pending(*row) for row in session.execute(query.where(Payment.id > last))]
        if not page:
            return
        yield page
        last = page[-1].payment_id


def keep_whole(database: Database, bank: str, pending: PendingDebits, *, anew: bool = False) -> None:
    """Rebuild the index when Redis has lost it; with ``anew`` in any case."""
    try:
        if (anew or not pending.is_whole()) and pending.rebuild(pages(database, bank)):
            log.info("pending debits rebuilt")
    except (redis.RedisError, SQLAlchemyError) as error:  # tried again at the next look
        log.error("pending debits not rebuilt", error=type(error).__name__)


def keep(database: Database, bank: str, pending: PendingDebits, stop: threading.Event) -> None:
    """Rebuild the index now, and whenever Redis loses it, until ``stop`` is set."""
    anew = True
    while not stop.is_set():
        keep_whole(database, bank, pending, anew=anew)
        anew = False
        stop.wait(LOOK_EVERY_S)
