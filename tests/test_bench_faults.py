"""The bench of faults finds nothing wrong with the service, and finds what is wrong with a broken one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.faults import kinds, processes
from bench.faults import run as running
from bench.faults.records import Result
from ivr.customers.models import new_id
from ivr.payments.sandbox_client import SandboxBank

N = 20


@pytest.fixture(scope="module")
def server(short_folder: Path) -> Iterator[Any]:
    with processes.postgresql(short_folder) as server:
        yield server


def run(server: Any, tmp_path: Path, name: str) -> Result:
    (fault,) = (fault for fault in kinds.FAULTS if fault.name == name)
    return running.run(fault, server, tmp_path / "run", N, workers=2)


@pytest.mark.parametrize(
    "name",
    [
        "worker killed after the capture, before its record",
        "every request sent twice, the bank answers twice",
        "debits confirmed: Redis restarted",
    ],
)
def test_under_a_fault_nothing_is_lost_and_nothing_debited_twice(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(kinds, "DEATHS", 0.3)
    result = run(server, tmp_path, name)
    assert (result.paid, result.refused, result.lost, result.twice, result.unproven) == (18, 2, 0, 0, 0)
    assert "killed" not in name or result.killed > 0


def test_requests_without_a_stable_key_are_noticed(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = SandboxBank.authorise

    def careless(self: SandboxBank, *arguments: Any, key: str, **named: Any) -> Any:
        return really(self, *arguments, key=new_id(), **named)

    monkeypatch.setattr(SandboxBank, "authorise", careless)
    assert run(server, tmp_path, "every request sent twice, the bank answers twice").lost == 18  # held, never debited


def test_a_worker_that_makes_up_an_answer_is_noticed(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ivr.payments.bank import Captured

    monkeypatch.setattr(SandboxBank, "capture", lambda self, reference, amount_minor, *, key: Captured())
    assert run(server, tmp_path, "none").lost == 18


def test_a_second_debit_is_noticed(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorise, capture = SandboxBank.authorise, SandboxBank.capture

    def eager(self: SandboxBank, token: str, amount_minor: int, *arguments: Any, key: str, **named: Any) -> Any:
        found = authorise(self, token, amount_minor, *arguments, key=key, **named)
        again = authorise(self, token, amount_minor, *arguments, key=new_id(), **named)
        if hasattr(again, "reference"):
            capture(self, again.reference, amount_minor, key=new_id())
        return found

    monkeypatch.setattr(SandboxBank, "authorise", eager)
    assert run(server, tmp_path, "none").twice == 18


def test_a_debit_that_was_not_confirmed_is_noticed(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = processes.start_bank
    monkeypatch.setattr(processes, "start_bank", lambda folder, port, endpoint_port: start(folder, port))
    assert run(server, tmp_path, "debits confirmed: none").unproven == 18
