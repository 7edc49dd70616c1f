from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO

import pytest
from payments_support import add_payer, confirm, history, make_due, new_pan
from sqlalchemy import func, select, update

from ivr.customers.models import Audit, Notice
from ivr.jobs import Job
from ivr.payments import refunds, service, verify, worker
from ivr.payments.books import balances
from ivr.payments.debit import KEY_LIFE
from ivr.payments.models import AppendOnly, Payment, PaymentCommand, Refund, Transfer
from ivr.payments.processor import IdempotencyConflict
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.states import Event, State
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["payments_fixtures"]


@pytest.fixture
def paid(database: Database, bank: SandboxBank, bank_settings: Settings) -> str:
    """The id of a paid payment of 42.10."""
    token = bank.tokenise(new_pan(), 2099, 1).token
    with database.transaction() as session:
        payment_id = confirm(session, add_payer(session, token)).id
    work(bank_settings)
    return payment_id


def work(settings: Settings) -> None:
    worker.run(settings, threading.Event(), once=True)


def ask(database: Database, payment_id: str, amount_minor: int | None, key: str) -> str:
    with database.transaction() as session:
        now = datetime.now(UTC)
        return refunds.request_refund(
            session, payment_id, amount_minor, key=key, who="test", why="returned", now=now
        ).id


def problems(database: Database, bank: SandboxBank) -> list[str]:
    with database.transaction() as session:
        ours = set(session.scalars(select(Payment.id)))
        statement = [line for line in bank.statement() if line.reference in ours]  # the bank has other tests' too
        return list(verify.problems(session, "sandbox", statement))


def refunded_at_bank(bank: SandboxBank, payment_id: str) -> list[int]:
    return [line.amount_minor for line in bank.statement() if (line.reference, line.kind) == (payment_id, "refund")]


def test_a_payment_is_given_back_in_parts_and_never_more_than_it_was(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str
) -> None:
    ask(database, paid, 1000, "a")
    work(bank_settings)
    assert history(database, paid)[-1] == "part_refunded"
    with pytest.raises(refunds.NotRefundable, match="3210"):
        ask(database, paid, 3211, "b")
    ask(database, paid, None, "b")
    with pytest.raises(refunds.NotRefundable):  # what is asked for counts, though the bank was not asked yet
        ask(database, paid, 1, "c")
    work(bank_settings)
    assert history(database, paid)[-2:] == ["part_refunded", "refunded"]
    assert refunded_at_bank(bank, paid) == [1000, 3210]
    assert problems(database, bank) == []
    with database.transaction() as session:
        assert set(balances(session).values()) == {0}
        assert session.scalar(select(func.count()).where(Notice.template == "payment.refunded")) == 2
        whats = set(session.scalars(select(Audit.what).where(Audit.subject == paid)))
        assert whats == {"payment.moved", "refund.requested", "refund.done"}


def test_the_same_key_from_eight_threads_is_one_refund(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str
) -> None:
    together = threading.Barrier(8)

    def once(_: int) -> str:
        together.wait()
        return ask(database, paid, 500, "same")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(once, range(8)))) == 1
    with pytest.raises(IdempotencyConflict):
        ask(database, paid, 501, "same")
    work(bank_settings)
    assert refunded_at_bank(bank, paid) == [500]


@pytest.mark.parametrize("fault", [{"fail": {"refund": 2}}, {"lose": {"refund": 2}}])
def test_a_refund_whose_answer_is_lost_is_repeated_and_made_once(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str, fault: dict[str, dict[str, int]]
) -> None:
    ask(database, paid, 700, "a")
    bank.control(**fault)
    for _ in range(3):
        work(bank_settings)
        make_due(database)
    assert refunded_at_bank(bank, paid) == [700]
    assert history(database, paid)[-1] == "part_refunded"
    assert problems(database, bank) == []


