"""What the tests of notices share: payments that are pending, and notices as the bank sends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from payments_support import add_payer, confirm

from ivr.customers.models import new_id
from ivr.payments import service
from ivr.payments.models import Payment
from ivr.payments.states import Event
from ivr.store.db import Database
from ivr.webhooks.signature import secret, signed_headers

SECRET = secret(bytes(32), "test")
TOKEN = "tok_1"


def authorised(database: Database, *, token: str = TOKEN, expires_in: timedelta = timedelta(hours=1)) -> Payment:
    """A payment of 42.10 that the bank holds, and that may be debited now."""
    now = datetime.now(UTC)
    with database.transaction() as session:
        payment = confirm(session, add_payer(session, token), new_id())
        service.record_move(session, service.Move(payment.id, Event.SEND, "test"), who="test", now=now)
        held = service.Move(
            payment.id, Event.AUTHORISE, "test", f"auth_{payment.id}", hold_expires_at=now + expires_in
        )
        return service.record_move(session, held, who="test", now=now)


def notice(payment: Payment | None = None, **changed: Any) -> dict[str, Any]:
    """What the bank says of the debit of a payment."""
    wanted = {"merchant": "City Water", "card_token": TOKEN, "amount_minor": 4210, "currency": "USD"}
    reference = {"reference": payment.bank_reference} if payment else {}
    return wanted | reference | changed


def send(
    url: str,
    body: dict[str, Any] | bytes,
    notice_id: str | None = None,
    *,
    signed_with: str = SECRET,
    age_s: int = 0,
    timeout_s: float = 5.0,
) -> requests.Response:
    """POST a notice as the bank does."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = signed_headers(signed_with, notice_id or f"ntc_{new_id()}", int(time.time()) - age_s, raw)
    return requests.post(url, raw, headers=headers | {"Content-Type": "application/json"}, timeout=timeout_s)


def decision(response: requests.Response) -> str:
    """``confirmed``, or the reason why not."""
    assert response.status_code == 200, response.text
    answer = response.json()
    return str(answer.get("reason", answer["decision"]))


def start_confirming_bank(data: Path, notices_url: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """A sandbox bank that asks at ``notices_url`` before each debit, and its own URL."""
    command = [sys.executable, "-m", "ivr.payments.sandbox", "--port", str(port), "--data", str(data)]
    environment = os.environ | {"IVR_BANK_NOTICE_SECRET": SECRET}
    process = subprocess.Popen(
        [*command, "--confirm-at", notices_url], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip().removeprefix("sandbox bank ready on ")
