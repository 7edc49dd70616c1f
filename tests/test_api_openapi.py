"""The API does what its description says, whatever is sent to it, and in whatever order."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from api_support import program
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from people_support import add_person
from purchases_support import refer_to
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode

from ivr.api.operations import OPERATIONS
from ivr.keys import Keyring
from ivr.store.db import Database

pytest_plugins = ["people_fixtures"]

BOUNDED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
    "database": None,
    "derandomize": True,
}


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """One kind is enough here: what the operations do is tested on both elsewhere."""
    path = tmp_path / "ivr.sqlite3"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.engine.dispose()


@dataclass(frozen=True)
class Merchant:
    """A merchant's program with a customer to talk of."""

    headers: dict[str, str]
    customer: str

    def with_customer(self, case: schemathesis.Case) -> None:
        """Where any id of a customer was made up, hers, as often as not."""
        bodies = case.body if isinstance(case.body, dict) else {}
        for one in [bodies, *(item for item in bodies.get("items") or [] if isinstance(item, dict))]:
            made_up = one.get("customer")
            if isinstance(made_up, str) and re.fullmatch("[0-9a-f]{16}", made_up) and made_up[0] in "01234567":
                one["customer"] = self.customer


@pytest.fixture
def merchant(pages: Flask, database: Database, keyring: Keyring) -> Merchant:
    shop = program(pages.test_client(), database)
    with database.transaction() as session:
        person = add_person(session, keyring)
    return Merchant({"Authorization": f"Bearer {shop.key}"}, refer_to(shop, person))


@pytest.fixture
def described(pages: Flask, merchant: Merchant) -> Any:
    # 422 besides: whether a text is approved, a currency exists or a cursor is ours, no schema says.
    accepted = ["2xx", "401", "403", "404", "409", "422", "429"]
    # A key that schemathesis makes up is replaced by the merchant's before it is sent: see the last test instead.
    checks = {"positive_data_acceptance": {"expected-statuses": accepted}, "ignored_auth": {"enabled": False}}
    config = SchemathesisConfig.from_dict({"checks": checks, "headers": merchant.headers})
    return schemathesis.openapi.from_wsgi("/v1/openapi.json", pages, config=config)


@pytest.mark.parametrize("mode", GenerationMode)
def test_requests_are_answered_as_described(described: Any, merchant: Merchant, mode: GenerationMode) -> None:
    walked = set()
    for found in OPERATIONS:
        walked.add(found.name)

        @settings(max_examples=8, **BOUNDED)
        @given(case=described.find_operation_by_id(found.name).as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            merchant.with_customer(case)
            case.call_and_validate()

        send()
    assert len(walked) > 20


def test_what_one_answer_leads_to_is_answered_as_described(described: Any, merchant: Merchant) -> None:
    class Following(described.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: schemathesis.Case) -> None:
            merchant.with_customer(case)

    Following.run(settings=settings(max_examples=12, stateful_step_count=8, **BOUNDED))


def test_without_a_key_every_operation_is_refused_as_described(described: Any, pages: Flask) -> None:
    client = pages.test_client()
    for found in OPERATIONS:
        path = f"/v1{re.sub(r'{.*?}', '0' * 16, found.path)}"
        given = client.open(path, method=found.method, headers={"Authorization": "Bearer made-up"})
        assert (given.status_code, given.get_json()["code"]) == (401, "no_valid_key")
