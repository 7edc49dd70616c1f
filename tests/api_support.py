"""What the tests of the API share: merchants, keys, a program that speaks to it, people who pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ivr.api import keys
from ivr.customers import merchants
from ivr.customers.models import new_id
from ivr.store.db import Database

BASE_URL = "https://pay.example.com"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Program:
    """A merchant's program: its key, and a new idempotency key for each post unless told otherwise."""

    client: FlaskClient
    key: str
    merchant_id: str
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.client.get(f"/v1{path}", query_string=query, headers=self._headers(), base_url=BASE_URL)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> TestResponse:
        headers = self._headers() | {"Idempotency-Key": key or new_id()}
        return self.client.post(f"/v1{path}", json=body or {}, headers=headers, base_url=BASE_URL)

    def delete(self, path: str) -> TestResponse:
        return self.client.delete(f"/v1{path}", headers=self._headers(), base_url=BASE_URL)

    def made(self, path: str, body: Any = None, *, key: str | None = None) -> dict[str, Any]:
        """What a post that succeeds answers."""
        given = self.post(path, body, key=key)
        assert given.status_code in (200, 201), given.text
        found: dict[str, Any] = given.get_json()
        return found

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", **self.headers}


def program(
    client: FlaskClient, database: Database, name: str = "City Water", scopes: Sequence[str] = keys.SCOPES
) -> Program:
    """A new merchant's program."""
    with database.transaction() as session:
        merchant = merchants.add_merchant(session, name, who="test", now=now())
        _, shown = keys.issue(session, merchant, "test", scopes, who="test", now=now())
        return Program(client, shown, merchant.id)
