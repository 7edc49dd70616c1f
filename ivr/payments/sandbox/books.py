"""The sandbox bank's books: accounts, authorisations, captures, and the first answer to every key."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ivr.speech.pan import LONGEST, SHORTEST, brand, luhn_valid

DEFAULT_BALANCE_MINOR = 1_000_000
AUTHORISATION_LIFE = timedelta(days=7)
DECLINES = {
    "400001": "insufficient_funds",
    "400002": "expired",
    "400003": "blocked",
    "400004": "unavailable",
    "400005": "authentication_required",  # no decline: the customer is asked
}
STATEMENT_PAGE = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    token TEXT PRIMARY KEY, pan_hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
    brand TEXT NOT NULL, last4 TEXT NOT NULL, decline TEXT, opening_minor INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS authorisations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, token TEXT NOT NULL REFERENCES accounts,
    amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, reference TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('authorised', 'declined', 'captured', 'voided')),
    decline TEXT, expires_at TEXT NOT NULL, merchant TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS customers_asked (
    authorisation TEXT PRIMARY KEY REFERENCES authorisations, agreed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS captures (
    id INTEGER PRIMARY KEY, authorisation TEXT NOT NULL REFERENCES authorisations,
    token TEXT NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, reference TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refunds (
    id INTEGER PRIMARY KEY, authorisation TEXT NOT NULL REFERENCES authorisations,
    amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, reference TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notices (
    id TEXT PRIMARY KEY, authorisation TEXT NOT NULL REFERENCES authorisations,
    amount_minor INTEGER NOT NULL, outcome TEXT);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request_hash TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL);
"""
# Authorisations as they stand: nothing is held before the customer has agreed, where she is asked.
_STANDING = """
SELECT id, key, token, amount_minor, currency, reference,
    CASE WHEN status = 'authorised' AND agreed = 0 THEN 'customer_needed' ELSE status END AS status,
    decline, expires_at, merchant
FROM authorisations LEFT JOIN customers_asked ON authorisation = id
"""
_STATEMENT = """
SELECT * FROM (
    SELECT 2 * id AS number, 'debit' AS kind, reference, amount_minor, currency FROM captures
    UNION ALL SELECT 2 * id + 1, 'refund', reference, amount_minor, currency FROM refunds)
WHERE number > ? ORDER BY number LIMIT ?
"""

Row = dict[str, Any]


