"""Twilio's own client, sent to the stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from twilio.http.http_client import TwilioHttpClient
from twilio_support import Twilio


@pytest.fixture
def twilio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Twilio]:
    """Twilio's own client talks to the stand-in."""
    request = TwilioHttpClient.request

    def redirected(client: TwilioHttpClient, method: str, uri: str, *arguments: Any, **options: Any) -> Any:
        uri = re.sub(r"https://(api|insights)\.twilio\.com", server.url, uri)
        return request(client, method, uri, *arguments, **options)

    monkeypatch.setattr(TwilioHttpClient, "request", redirected)
    with Twilio().running() as server:
        yield server
