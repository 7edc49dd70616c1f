"""What a bank does for us: the interface that every connector implements, its answers and its errors.

Each call that changes something at the bank carries an idempotency key: the identical call with the same key
may be repeated at any time and is answered as the first was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol


class DeclineReason(StrEnum):
    """Why a bank will not debit a card."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    EXPIRED = "expired"
    BLOCKED = "blocked"
    UNAVAILABLE = "unavailable"  # the card's issuer cannot be asked now; an answer, not a failure to answer
    OTHER = "other"


@dataclass(frozen=True)
class Token:
    """What stands for a card at the bank."""

    token: str
    brand: str
    last4: str


@dataclass(frozen=True)
class Authorised:
    """The bank holds the amount for us under ``reference``, until it lets go by itself (None: it does not say when)."""

    reference: str
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Declined:
    reason: DeclineReason


@dataclass(frozen=True)
class Captured:
    """The amount was debited."""


@dataclass(frozen=True)
class Voided:
    """The hold is gone, by a void or by its expiry, and nothing was debited."""


@dataclass(frozen=True)
class Refunded:
    """The amount goes back to the card."""


@dataclass(frozen=True)
class StatementLine:
    """One line of the bank's statement: what was debited, or given back, under our payment's id."""

    reference: str
    kind: Literal["debit", "refund"]
    amount_minor: int
    currency: str


class BankError(Exception):
    """The bank gave no usable answer. Messages name neither card nor key."""


class BankUnavailable(BankError):
    """No answer: what was asked may or may not have happened. Repeat it with the same key."""


class BankRejected(BankError):
    """The bank calls our request wrong (our key, our data): nothing happened, and people must look at it."""


class NotConfirmed(BankError):
    """The bank asked us whether to debit and did not hear yes: it debited nothing. Repeat it with the same key."""


class InvalidCard(BankError):
    """The bank will not give a token for this card."""


@dataclass(frozen=True)
class Capabilities:
    """What a connector's bank can do."""

    debit_confirmation: bool
    """It tells us that it is about to debit, and debits only when we confirm."""
    look_up_by_key: bool
    partial_capture: bool
    telephone_order: bool


class Bank(Protocol):
    """A connector. Every method raises BankUnavailable and BankRejected."""

    name: str
    capabilities: Capabilities
    test_only: bool
    """Whether its money is play money: test customers, and only they, are debited there."""

    def tokenise(self, pan: str, exp_year: int, exp_month: int) -> Token:
        """A token for a card; the same card gives the same token. Raises InvalidCard."""

    def authorise(
        self, token: str, amount_minor: int, currency: str, *, key: str, reference: str, merchant: str = ""
    ) -> Authorised | Declined:
        """Hold an amount. ``reference`` is our own name of the payment, ``merchant`` whom the cardholder pays."""

    def capture(self, bank_reference: str, amount_minor: int, *, key: str) -> Captured | Voided:
        """Debit this much of what is held, and let go of the rest; Voided when it is held no longer.

        Raises NotConfirmed too, if the bank confirms debits with us.
        """

    def void(self, bank_reference: str, *, key: str) -> Voided | Captured:
        """Give back what is held; Captured when it was debited before. Either way it is resolved for good."""

    def refund(self, bank_reference: str, amount_minor: int, *, key: str) -> Refunded | Declined:
        """Give back a part, or the whole, of what was debited."""

    def statement(self) -> list[StatementLine]:
        """Everything that the bank debited and gave back for us."""

    def look_up(self, key: str) -> Authorised | Declined | Captured | Voided | None:
        """What became of the authorisation sent under ``key``; None when the bank never saw it."""
