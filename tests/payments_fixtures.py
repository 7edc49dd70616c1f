"""A sandbox bank in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

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
