"""From a payment's end, through the real worker, to the merchant's server; and the operator's commands."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from payments_support import add_payer, confirm, make_due, new_pan
from sqlalchemy import select
from webhooks_support import Merchant

import ivr.ops.desk
from ivr.customers.models import Audit
from ivr.ops.cli import main
from ivr.ops.commands import webhook
from ivr.payments import worker
from ivr.payments.models import Payment
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.webhooks.models import WebhookEndpoint

pytest_plugins = ["payments_fixtures", "webhooks_fixtures"]

Run = Callable[..., Result]


@pytest.fixture
def private(bank_settings: Settings) -> Settings:
    return bank_settings.model_copy(update={"webhooks_to_private": True})


@pytest.fixture
def ivr_webhook(private: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``ivr webhook`` with the test's settings and database."""
    for module in (ivr.ops.desk, webhook):
        monkeypatch.setattr(module, "settings", lambda: private)
    monkeypatch.setattr(ivr.ops.desk, "upgrade", lambda _: None)  # the fixture made the tables
    return lambda *arguments: CliRunner().invoke(main, ["webhook", *arguments])


def pay(database: Database, bank: SandboxBank, settings: Settings, prefix: str) -> Payment:
    token = bank.tokenise(new_pan(prefix), 2099, 1).token
    with database.transaction() as session:
        payment = confirm(session, add_payer(session, token), key=prefix)
    worker.run(settings, threading.Event(), once=True)
    return payment


def test_paid_and_refused_payments_are_told_and_told_again_by_command(
    database: Database, bank: SandboxBank, private: Settings, merchant: Merchant, ivr_webhook: Run
) -> None:
    added = ivr_webhook("add", merchant.url, "--merchant", "City Water")
    assert added.exit_code == 0, added.output
    assert (found := re.search(r"endpoint (\w+) of City Water\nsecret (whsec_\S+)\n", added.output))
    endpoint, secret = found.groups()
    paid = pay(database, bank, private, "424242")
    pay(database, bank, private, "400001")
    assert merchant.kinds() == ["payment.paid", "payment.refused"]
    assert b"receipt_number" in merchant.got[0][1]
    assert b"insufficient" not in merchant.got[1][1]

    assert ivr_webhook("replay", paid.id, "--endpoint", endpoint).output == "1 message queued\n"
    assert ivr_webhook("secret", endpoint).output == f"{secret}\n"
    assert "waiting" in ivr_webhook("list").output
    worker.run(private, threading.Event(), once=True)
    assert merchant.ids()[2] == merchant.ids()[0]

    assert ivr_webhook("remove", endpoint).exit_code == 0
    assert ivr_webhook("remove", endpoint).exit_code == 2
    assert ivr_webhook("replay", paid.id).exit_code == 1
    with database.transaction() as session:
        trail = session.scalars(select(Audit).where(Audit.what.startswith("webhook.")).order_by(Audit.at)).all()
    assert [line.what for line in trail] == [
        "webhook.added",
        "webhook.replayed",
        "webhook.secret_shown",
        "webhook.removed",
    ]
    assert secret not in str([line.details for line in trail])


def test_a_url_that_is_not_https_is_refused_in_one_line(ivr_webhook: Run) -> None:
    answer = ivr_webhook("add", "http://shop.example/hooks", "--merchant", "City Water")
    assert (answer.exit_code, answer.output.count("\n")) == (2, 1)


def test_a_merchant_that_is_away_holds_up_no_debit(
    database: Database, bank: SandboxBank, private: Settings, merchant: Merchant, ivr_webhook: Run
) -> None:
    ivr_webhook("add", merchant.url, "--merchant", "City Water")
    merchant.answers = [(503, {})]
    payment = pay(database, bank, private, "424242")
    with database.transaction() as session:
        assert session.get_one(Payment, payment.id).state == "paid"
    assert merchant.got == []
    make_due(database)
    with database.transaction() as session:
        session.scalars(select(WebhookEndpoint)).one().resting_until = None
    worker.run(private, threading.Event(), once=True)
    assert merchant.kinds() == ["payment.paid"]