def test_a_refund_older_than_its_key_is_left_to_a_person(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str
) -> None:
    refund_id = ask(database, paid, None, "a")
    with database.transaction() as session:
        session.get_one(Refund, refund_id).created_at -= KEY_LIFE
        assert verify.stuck(session, datetime.now(UTC)) == []
    work(bank_settings)
    assert refunded_at_bank(bank, paid) == []
    with database.transaction() as session:
        [stuck] = verify.stuck(session, datetime.now(UTC))
    assert stuck[:4] == (paid, refund_id, "requested", "KeyLifeOver")


@pytest.mark.parametrize(("outcome", "ends", "left"), [("done", "part_refunded", 3210), ("refused", "paid", 4210)])
def test_a_person_says_what_became_of_a_stuck_refund(
    database: Database,
    bank_settings: Settings,
    paid: str,
    payments_command: Callable[..., tuple[int, str]],
    outcome: str,
    ends: str,
    left: int,
) -> None:
    refund_id = ask(database, paid, 1000, "a")
    resolve = ("resolve-refund", refund_id, outcome, "--why", "line 17")
    assert payments_command(*resolve)[0] == 1  # not stuck: a worker will see to it
    with database.transaction() as session:
        session.get_one(Refund, refund_id).created_at -= KEY_LIFE
    work(bank_settings)
    assert payments_command("resolve", paid, "paid", "--why", "x")[0] == 1  # the payment itself is not stuck
    assert payments_command(*resolve) == (0, f"refund {refund_id} is {outcome}\n")
    assert payments_command("stuck")[0] == 0
    assert history(database, paid)[-1] == ends
    with database.transaction() as session:
        assert list(verify.problems(session, "sandbox", None)) == []
        [line] = session.scalars(select(Audit).where(Audit.what == f"refund.{outcome}"))
        assert line.details == {"refund": refund_id, "why": "line 17"}
    with pytest.raises(refunds.NotRefundable, match=str(left)):
        ask(database, paid, 4211, "b")


def test_an_unpaid_payment_is_not_refunded_and_a_cancelled_one_never_reaches_the_bank(
    database: Database, bank: SandboxBank, bank_settings: Settings
) -> None:
    with database.transaction() as session:
        payer = add_payer(session, bank.tokenise(new_pan(), 2099, 1).token)
        payment = confirm(session, payer)
    with pytest.raises(refunds.NotRefundable):
        ask(database, payment.id, None, "a")
    with database.transaction() as session:
        command = service.Move(payment.id, Event.CANCEL, "by the test")
        assert service.record_move(session, command, who="test", now=datetime.now(UTC)).state is State.CANCELLED
    work(bank_settings)
    assert history(database, payment.id) == ["created", "cancelled"]
    assert [row for row in bank.books()["authorisations"] if row["reference"] == payment.id] == []
    with database.transaction() as session:
        assert confirm(session, payer, "another").state is State.CREATED


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (update(Payment).values(state=State.REFUSED), "its history ends in paid"),
        (update(Transfer).where(Transfer.kind == "post").values(amount_minor=1), "the books say debited 1"),
        (update(Transfer).where(Transfer.kind == "release").values(amount_minor=1), "still hold"),
        (update(Payment).values(amount_minor=5), "at the bank"),
    ],
)
def test_verify_sees_what_does_not_agree(
    database: Database, bank: SandboxBank, paid: str, damage: object, said: str
) -> None:
    assert problems(database, bank) == []
    with database.transaction() as session:
        session.execute(damage)  # type: ignore[call-overload]
    assert any(said in problem for problem in problems(database, bank))


def test_what_moves_after_the_statement_was_asked_for_is_no_problem(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str
) -> None:
    asked_at, before = datetime.now(UTC), bank.statement()
    ask(database, paid, 1000, "a")
    with database.transaction() as session:
        other = confirm(session, add_payer(session, bank.tokenise(new_pan(), 2099, 1).token), "other").id
    work(bank_settings)
    ours = [line for line in before if line.reference == paid]
    with database.snapshot() as session:
        assert list(verify.problems(session, "sandbox", ours, asked_at)) == []
        asked_at = datetime.now(UTC)
        assert set(verify.problems(session, "sandbox", ours, asked_at)) == {
            f"{paid}: refund of 1000 here, of 0 at the bank",
            f"{other}: debit of 4210 here, of 0 at the bank",
        }