class BookError(Exception):
    """A request that the bank refuses, with the HTTP status and the code of its answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Books:
    """One SQLite file in ``folder``. Every method is one transaction, and all of them stand in one queue."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "bank.sqlite3"
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            columns = {row["name"] for row in connection.execute("PRAGMA table_info(authorisations)")}
            if "merchant" not in columns:  # books of a release before
                connection.execute("ALTER TABLE authorisations ADD COLUMN merchant TEXT NOT NULL DEFAULT ''")
        self._hash_key = _hash_key(folder / "pan.key")

    def open_account(self, pan: str, name: str = "", balance_minor: int = DEFAULT_BALANCE_MINOR) -> Row:
        """The account of a card; made if there is none yet. The balance counts in each currency by itself."""
        if not (pan.isascii() and pan.isdigit() and SHORTEST <= len(pan) <= LONGEST and luhn_valid(pan)):
            raise BookError(
                422, "invalid_card", "no valid card number: 12 to 19 digits with a Luhn check digit"
            )
        pan_hash = hmac.digest(self._hash_key, pan.encode(), hashlib.sha256)
        with self.transaction() as db:
            db.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pan_hash) DO NOTHING",
                (
                    f"tok_{secrets.token_hex(12)}",
                    pan_hash,
                    name,
                    brand(pan) or "other",
                    pan[-4:],
                    DECLINES.get(pan[:6]),
                    balance_minor,
                ),
            )
            account = _one(db, "SELECT token, brand, last4 FROM accounts WHERE pan_hash = ?", pan_hash)
            assert account is not None
            return account

    def once(self, key: str, request: Row, command: Callable[[sqlite3.Connection], Row]) -> tuple[int, Row]:
        """Run a command once for its key: status and answer, the first ones again if the key was used before.

        Key, request and answer are stored in the command's transaction. The key with another request is a
        BookError. A refusal is an answer like any other, and stays.
        """
        request_hash = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        with self.transaction() as db:
            if first := _one(db, "SELECT request_hash, status, body FROM answers WHERE key = ?", key):
                if first["request_hash"] != request_hash:
                    raise BookError(
                        422, "idempotency_mismatch", "this idempotency key came with another request"
                    )
                return first["status"], json.loads(first["body"])
            try:
                status, body = 200, command(db)
            except BookError as error:
                status, body = error.status, error_body(error)
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?)", (key, request_hash, status, json.dumps(body))
            )
            return status, body

    def token(self, token: str) -> Row:
        """The card that a token stands for."""
        with self.transaction() as db:
            if found := _one(db, "SELECT token, brand, last4 FROM accounts WHERE token = ?", token):
                return found
        raise BookError(404, "not_found", "no account has this token")

    def standing(self, column: Literal["id", "key", "reference"], value: str) -> Row:
        """An authorisation as it stands now; of several under one reference, the last."""
        with self.transaction() as db:
            _expire(db)
            if found := _one(db, f"{_STANDING} WHERE {column} = ? ORDER BY authorisations.rowid DESC", value):
                return public(found)
        raise BookError(404, "not_found", f"no authorisation has this {column}")

    def statement(self, after: int) -> Row:
        """What was debited and given back, a page at a time."""
        with self.transaction() as db:
            lines = _all(db, _STATEMENT, after, STATEMENT_PAGE)
        last = lines[-1]["number"] if len(lines) == STATEMENT_PAGE else None
        shown = [{name: value for name, value in line.items() if name != "number"} for line in lines]
        return {"lines": shown, "next": None if last is None else str(last)}

    def everything(self) -> Row:
        """All accounts with their balances, all authorisations, captures, refunds and notices."""
        with self.transaction() as db:
            _expire(db)
            accounts = _all(db, "SELECT token, name, brand, last4, decline, opening_minor FROM accounts")
            for account in accounts:
                account["balance_minor"] = {
                    row["currency"]: account["opening_minor"] - row["spent"]
                    for row in _all(
                        db,
                        "SELECT currency, sum(amount_minor) AS spent FROM captures"
                        " WHERE token = ? GROUP BY currency",
                        account["token"],
                    )
                }
            authorisations = [public(row) for row in _all(db, "SELECT * FROM authorisations ORDER BY rowid")]
            return {
                "accounts": accounts,
                "authorisations": authorisations,
                "captures": _all(db, "SELECT * FROM captures ORDER BY id"),
                "refunds": _all(db, "SELECT * FROM refunds ORDER BY id"),
                "notices": _all(db, "SELECT * FROM notices ORDER BY rowid"),
            }

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is alone, for whoever adds to the books."""
        with closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def authorise(
    db: sqlite3.Connection,
    *,
    key: str,
    token: str,
    amount_minor: int,
    currency: str,
    reference: str,
    merchant: str = "",
    decline: str | None = None,
    life: timedelta = AUTHORISATION_LIFE,
) -> Row:
    """Hold an amount, or decline: for ``decline`` if given, else by the card and its balance."""
    _expire(db)
    account = _one(db, "SELECT decline, opening_minor FROM accounts WHERE token = ?", token)
    if account is None:
        raise BookError(404, "not_found", "no account has this token")
    spent = db.execute(
        "SELECT coalesce(sum(amount_minor), 0) FROM ("
        " SELECT amount_minor FROM captures WHERE token = :token AND currency = :currency"
        " UNION ALL SELECT amount_minor FROM authorisations"
        " WHERE token = :token AND currency = :currency AND status = 'authorised')",
        {"token": token, "currency": currency},
    ).fetchone()[0]
    decline = decline or account["decline"]
    if ask := decline == "authentication_required":
        decline = None
    if decline is None and spent + amount_minor > account["opening_minor"]:
        decline = "insufficient_funds"
    row: Row = {
        "id": f"auth_{secrets.token_hex(12)}",
        "key": key,
        "token": token,
        "amount_minor": amount_minor,
        "currency": currency,
        "reference": reference,
        "status": "declined" if decline else "authorised",
        "decline": decline,
        "expires_at": (datetime.now(UTC) + life).isoformat(),
        "merchant": merchant,
    }
    db.execute(
        "INSERT INTO authorisations VALUES (:id, :key, :token, :amount_minor, :currency, :reference, :status,"
        " :decline, :expires_at, :merchant)",
        row,
    )
    if ask and decline is None:
        db.execute("INSERT INTO customers_asked (authorisation) VALUES (?)", (row["id"],))
    return public(authorisation(db, row["id"]))


def agree(db: sqlite3.Connection, authorisation_id: str) -> Row:
    """The customer agrees, on the bank's own page."""
    db.execute("UPDATE customers_asked SET agreed = 1 WHERE authorisation = ?", (authorisation_id,))
    return public(authorisation(db, authorisation_id))


