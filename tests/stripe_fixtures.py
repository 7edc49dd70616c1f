"""A Stripe of the tests: localstripe in a process of its own, and ``stripe_proxy`` before it.

localstripe is GPL-3: it is installed into a folder of its own, run, and never imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from ivr.payments.bank import StatementLine
from ivr.payments.stripe_bank import StripeBank
from ivr.settings import Settings

LOCALSTRIPE = "localstripe==1.15.10"
API_KEY = "sk_test_12345"
WEBHOOK_SECRET = "whsec_of_the_tests"
RETURN_URL = "https://pay.example.com/bank/return"
NEEDS_CUSTOMER = "4000002500003155"
DECLINED = "4000000000000341"


@dataclass(frozen=True)
class StripeStandIn:
    """Where it is reached, and what tests do there in the place of Stripe's own pages."""

    url: str
    upstream: str

    def bank(self, return_url: str | None = RETURN_URL) -> StripeBank:
        return StripeBank(API_KEY, return_url=return_url, url=self.url)

    def token(self, pan: str = "4242424242424242") -> str:
        """A card that a customer of ours saved on Stripe's page: our token for it."""
        card = {"number": pan, "exp_month": "12", "exp_year": "2090", "cvc": "123"}
        method = self._post("payment_methods", {"type": "card"} | {f"card[{k}]": v for k, v in card.items()})
        customer = self._post("customers", {"payment_method": method["id"]})
        return f"{customer['id']}/{method['id']}"

    def control(self, **wanted: Any) -> None:
        requests.post(f"{self.url}/_control", json=wanted, timeout=10).raise_for_status()

    def seen(self, operation: str) -> int:
        """How often an operation was really done, since the process began."""
        return int(requests.get(f"{self.url}/_seen", timeout=10).json().get(operation, 0))

    def lines(self, reference: str) -> list[StatementLine]:
        """Of the statement, those of a payment."""
        return [line for line in self.bank().statement() if line.reference == reference]

    def intents(self, reference: str) -> list[dict[str, Any]]:
        found = requests.get(f"{self.upstream}/v1/payment_intents?limit=10000", auth=(API_KEY, ""), timeout=10).json()
        return [intent for intent in found["data"] if intent["metadata"].get("payment") == reference]

    def send_events_to(self, url: str) -> None:
        """localstripe's signed webhooks, a second after what they tell of."""
        wanted = {"url": url, "secret": WEBHOOK_SECRET}
        requests.post(f"{self.upstream}/_config/webhooks/tests", json=wanted, timeout=10).raise_for_status()

    def _post(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        answer = requests.post(f"{self.upstream}/v1/{path}", data=form, auth=(API_KEY, ""), timeout=10)
        answer.raise_for_status()
        return dict(answer.json())


@pytest.fixture(scope="session")
def localstripe_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = _installed()
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "localstripe", "--from-scratch", "--port", str(port)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=tmp_path_factory.mktemp("localstripe"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while True:
        try:
            requests.get(f"{url}/v1/refunds", timeout=5)
            break
        except requests.ConnectionError:
            assert process.poll() is None, "localstripe did not start"
            assert time.monotonic() < deadline, "localstripe did not come up"
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def stripe_url(localstripe_url: str) -> Iterator[str]:
    command = [sys.executable, Path(__file__).with_name("stripe_proxy.py"), localstripe_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait()


@pytest.fixture
def stripe_standin(stripe_url: str, localstripe_url: str) -> StripeStandIn:
    """Stripe with nothing commanded."""
    standin = StripeStandIn(stripe_url, localstripe_url)
    standin.control()
    return standin


@pytest.fixture
def stripe_settings(settings: Settings, stripe_standin: StripeStandIn) -> Settings:
    return settings.model_copy(
        update={
            "bank": "stripe",
            "stripe_api_key": SecretStr(API_KEY),
            "stripe_webhook_secret": SecretStr(WEBHOOK_SECRET),
            "stripe_url": stripe_standin.url,
        }
    )


def _installed() -> Path:
    """The folder with localstripe, beside this Python; installed there on first use."""
    folder = Path(sys.prefix) / "standins" / LOCALSTRIPE
    if not (folder / "localstripe").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), LOCALSTRIPE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            tell = pytest.fail if os.environ.get("CI") else pytest.skip
            tell(f"Stripe's stand-in cannot be installed, and nothing of Stripe is tested: {done.stderr[-500:]}")
    return folder


def _free_port() -> int:
    with socket.socket(socket.AF_INET6) as free:
        free.bind(("::", 0))
        return int(free.getsockname()[1])