def test_a_refund_that_the_bank_made_and_did_not_say_is_no_problem_yet(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str
) -> None:
    ask(database, paid, 1000, "a")
    bank.control(lose={"refund": 1})
    work(bank_settings)
    assert refunded_at_bank(bank, paid) == [1000]
    assert problems(database, bank) == []


def test_what_moves_while_verify_reads_is_no_problem(
    database: Database, bank: SandboxBank, bank_settings: Settings, paid: str
) -> None:
    with database.snapshot() as session:
        assert session.get_one(Payment, paid).state is State.PAID
        ask(database, paid, 1000, "a")
        work(bank_settings)  # waits for no reader
        assert list(verify.problems(session, "sandbox", None)) == []
        assert session.scalars(select(Refund)).all() == []
    assert history(database, paid)[-1] == "part_refunded"


def test_commands_and_transfers_cannot_be_changed(database: Database, paid: str) -> None:
    for table in (PaymentCommand, Transfer):
        with pytest.raises(AppendOnly), database.transaction() as session:
            session.delete(session.scalars(select(table)).first())


def test_the_operators_commands(
    database: Database,
    bank_settings: Settings,
    bank: SandboxBank,
    paid: str,
    payments_command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert payments_command("refund", paid, "--amount-minor", "10", "--why", "returned", "--key", "k")[0] == 0
    work(bank_settings)
    code, table = payments_command("settlement", f"{datetime.now(UTC):%Y-%m-%d}")
    assert code == 0
    rows = list(csv.DictReader(StringIO(table)))
    assert [(row["kind"], row["amount_minor"], row["currency"]) for row in rows] == [
        ("debit", "4210", "USD"),
        ("refund", "-10", "USD"),
    ]
    assert payments_command("stuck") == (0, "nothing needs a person\n")
    monkeypatch.setattr(
        "ivr.ops.commands.payments.settings",
        lambda: bank_settings.model_copy(update={"bank_url": "http://127.0.0.1:9"}),
    )
    assert payments_command("verify") == (
        1,
        "Error: the bank of IVR_BANK gave no usable answer: no answer from the bank (ConnectionError)\n",
    )
    assert payments_command("verify", "--without-bank") == (0, "records and books agree\n")
    said = "Error: a payment that is part_refunded cannot cancel\n"
    assert payments_command("cancel", paid, "--why", "x") == (1, said)
    with database.transaction() as session:
        lost = confirm(session, add_payer(session, bank.tokenise(new_pan(), 2099, 1).token), "lost")
        session.execute(update(Job).where(Job.dedupe_key.endswith(lost.id)).values(done_at=lost.created_at))
        service.record_move(session, service.Move(lost.id, Event.SEND, "x"), who="test", now=lost.created_at)
    assert payments_command("stuck")[0] == 1
    assert payments_command("resolve", lost.id, "refused", "--why", "not on the statement")[0] == 0
    assert payments_command("stuck")[0] == 0
    assert history(database, lost.id) == ["created", "debiting", "unknown", "refused"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--why", "x" * 201), "--why has 1 to 200"),
        (("--why", "card 4539 1488 0343 6467"), "card number"),
        (("--why", "x", "--key", "k" * 101), "--key has 1 to 100"),
    ],
)
def test_a_reason_that_cannot_be_stored_is_refused_and_nothing_is_given_back(
    database: Database, paid: str, payments_command: Callable[..., tuple[int, str]], options: tuple[str, ...], said: str
) -> None:
    code, output = payments_command("refund", paid, *options)
    assert (code, said in output) == (2, True)
    with database.transaction() as session:
        assert session.scalars(select(Refund)).all() == []
