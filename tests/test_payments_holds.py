"""Amounts that are held first: posted whole or in part, released, or left to expire; each resolved once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from payments_support import add_payer, captures, confirm, history, make_due, new_pan, status
from redis import Redis
from sqlalchemy import select

from ivr.call.engine import Engine
from ivr.call.flow import Call
from ivr.call.flow import State as CallState
from ivr.call.session import Answer, CallStore
from ivr.customers.models import Bill, Notice
from ivr.keys import Keyring
from ivr.payments import holds, refunds, verify, worker
from ivr.payments.books import balances
from ivr.payments.models import Payment
from ivr.payments.processor import IdempotencyConflict
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["payments_fixtures"]

HELD = ["created", "debiting", "held"]


def held_payment(database: Database, bank: SandboxBank, settings: Settings, call_sid: str = "CA1") -> Payment:
    """A payment of 42.10 that the bank holds until somebody posts it."""
    token = bank.tokenise(new_pan(), 2099, 1).token
    with database.transaction() as session:
        payer = add_payer(session, token)
        session.flush()
        session.get_one(Bill, payer.bill_id).hold_only = True
        payment = confirm(session, payer, f"call:{call_sid}:{payer.bill_id}")
    work(settings)
    with database.transaction() as session:
        return session.get_one(Payment, payment.id)


@pytest.fixture
def payment(database: Database, bank: SandboxBank, bank_settings: Settings) -> Payment:
    return held_payment(database, bank, bank_settings)


def work(settings: Settings) -> None:
    worker.run(settings, threading.Event(), once=True)


def post(
    database: Database,
    bank: SandboxBank,
    payment: Payment,
    amount_minor: int | None,
    key: str = "k",
    now: datetime | None = None,
) -> int:
    with database.transaction() as session:
        how = {"key": key, "who": "test", "why": "delivered"}
        return holds.post(session, payment.id, amount_minor, bank.capabilities, **how, now=now or datetime.now(UTC))


def release(database: Database, payment: Payment, key: str = "k") -> None:
    with database.transaction() as session:
        holds.release(session, payment.id, key=key, who="test", why="not delivered", now=datetime.now(UTC))


def agree(database: Database, bank: SandboxBank, payment: Payment) -> None:
    statement = [line for line in bank.statement() if line.reference == payment.id]
    with database.transaction() as session:
        assert list(verify.problems(session, "sandbox", statement)) == []
        assert sum(balances(session).values()) == 0


def templates(database: Database) -> list[tuple[str, int]]:
    with database.transaction() as session:
        found = session.scalars(select(Notice).order_by(Notice.created_at)).all()
        return [(notice.template, notice.values["amount_minor"]) for notice in found]


def test_a_bill_to_be_held_is_held_and_not_debited(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    assert history(database, payment.id) == HELD
    assert status(database, payment.id) == ("held", "open")
    assert captures(bank, payment.id) == []
    assert payment.hold_expires_at is not None
    assert payment.hold_expires_at - datetime.now(UTC) > timedelta(days=6)
    assert templates(database) == [("payment.held", 4210)]
    with database.transaction() as session:
        assert verify.stuck(session, datetime.now(UTC) + timedelta(days=5)) == []
        assert len(verify.stuck(session, datetime.now(UTC) + timedelta(days=8))) == 1


@pytest.mark.parametrize(("amount_minor", "debited"), [(None, 4210), (4210, 4210), (1000, 1000), (1, 1)])
def test_a_part_is_posted_and_everything_agrees_on_it(
    database: Database,
    bank: SandboxBank,
    bank_settings: Settings,
    payment: Payment,
    amount_minor: int | None,
    debited: int,
) -> None:
    assert post(database, bank, payment, amount_minor) == debited
    work(bank_settings)
    work(bank_settings)
    assert history(database, payment.id) == [*HELD, "authorised", "paid"]
    assert status(database, payment.id) == ("paid", "paid")
    assert captures(bank, payment.id) == [debited]
    assert templates(database) == [("payment.held", 4210), ("payment.made", debited)]
    agree(database, bank, payment)
    with database.transaction() as session:
        account = {name: amount for (name, _), amount in balances(session).items() if amount}
        assert account == {"bank:sandbox": debited, "merchant:City Water": -debited}
        [row] = verify.settlement(session, datetime.now(UTC).date())
        assert row[5] == debited


def test_the_rest_of_a_posted_hold_can_be_spent_again(
    database: Database, bank: SandboxBank, bank_settings: Settings
) -> None:
    token = bank.open_account(new_pan(), "Ada", 5000).token
    with database.transaction() as session:
        payer = add_payer(session, token)
        session.flush()
        session.get_one(Bill, payer.bill_id).hold_only = True
        payment = confirm(session, payer)
        other = confirm(session, add_payer(session, token, amount_minor=4000), "other")
    work(bank_settings)
    assert status(database, other.id)[0] == "refused"  # 42.10 of 50 are held
    post(database, bank, payment, 1000)
    work(bank_settings)
    with database.transaction() as session:
        again = confirm(session, add_payer(session, token, amount_minor=4000), "again")
    work(bank_settings)
    assert status(database, again.id)[0] == "paid"


def test_no_more_is_given_back_than_was_posted(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    post(database, bank, payment, 1000)
    work(bank_settings)
    named = {"who": "test", "why": "x", "now": datetime.now(UTC)}
    with pytest.raises(refunds.NotRefundable), database.transaction() as session:
        refunds.request_refund(session, payment.id, 1001, key="a", **named)
    with database.transaction() as session:
        assert refunds.request_refund(session, payment.id, None, key="b", **named).amount_minor == 1000
    work(bank_settings)
    assert status(database, payment.id)[0] == "refunded"
    agree(database, bank, payment)


def test_a_hold_is_released_and_the_bill_can_be_paid_anew(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    release(database, payment)
    work(bank_settings)
    assert history(database, payment.id) == [*HELD, "voiding", "voided"]
    assert status(database, payment.id) == ("voided", "open")
    assert captures(bank, payment.id) == []
    agree(database, bank, payment)


def test_a_hold_is_resolved_once(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    post(database, bank, payment, 1000, "first")
    assert post(database, bank, payment, 1000, "first") == 1000
    with pytest.raises(IdempotencyConflict):
        post(database, bank, payment, 2000, "first")
    with pytest.raises(holds.NotHeld):
        post(database, bank, payment, 1000, "second")
    with pytest.raises(holds.NotHeld):
        release(database, payment)
    work(bank_settings)
    with pytest.raises(holds.NotHeld):
        post(database, bank, payment, None, "third")
    assert captures(bank, payment.id) == [1000]


@pytest.mark.parametrize("amount_minor", [0, -1, 4211])
def test_more_than_is_held_or_nothing_is_not_posted(
    database: Database, bank: SandboxBank, payment: Payment, amount_minor: int
) -> None:
    with pytest.raises(holds.NotSoMuch):
        post(database, bank, payment, amount_minor)
    assert history(database, payment.id) == HELD


def test_a_bank_that_posts_only_the_whole_is_not_asked_for_a_part(
    database: Database, bank: SandboxBank, payment: Payment
) -> None:
    bank.capabilities = type(bank.capabilities)(False, True, False, True)
    with pytest.raises(holds.NotSoMuch):
        post(database, bank, payment, 1000)
    assert post(database, bank, payment, 4210) == 4210


def test_a_hold_that_nobody_posts_in_time_is_let_go(
    database: Database, bank: SandboxBank, bank_settings: Settings
) -> None:
    bank.control(hold_s=1.5)
    payment = held_payment(database, bank, bank_settings)
    assert payment.hold_expires_at
    with pytest.raises(holds.NotHeld, match="only until"):
        post(database, bank, payment, None, now=payment.hold_expires_at)
    time.sleep(max(0.0, (payment.hold_expires_at - datetime.now(UTC)).total_seconds()))
    work(bank_settings)
    assert history(database, payment.id) == [*HELD, "voiding", "voided"]
    agree(database, bank, payment)


def test_a_post_that_comes_too_late_at_the_bank_ends_voided(
    database: Database, bank: SandboxBank, bank_settings: Settings
) -> None:
    bank.control(hold_s=1.5)
    payment = held_payment(database, bank, bank_settings)
    post(database, bank, payment, 1000)
    assert payment.hold_expires_at
    time.sleep(max(0.0, (payment.hold_expires_at - datetime.now(UTC)).total_seconds()))
    work(bank_settings)
    assert status(database, payment.id) == ("voided", "open")
    assert captures(bank, payment.id) == []
    agree(database, bank, payment)


def test_a_bank_that_is_away_does_not_undo_a_posted_hold(
    database: Database, bank: SandboxBank, bank_settings: Settings, payment: Payment
) -> None:
    post(database, bank, payment, 1000)
    bank.control(fail={"capture": 12})
    for _ in range(13):
        work(bank_settings)
        make_due(database)
    assert status(database, payment.id)[0] == "paid"
    assert captures(bank, payment.id) == [1000]
    agree(database, bank, payment)


def test_the_caller_hears_what_is_held_and_what_was_debited(
    database: Database, bank: SandboxBank, bank_settings: Settings, redis_client: Redis, keyring: Keyring
) -> None:
    payment = held_payment(database, bank, bank_settings, "CA9")
    facts = {"id": payment.bill_id, "merchant": "City Water", "amount_minor": 4210, "currency": "USD"}
    who = {"customer_id": payment.customer_id, "card_id": payment.card_id}
    call = Call("CA9", "en", state=CallState.DEBIT, bill=facts, **who)
    calls = CallStore(redis_client, keyring)
    engine = Engine(calls, database, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    for prompt, amount in (("pay.held", "42 US dollars 10"), ("pay.done", "10 US dollars")):
        redis_client.flushall()
        calls.move(0, call, Answer(1, call.state, (), "hold", "en"))
        answer = engine.turn_over("CA9", 1)
        assert answer
        [line] = answer.lines
        assert line.prompt == prompt
        assert amount in str(line)
        if prompt == "pay.held":
            post(database, bank, payment, 1000)
            work(bank_settings)


def test_the_operators_commands(
    database: Database,
    bank: SandboxBank,
    bank_settings: Settings,
    payment: Payment,
    payments_command: Callable[..., tuple[int, str]],
) -> None:
    code, table = payments_command("held")
    assert code == 0
    assert payment.id in table
    assert "42.10" in table
    assert payments_command("post", payment.id, "--amount-minor", "4211", "--why", "x")[0] == 1
    code, said = payments_command("post", payment.id, "--amount-minor", "1000", "--why", "two nights", "--key", "k")
    assert (code, said) == (0, f"payment {payment.id}: 1000 minor units to be debited, key k\n")
    assert payments_command("held") == (0, "nothing is held\n")
    said = f"Error: payment {payment.id} is authorised, not held\n"
    assert payments_command("release", payment.id, "--why", "x") == (1, said)
    work(bank_settings)
    assert captures(bank, payment.id) == [1000]
    assert payments_command("verify", "--without-bank")[0] == 0


def test_a_hold_is_released_by_command(
    database: Database,
    bank: SandboxBank,
    bank_settings: Settings,
    payment: Payment,
    payments_command: Callable[..., tuple[int, str]],
) -> None:
    assert payments_command("release", payment.id, "--why", "did not come")[0] == 0
    work(bank_settings)
    assert status(database, payment.id) == ("voided", "open")
