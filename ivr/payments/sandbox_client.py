"""The connector to the sandbox bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import requests

from ivr.payments.bank import (
    Authorised,
    BankRejected,
    BankUnavailable,
    Capabilities,
    Captured,
    Declined,
    DeclineReason,
    InvalidCard,
    NotConfirmed,
    Refunded,
    StatementLine,
    Token,
    Voided,
)

TIMEOUT_S = (2.0, 5.0)
"""To connect, and between two bytes of the answer."""


class SandboxBank:
    """A Bank over HTTP. Share one a process: it keeps no state but the connection."""

    name = "sandbox"
    test_only = True
    capabilities = Capabilities(
        debit_confirmation=False, look_up_by_key=True, partial_capture=True, telephone_order=True
    )

    def __init__(self, url: str, api_key: str, *, confirms: bool = False) -> None:
        self.capabilities = replace(self.capabilities, debit_confirmation=confirms)
        self.url = url.rstrip("/")
        self._http = requests.Session()
        self._http.trust_env = False  # a process of ours nearby: no proxy, no .netrc
        self._http.headers["X-Api-Key"] = api_key

    def tokenise(self, pan: str, exp_year: int, exp_month: int) -> Token:
        answer = self._post("/tokens", {"pan": pan, "exp_year": exp_year, "exp_month": exp_month})
        return Token(answer["token"], answer["brand"], answer["last4"])

    def authorise(
        self, token: str, amount_minor: int, currency: str, *, key: str, reference: str, merchant: str = ""
    ) -> Authorised | Declined:
        wanted = {
            "token": token,
            "amount_minor": amount_minor,
            "currency": currency,
            "reference": reference,
            "merchant": merchant,
        }
        found = _outcome(self._post("/authorisations", wanted, key))
        assert isinstance(found, Authorised | Declined), (
            "the first answer to an authorisation is no capture or void"
        )
        return found

    def capture(self, bank_reference: str, amount_minor: int, *, key: str) -> Captured | Voided:
        return self._resolve(bank_reference, "capture", key, {"amount_minor": amount_minor})

    def void(self, bank_reference: str, *, key: str) -> Voided | Captured:
        return self._resolve(bank_reference, "void", key, {})

    def refund(self, bank_reference: str, amount_minor: int, *, key: str) -> Refunded | Declined:
        answer = self._post(f"/authorisations/{bank_reference}/refund", {"amount_minor": amount_minor}, key)
        return Refunded() if answer["status"] == "refunded" else Declined(_reason(answer["decline"]))

    def statement(self) -> list[StatementLine]:
        books = self.books()
        kinds: tuple[tuple[Literal["debit", "refund"], str], ...] = (("debit", "captures"), ("refund", "refunds"))
        return [
            StatementLine(row["reference"], kind, row["amount_minor"], row["currency"])
            for kind, name in kinds
            for row in books[name]
        ]

    def look_up(self, key: str) -> Authorised | Declined | Captured | Voided | None:
        response = self._send("GET", "/authorisations", params={"key": key})
        return None if response.status_code == 404 else _outcome(_body(response))

    def open_account(self, pan: str, name: str = "", balance_minor: int | None = None) -> Token:
        """Sandbox only: an account with a name and a balance (default: a large one)."""
        wanted: dict[str, Any] = {"pan": pan, "name": name}
        if balance_minor is not None:
            wanted["balance_minor"] = balance_minor
        answer = self._post("/accounts", wanted)
        return Token(answer["token"], answer["brand"], answer["last4"])

    def books(self) -> dict[str, Any]:
        """Sandbox only: accounts, authorisations, captures and notices, for checks."""
        return _body(self._send("GET", "/_books"))

    def control(self, **wanted: Any) -> None:
        """Sandbox only: latency and failures on command; without arguments, none."""
        self._post("/_control", wanted)

    def _resolve(
        self, bank_reference: str, operation: str, key: str, wanted: Mapping[str, int]
    ) -> Captured | Voided:
        found = _outcome(self._post(f"/authorisations/{bank_reference}/{operation}", wanted, key))
        if not isinstance(found, Captured | Voided):
            raise BankRejected(f"the bank did not {operation}: {type(found).__name__}")
        return found

    def _post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        return _body(self._send("POST", path, json=dict(body), headers=headers))

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            return self._http.request(method, self.url + path, timeout=TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            # Without its text and its cause: they may quote the request.
            raise BankUnavailable(f"no answer from the bank ({type(error).__name__})") from None


def _body(response: requests.Response) -> dict[str, Any]:
    """The answer's JSON. Raises what the status stands for."""
    try:
        body = response.json()
    except requests.JSONDecodeError:
        raise BankUnavailable(f"the bank's answer ({response.status_code}) is no JSON") from None
    if response.ok:
        return dict(body)
    error = body.get("error", {})
    if error.get("code") == "invalid_card":
        raise InvalidCard(error.get("message"))
    if error.get("code") == "not_confirmed":
        raise NotConfirmed(error.get("message"))
    kind = BankUnavailable if response.status_code >= 500 else BankRejected
    raise kind(f"{response.status_code} {error.get('code')}")


def _outcome(authorisation: Mapping[str, Any]) -> Authorised | Declined | Captured | Voided:
    match authorisation["status"]:
        case "authorised":
            return Authorised(authorisation["id"], datetime.fromisoformat(authorisation["expires_at"]))
        case "declined":
            return Declined(_reason(authorisation["decline"]))
        case "captured":
            return Captured()
        case "voided":
            return Voided()
        case status:
            raise BankRejected(f"unknown status of an authorisation: {status}")


def _reason(code: str) -> DeclineReason:
    try:
        return DeclineReason(code)
    except ValueError:
        return DeclineReason.OTHER
