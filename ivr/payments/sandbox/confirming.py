"""The sandbox bank in the mode that confirms debits: it announces a debit, and posts only on a signed yes.

An announcement keeps its id until it is answered, so that it can be repeated when an answer was lost. After a refusal
the next attempt to post is announced anew.
"""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime

import requests

from ivr.payments.sandbox.books import BookError, Books, Row, authorisation
from ivr.webhooks.signature import BadSignature, signed_headers, verified

TIMEOUT_S = (1.0, 3.0)
"""To connect, and between two bytes of the answer: well within what our callers wait for a capture."""


class Confirming:
    """Asks the service at ``url`` before a debit. Share one a process."""

    def __init__(self, books: Books, url: str, secret: str) -> None:
        self._books, self._url, self._secret = books, url, secret
        self._http = requests.Session()
        self._http.trust_env = False

    def ask(self, identifier: str, amount_minor: int | None) -> None:
        """Returns when this much may be posted, or nothing is held any more.

        Raises BookError: not_confirmed when the service refused, unavailable when it gave no valid answer.
        """
        notice = self._open(identifier, amount_minor)
        if notice is None or notice["outcome"] == "confirmed":
            return
        outcome = self._send(notice)
        with self._books.transaction() as db:
            db.execute("UPDATE notices SET outcome = ? WHERE id = ?", (outcome, notice["id"]))
        if outcome != "confirmed":
            raise BookError(409, "not_confirmed", f"the debit was not confirmed: {outcome}")

    def _open(self, identifier: str, amount_minor: int | None) -> Row | None:
        """The announcement of this debit that is not refused; a new one if there is none. None: nothing is held."""
        with self._books.transaction() as db:
            held = authorisation(db, identifier)
            if held["status"] != "authorised":
                return None
            amount = amount_minor or held["amount_minor"]
            found = db.execute(
                "SELECT * FROM notices WHERE authorisation = ? AND amount_minor = ?"
                " AND (outcome IS NULL OR outcome = 'confirmed')",
                (identifier, amount),
            ).fetchone()
            if found is None:
                values = (f"ntc_{secrets.token_hex(12)}", identifier, amount)
                db.execute("INSERT INTO notices VALUES (?, ?, ?, NULL)", values)
                found = db.execute("SELECT * FROM notices WHERE id = ?", values[:1]).fetchone()
            return held | dict(found)

    def _send(self, notice: Row) -> str:
        """What the service decided: confirmed, or its reason. Only what is signed, fresh and of this notice counts."""
        wanted = {
            "merchant": notice["merchant"],
            "card_token": notice["token"],
            "amount_minor": notice["amount_minor"],
            "currency": notice["currency"],
            "reference": notice["authorisation"],
        }
        body = json.dumps(wanted).encode()
        headers = signed_headers(self._secret, notice["id"], int(time.time()), body)
        try:
            response = self._http.post(
                self._url, body, headers=headers | {"Content-Type": "application/json"}, timeout=TIMEOUT_S
            )
            if not response.ok:
                raise BookError(503, "unavailable", f"the service answered {response.status_code} to a notice")
            verified(self._secret, response.headers, response.content, datetime.now(UTC))
            answer = response.json()
        except (requests.RequestException, BadSignature) as error:
            raise BookError(503, "unavailable", f"no valid answer to a notice ({type(error).__name__})") from None
        same = {name: answer.get(name) for name in ("notice", "amount_minor", "currency")}
        if same != {"notice": notice["id"], "amount_minor": notice["amount_minor"], "currency": notice["currency"]}:
            raise BookError(503, "unavailable", "the answer belongs to another notice")
        return "confirmed" if answer["decision"] == "confirmed" else str(answer["reason"])
