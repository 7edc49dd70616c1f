"""The connector to any bank that implements ``openapi/bank.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

from ivr.payments.bank import (
    Authorised,
    BankError,
    BankRejected,
    BankUnavailable,
    Capabilities,
    Captured,
    Channel,
    CurrencyNotSupported,
    Declined,
    DeclineReason,
    InvalidCard,
    KeyReused,
    Linked,
    NotConfirmed,
    Refunded,
    StatementLine,
    TelephoneOrdersNotEnabled,
    Token,
    Voided,
)

TIMEOUT_S = (2.0, 5.0)
"""To connect, and between two bytes of the answer."""
LONGEST_REFERENCE = 128
_CODES: dict[str, type[BankError]] = {
    "currency_not_supported": CurrencyNotSupported,
    "idempotency_mismatch": KeyReused,
    "invalid_card": InvalidCard,
    "not_confirmed": NotConfirmed,
    "telephone_orders_not_enabled": TelephoneOrdersNotEnabled,
}
Outcome = Authorised | Linked | Declined | Captured | Voided


class HttpBank:
    """A Bank over HTTP. Share one a process: it keeps no state but the connection.

    ``confirms``: this bank sends notices and debits only what we confirm.
    """

    name = "http"
    capabilities = Capabilities(
        debit_confirmation=False, look_up_by_key=True, partial_capture=True, telephone_order=True
    )

    def __init__(self, url: str, api_key: str, *, test_only: bool, confirms: bool = False) -> None:
        self.test_only = test_only
        self.capabilities = replace(self.capabilities, debit_confirmation=confirms)
        self.url = url.rstrip("/")
        self._http = requests.Session()
        self._http.headers["X-Api-Key"] = api_key

    def tokenise(self, pan: str, exp_year: int, exp_month: int) -> Token:
        return _token(self._post("/tokens", {"pan": pan, "exp_year": exp_year, "exp_month": exp_month}))

    def card(self, token: str) -> Token:
        response = self._send("GET", f"/tokens/{quote(token, safe='')}")
        if response.status_code == 404:
            raise InvalidCard("the bank knows no such token")
        return _token(_body(response))

    def authorise(
        self,
        token: str,
        amount_minor: int,
        currency: str,
        *,
        key: str,
        reference: str,
        merchant: str = "",
        channel: Channel = "telephone",
    ) -> Authorised | Linked | Declined:
        wanted = {
            "token": token,
            "amount_minor": amount_minor,
            "currency": currency,
            "reference": reference,
            "merchant": merchant,
            "channel": channel,
        }
        found = _outcome(self._post("/authorisations", wanted, key))
        if isinstance(found, Captured | Voided):
            raise BankRejected("the first answer to an authorisation is no capture or void")
        return found

    def status(self, bank_reference: str) -> Outcome:
        return _outcome(_body(self._send("GET", _path(bank_reference))))

    def capture(self, bank_reference: str, amount_minor: int | None = None, *, key: str) -> Captured | Voided:
        wanted = {} if amount_minor is None else {"amount_minor": amount_minor}
        return self._resolve(bank_reference, "capture", key, wanted)

    def void(self, bank_reference: str, *, key: str) -> Voided | Captured:
        return self._resolve(bank_reference, "void", key, {})

    def refund(self, bank_reference: str, amount_minor: int, *, key: str) -> Refunded | Declined:
        answer = self._post(_path(bank_reference, "refund"), {"amount_minor": amount_minor}, key)
        match answer.get("status"):
            case "refunded":
                return Refunded()
            case "declined":
                return Declined(_reason(answer.get("decline")))
            case _:
                raise _not_understood("status")

    def statement(self) -> list[StatementLine]:
        lines: list[StatementLine] = []
        after: str | None = ""
        while after is not None:
            page = _body(self._send("GET", "/statement", params={"after": after} if after else {}))
            with _reading():
                lines += [
                    StatementLine(line["reference"], line["kind"], line["amount_minor"], line["currency"])
                    for line in page["lines"]
                ]
                after = page["next"]
        return lines

    def look_up(self, key: str) -> Outcome | None:
        return _found(self._send("GET", "/authorisations", params={"key": key}))

    def find(self, reference: str, since: datetime) -> Outcome | None:
        return _found(self._send("GET", f"/references/{quote(reference, safe='')}"))

    def _resolve(
        self, bank_reference: str, operation: str, key: str, wanted: Mapping[str, int]
    ) -> Captured | Voided:
        found = _outcome(self._post(_path(bank_reference, operation), wanted, key))
        if not isinstance(found, Captured | Voided):
            raise BankRejected(f"the bank did not {operation}: {type(found).__name__}")
        return found

    def _post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        return _body(self._send("POST", path, json=dict(body), headers=headers))

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            return self._http.request(
                method,
                self.url + path,
                timeout=TIMEOUT_S,
                allow_redirects=False,  # our key is for this bank alone
                **arguments,
            )
        except requests.RequestException as error:
            # Without its text and its cause: they may quote the request.
            raise BankUnavailable(f"no answer from the bank ({type(error).__name__})") from None


def _body(response: requests.Response) -> dict[str, Any]:
    """The answer's JSON. Raises what the status stands for."""
    try:
        body = response.json()
    except requests.JSONDecodeError:
        raise BankUnavailable(f"the bank's answer ({response.status_code}) is no JSON") from None
    if not isinstance(body, dict):
        raise _not_understood("object")
    if 200 <= response.status_code < 300:
        return body
    error = body.get("error")
    code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
    if response.status_code < 500 and (kind := _CODES.get(str(code))):
        raise kind(message)
    certain = 400 <= response.status_code < 500 and response.status_code not in (408, 425, 429)
    raise (BankRejected if certain else BankUnavailable)(f"{response.status_code} {code}")


@contextmanager
def _reading() -> Iterator[None]:
    """An answer that is not what bank.yaml says tells no more than none: what was asked may have happened."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise _not_understood(type(error).__name__) from None


def _not_understood(what: str) -> BankUnavailable:
    return BankUnavailable(f"the bank's answer is not what bank.yaml says ({what})")


def _token(answer: Mapping[str, Any]) -> Token:
    with _reading():
        return Token(answer["token"], answer["brand"], answer["last4"])


def _found(response: requests.Response) -> Outcome | None:
    return None if response.status_code == 404 else _outcome(_body(response))


def _path(bank_reference: str, *operation: str) -> str:
    return "/".join(["/authorisations", quote(bank_reference, safe=""), *operation])


def _outcome(authorisation: Mapping[str, Any]) -> Outcome:
    with _reading():
        match authorisation["status"]:
            case "authorised":
                return Authorised(_reference(authorisation), _moment(authorisation["expires_at"]))
            case "customer_needed":
                return Linked(_reference(authorisation), str(authorisation["customer_url"]))
            case "declined":
                return Declined(_reason(authorisation["decline"]))
            case "captured":
                return Captured()
            case "voided":
                return Voided()
            case _:
                raise _not_understood("status")


def _reference(authorisation: Mapping[str, Any]) -> str:
    found = authorisation["id"]
    if not isinstance(found, str) or not 1 <= len(found) <= LONGEST_REFERENCE:
        raise ValueError("no reference that could be stored")
    return found


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without its offset")
    return found


def _reason(code: object) -> DeclineReason:
    try:
        return DeclineReason(str(code))
    except ValueError:
        return DeclineReason.OTHER
