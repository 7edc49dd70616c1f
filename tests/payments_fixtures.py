"""A sandbox bank in a process of its own, and the operator's commands against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from ivr.ops.cli import main
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings


@pytest.fixture(scope="session")
def bank_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, "-m", "ivr.payments.sandbox", "--port", "0", "--data"]
    process = subprocess.Popen([*command, tmp_path_factory.mktemp("bank")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip().removeprefix("sandbox bank ready on ")
    process.terminate()
    assert process.wait() == 0


@pytest.fixture
def bank(bank_url: str) -> SandboxBank:
    """The sandbox bank with nothing commanded."""
    client = SandboxBank(bank_url, "sandbox")
    client.control()
    return client


@pytest.fixture
def bank_settings(settings: Settings, bank_url: str, bank: SandboxBank) -> Settings:
    return settings.model_copy(update={"bank_url": bank_url})


@pytest.fixture
def payments_command(bank_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """``ivr payments ...``: its exit code and what it prints."""
    monkeypatch.setattr("ivr.ops.desk.upgrade", lambda _: None)  # the fixture made the tables
    monkeypatch.setattr("ivr.ops.desk.settings", lambda: bank_settings)
    monkeypatch.setattr("ivr.ops.commands.payments.settings", lambda: bank_settings)

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["payments", *arguments])
        return result.exit_code, result.output

    return invoke