def capture(db: sqlite3.Connection, authorisation_id: str, amount_minor: int | None) -> Row:
    """Debit what is held, or a part, and release the rest.

    What was captured or voided before stays so, and is answered as it stands.
    """
    row = authorisation(db, authorisation_id)
    if amount_minor is not None and amount_minor > row["amount_minor"]:
        raise BookError(422, "amount_above_hold", "more than is held cannot be captured")
    if row["status"] == "authorised":
        db.execute("UPDATE authorisations SET status = 'captured' WHERE id = ?", (authorisation_id,))
        db.execute(
            "INSERT INTO captures (authorisation, token, amount_minor, currency, reference)"
            " VALUES (:id, :token, :amount_minor, :currency, :reference)",
            row | {"amount_minor": amount_minor or row["amount_minor"]},
        )
    return public(authorisation(db, authorisation_id))


def void(db: sqlite3.Connection, authorisation_id: str) -> Row:
    """Give back what is held; what was captured before stays captured."""
    if authorisation(db, authorisation_id)["status"] in ("authorised", "customer_needed"):
        db.execute("UPDATE authorisations SET status = 'voided' WHERE id = ?", (authorisation_id,))
    return public(authorisation(db, authorisation_id))


def refund(db: sqlite3.Connection, authorisation_id: str, amount_minor: int) -> Row:
    """Give back a part, or the whole, of what was captured; declined when more than that would be given back."""
    row = authorisation(db, authorisation_id)
    left = db.execute(
        "SELECT (SELECT coalesce(sum(amount_minor), 0) FROM captures WHERE authorisation = :id)"
        " - (SELECT coalesce(sum(amount_minor), 0) FROM refunds WHERE authorisation = :id)",
        {"id": authorisation_id},
    ).fetchone()[0]
    if amount_minor > left:
        return {"status": "declined", "decline": "other"}
    db.execute(
        "INSERT INTO refunds (authorisation, amount_minor, currency, reference) VALUES (?, ?, ?, ?)",
        (authorisation_id, amount_minor, row["currency"], row["reference"]),
    )
    return {"status": "refunded", "amount_minor": amount_minor}


def public(row: Row) -> Row:
    """What the bank shows of an authorisation."""
    return {name: value for name, value in row.items() if name != "key"}


def error_body(error: BookError) -> Row:
    """The JSON of a refusal."""
    return {"error": {"code": error.code, "message": str(error)}}


def authorisation(db: sqlite3.Connection, authorisation_id: str) -> Row:
    """An authorisation as it stands now."""
    _expire(db)
    row = _one(db, f"{_STANDING} WHERE id = ?", authorisation_id)
    if row is None:
        raise BookError(404, "not_found", "no such authorisation")
    return row


def _expire(db: sqlite3.Connection) -> None:
    db.execute(
        "UPDATE authorisations SET status = 'voided' WHERE status = 'authorised' AND expires_at <= ?",
        (datetime.now(UTC).isoformat(),),
    )


def _one(db: sqlite3.Connection, query: str, *values: object) -> Row | None:
    row = db.execute(query, values).fetchone()
    return dict(row) if row else None


def _all(db: sqlite3.Connection, query: str, *values: object) -> list[Row]:
    return [dict(row) for row in db.execute(query, values)]


def _hash_key(path: Path) -> bytes:
    """The key of the card hashes: made on first use, readable by its owner only."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key := secrets.token_bytes(32))
    return key
