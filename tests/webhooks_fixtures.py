"""A merchant's server, with a certificate that this process trusts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from webhooks_support import Merchant, serve

from bench.faults.processes import make_certificate


@pytest.fixture
def merchant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Merchant]:
    path = tmp_path / "localhost.pem"
    merchant = Merchant()
    server = serve(merchant, make_certificate(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    yield merchant
    server.shutdown()
    server.server_close()
