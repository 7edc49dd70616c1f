"""Debits that the bank makes only when we confirm its notice: worker, endpoint and bank over real HTTP."""

from __future__ import annotations

import threading

import pytest
from payments_support import add_payer, captures, confirm, history, make_due, new_pan, status
from sqlalchemy import select

from ivr.payments import worker
from ivr.payments.models import DebitNotice, Payment
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["notices_fixtures"]

PAID = ["created", "debiting", "authorised", "paid"]


@pytest.fixture
def payment(database: Database, confirming_bank: SandboxBank) -> Payment:
    token = confirming_bank.tokenise(new_pan(), 2099, 1).token
    with database.transaction() as session:
        return confirm(session, add_payer(session, token))


def work(settings: Settings) -> None:
    worker.run(settings, threading.Event(), once=True)


def answers(database: Database) -> list[tuple[str | None, str | None]]:
    """Payment and reason of every notice answered, in order."""
    with database.transaction() as session:
        return [tuple(row) for row in session.execute(select(DebitNotice.payment_id, DebitNotice.reason))]  # type: ignore[misc]


def test_the_bank_debits_when_its_notice_is_confirmed(
    database: Database, confirming_bank: SandboxBank, worker_settings: Settings, payment: Payment
) -> None:
    work(worker_settings)
    assert history(database, payment.id) == PAID
    assert captures(confirming_bank, payment.id) == [4210]
    assert answers(database) == [(payment.id, None)]
    assert [row["outcome"] for row in confirming_bank.books()["notices"]] == ["confirmed"]
