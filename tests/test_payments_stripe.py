from __future__ import annotations

import threading

from payments_support import add_payer, confirm, history, status
from stripe_fixtures import StripeStandIn

from ivr.payments import worker
from ivr.payments.bank import StatementLine
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["stripe_fixtures"]

PAID = ["created", "debiting", "authorised", "paid"]


def work(settings: Settings) -> None:
    worker.run(settings, threading.Event(), once=True)


def test_a_debit_is_captured_once_at_stripe(
    database: Database, stripe_standin: StripeStandIn, stripe_settings: Settings
) -> None:
    with database.transaction() as session:
        payment = confirm(session, add_payer(session, stripe_standin.token()), bank="stripe")
    work(stripe_settings)
    work(stripe_settings)
    assert history(database, payment.id) == PAID
    assert status(database, payment.id) == ("paid", "paid")
    assert stripe_standin.lines(payment.id) == [StatementLine(payment.id, "debit", 4210, "USD")]
