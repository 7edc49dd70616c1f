"""The connector to the sandbox bank: what every HTTP bank does, and its controls."""

from __future__ import annotations

from typing import Any

from ivr.payments.bank import Token
from ivr.payments.http_bank import HttpBank, _body


class SandboxBank(HttpBank):
    """A Bank with play money."""

    name = "sandbox"

    def __init__(self, url: str, api_key: str, *, confirms: bool = False) -> None:
        super().__init__(url, api_key, test_only=True, confirms=confirms)
        self._http.trust_env = False  # a process of ours nearby: no proxy, no .netrc

    def open_account(self, pan: str, name: str = "", balance_minor: int | None = None) -> Token:
        """An account with a name and a balance (default: a large one)."""
        wanted: dict[str, Any] = {"pan": pan, "name": name}
        if balance_minor is not None:
            wanted["balance_minor"] = balance_minor
        answer = self._post("/accounts", wanted)
        return Token(answer["token"], answer["brand"], answer["last4"])

    def books(self) -> dict[str, Any]:
        """Accounts, authorisations, captures and notices, for checks."""
        return _body(self._send("GET", "/_books"))

    def control(self, **wanted: Any) -> None:
        """Latency and failures on command; without arguments, none."""
        self._post("/_control", wanted)
