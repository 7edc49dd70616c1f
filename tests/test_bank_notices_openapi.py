"""The endpoint does what its OpenAPI file says, whatever is sent to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from notices_support import SECRET, TOKEN, authorised, decision, notice, send
from requests.auth import AuthBase
from schemathesis.config import SchemathesisConfig

import ivr.payments
from ivr.clock import utc_now
from ivr.customers.models import new_id
from ivr.payments import keeper, notices
from ivr.payments.pending import PendingDebits, Verdict
from ivr.store.db import Database
from ivr.webhooks.signature import signed_headers

pytest_plugins = ["notices_fixtures"]

FILE = Path(ivr.payments.__file__).parent / "openapi" / "notices.yaml"
schema = schemathesis.openapi.from_path(FILE, config=SchemathesisConfig())


class Signed(AuthBase):
    """Signs what is about to be sent, where a signature was to be: some cases leave it out on purpose."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        if "webhook-signature" in request.headers:
            request.headers.update(signed_headers(SECRET, f"ntc_{new_id()}", int(time.time()), body))
        return request


@pytest.fixture
def base_url(notices_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(notices, "WAIT_S", 0.0)
    return notices_url.removesuffix("/bank/notices")


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_signed_requests_are_answered_as_the_file_says(case: schemathesis.Case, base_url: str) -> None:
    case.call_and_validate(base_url=base_url, auth=Signed())


@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_unsigned_requests_are_refused_as_the_file_says(case: schemathesis.Case, base_url: str) -> None:
    response = case.call_and_validate(base_url=base_url)
    assert response.status_code == 401 or response.request.method != "POST"


def test_every_reason_and_status_is_in_the_file(database: Database, pending: PendingDebits, notices_url: str) -> None:
    raw = schema.raw_schema
    reasons = raw["components"]["schemas"]["Refused"]["properties"]["reason"]["enum"]
    assert set(reasons) == set(Verdict) - {Verdict.FOUND, Verdict.REBUILDING}
    payment = authorised(database)
    pending.put(keeper.as_pending(payment, TOKEN, "City Water"), utc_now())
    for body in (notice(payment), notice(payment)):
        response = send(notices_url, body)
        schema["/bank/notices"]["POST"].validate_response(response)
        assert decision(response) in ("confirmed", "already_confirmed")
