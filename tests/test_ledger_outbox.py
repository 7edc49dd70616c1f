"""From a settled payment, through the real worker and a real node, to a proof that is checked offline."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from payments_support import add_payer, confirm, new_pan
from pydantic import SecretStr
from sqlalchemy import select, update

import ivr.ops.desk
from bench.ledger.processes import RealMember, found, running, until
from ivr.ledger import outbox
from ivr.ledger.models import LedgerEntry
from ivr.ops.cli import main
from ivr.ops.commands import payments as payments_commands
from ivr.payments import refunds, worker
from ivr.payments.models import Payment, Transfer
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store.db import Database

pytest_plugins = ["payments_fixtures"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMember]:
    [member] = found(tmp_path_factory.mktemp("ledger"), 1)
    with running([member]):
        yield member


@pytest.fixture
def with_ledger(bank_settings: Settings, node: RealMember) -> Settings:
    return bank_settings.model_copy(update={"ledger_url": node.url, "ledger_token": SecretStr(node.token)})


@pytest.fixture
def ivr_(with_ledger: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for module in (ivr.ops.desk, payments_commands):
        monkeypatch.setattr(module, "settings", lambda: with_ledger)
    monkeypatch.setattr(ivr.ops.desk, "upgrade", lambda _: None)  # the fixture made the tables
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


def pay(database: Database, bank: SandboxBank, settings: Settings, prefix: str = "424242") -> Payment:
    token = bank.tokenise(new_pan(prefix), 2099, 1).token
    with database.transaction() as session:
        payment = confirm(session, add_payer(session, token), key=prefix)
    worker.run(settings, threading.Event(), once=True)
    return payment


def carry_all(database: Database, node: RealMember) -> None:
    carrier = outbox.Carrier(database, outbox.NodeClient(node.url, node.token))
    until("everything is on the ledger", lambda: carrier.step() == 0)


def test_a_settled_payment_and_its_refund_come_to_the_ledger_and_are_proved_offline(
    database: Database,
    bank: SandboxBank,
    with_ledger: Settings,
    node: RealMember,
    ivr_: Callable[..., Result],
    tmp_path: Path,
) -> None:
    payment = pay(database, bank, with_ledger)
    pay(database, bank, with_ledger, "400001")  # declined: nothing to tell
    assert "not on the ledger (yet)" in ivr_("payments", "show", payment.id).output
    assert ivr_("ledger", "prove", payment.id).exit_code == 1
    carry_all(database, node)
    with database.transaction() as session:
        refunds.request_refund(session, payment.id, 100, key="r", who="test", why="test", now=datetime.now(UTC))
    worker.run(with_ledger, threading.Event(), once=True)
    carry_all(database, node)

    with database.transaction() as session:
        assert [e.kind for e in session.scalars(select(LedgerEntry).order_by(LedgerEntry.id))] == ["payment", "refund"]
    shown = ivr_("payments", "show", payment.id).output
    assert "payment on the ledger: block" in shown
    assert "refund on the ledger: block" in shown
    proof = tmp_path / "proof.json"
    proof.write_text(ivr_("ledger", "prove", payment.id).output)
    genesis = node.folder / "genesis.json"
    checked = ivr_("ledger", "check", proof, "--genesis", genesis)
    assert checked.exit_code == 0, checked.output
    assert '"amount_minor": 4210' in checked.output

    receipts = json.loads(proof.read_text())
    for change in (
        lambda r: r["details"].update(amount_minor=1),
        lambda r: r.update(salt="00" * 32),
        lambda r: r["proof"]["inclusion"]["record"].update(commitment="00" * 32),
        lambda r: r["proof"]["inclusion"]["certificate"].update(signatures=[]),
        lambda r: r.pop("proof"),
    ):
        altered = json.loads(json.dumps(receipts))
        change(altered[0])
        proof.write_text(json.dumps(altered))
        assert ivr_("ledger", "check", proof, "--genesis", genesis).exit_code == 1


def test_the_ledger_is_told_a_commitment_and_nothing_else(
    database: Database, bank: SandboxBank, with_ledger: Settings, node: RealMember
) -> None:
    payment = pay(database, bank, with_ledger)
    carry_all(database, node)
    with database.transaction() as session:
        entry = session.scalars(select(LedgerEntry).where(LedgerEntry.payment_id == payment.id)).one()
        assert entry.proof is not None
        told = entry.proof["inclusion"]["record"]
    assert sorted(told) == ["commitment", "id", "kind", "member", "signature"]
    assert told["commitment"] == outbox.commitment(entry.salt, entry.details)
    assert told["commitment"] != outbox.commitment("00" * 32, entry.details)


def test_without_a_ledger_payments_settle_and_are_told_when_there_is_one(
    database: Database, bank: SandboxBank, bank_settings: Settings, node: RealMember
) -> None:
    payment = pay(database, bank, bank_settings)
    with database.transaction() as session:
        assert session.get_one(Payment, payment.id).state == "paid"
        assert outbox.receipt_of(session, payment.id) == []
    carry_all(database, node)
    with database.transaction() as session:
        assert len(outbox.receipt_of(session, payment.id)) == 1


def test_a_node_that_is_away_keeps_nothing_from_settling_and_two_carriers_record_once(
    database: Database, bank: SandboxBank, with_ledger: Settings, node: RealMember
) -> None:
    away = with_ledger.model_copy(update={"ledger_url": "http://127.0.0.1:9"})
    payment = pay(database, bank, away)
    gone = outbox.Carrier(database, outbox.NodeClient("http://127.0.0.1:9", "x"))
    with pytest.raises(outbox.NodeUnavailable):
        gone.step()
    wrong = outbox.Carrier(database, outbox.NodeClient(node.url, "wrong token"))
    with pytest.raises(outbox.NodeUnavailable):
        wrong.step()
    first, second = (outbox.Carrier(database, outbox.NodeClient(node.url, node.token)) for _ in range(2))
    first.step()
    second.step()
    until("on the ledger", lambda: first.step() == 0 and second.step() == 0)
    with database.transaction() as session:
        assert len(outbox.receipt_of(session, payment.id)) == 1


def test_the_workers_lane_carries_until_it_is_stopped(
    database: Database, bank: SandboxBank, with_ledger: Settings, node: RealMember
) -> None:
    payment = pay(database, bank, with_ledger)
    stop = threading.Event()
    lane = threading.Thread(target=outbox.carry, args=(database, with_ledger, stop))
    lane.start()

    def proved() -> bool:
        with database.transaction() as session:
            return bool(outbox.receipt_of(session, payment.id))

    until("proved", proved)
    stop.set()
    lane.join()


def test_another_commitment_under_the_same_id_goes_to_a_person(
    database: Database, bank: SandboxBank, with_ledger: Settings, node: RealMember
) -> None:
    payment = pay(database, bank, with_ledger)
    assert node.submit([{"kind": "payment", "id": payment.id, "commitment": "00" * 32}])
    carry_all(database, node)
    with database.transaction() as session:
        entry = session.scalars(select(LedgerEntry).where(LedgerEntry.payment_id == payment.id)).one()
        assert (entry.height, entry.refused) == (None, "another commitment of this id is on the ledger")


def test_a_days_settlement_is_put_on_the_ledger_once_it_is_over(
    database: Database,
    bank: SandboxBank,
    with_ledger: Settings,
    node: RealMember,
    ivr_: Callable[..., Result],
    tmp_path: Path,
) -> None:
    pay(database, bank, with_ledger)
    today, kind = datetime.now(UTC).date(), database.engine.dialect.name
    assert ivr_("ledger", "settle", today).exit_code == 2
    day = today - timedelta(days=1 if kind == "sqlite" else 2)  # the databases take turns, the node stays
    with database.transaction() as session:
        for transfer in session.scalars(select(Transfer)):
            session.execute(update(Transfer).where(Transfer.id == transfer.id).values(at=transfer.at - (today - day)))
    closed = ivr_("ledger", "settle", day)
    assert "1 lines" in closed.output
    assert ivr_("ledger", "settle", day).output == closed.output
    carry_all(database, node)
    proof = tmp_path / "proof.json"
    proof.write_text(ivr_("ledger", "prove", day).output)
    checked = ivr_("ledger", "check", proof, "--genesis", node.folder / "genesis.json")
    assert (checked.exit_code, "settlement:m00:" in checked.output) == (0, True), checked.output
