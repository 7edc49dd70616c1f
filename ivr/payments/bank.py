"""What a bank does for us: the interface that every connector implements, its answers and its errors.

Each call that changes something at the bank carries an idempotency key: the identical call with the same key
may be repeated, within the key's life at the bank, and is answered as the first was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

Channel = Literal["telephone", "web"]
"""How the customer ordered. Only by telephone may a bank leave out what it asks of her on a page."""


@dataclass(frozen=True)
class Capabilities:
    """What a bank can do that not every bank can. The core asks these, never a bank's name."""

    debit_confirmation: bool  # it sends a notice before it debits, and debits only what we confirm
    look_up_by_key: bool  # it tells what became of an authorisation by its idempotency key
    partial_capture: bool  # it debits less than it holds, and releases the rest
    telephone_order: bool  # it is told that the customer ordered by telephone


class DeclineReason(StrEnum):
    """Why a bank will not debit a card."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    EXPIRED = "expired"
    BLOCKED = "blocked"
    UNAVAILABLE = "unavailable"  # the card's issuer cannot be asked now; an answer, not a failure to answer
    AUTHENTICATION_REQUIRED = "authentication_required"  # by the customer herself, and she cannot be sent a link
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
class Linked:
    """The bank will hold the amount once the customer has agreed at ``url``, a page of the bank's."""

    reference: str
    url: str = field(repr=False)


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


class KeyReused(BankRejected):
    """The idempotency key came with another request before."""


class SetupMissing(BankRejected):
    """Our account at the bank cannot do this, and will not until a person changes it there."""


class TelephoneOrdersNotEnabled(SetupMissing):
    """Our account may not take orders by telephone: the bank must enable that."""


class CurrencyNotSupported(SetupMissing):
    """The bank counts this currency in other minor units than we do."""


class NotConfirmed(BankError):
    """The bank asked us whether to debit and did not hear yes: it debited nothing. Repeat it with the same key."""


class InvalidCard(BankError):
    """The bank will not give a token for this card, or does not know the token."""


class Bank(Protocol):
    """A connector. Every method raises BankUnavailable and BankRejected."""

    name: str
    capabilities: Capabilities
    test_only: bool
    """Whether its money is play money: test customers, and only they, are debited there."""

    def tokenise(self, pan: str, exp_year: int, exp_month: int) -> Token:
        """A token for a card; the same card gives the same token. Raises InvalidCard."""

    def card(self, token: str) -> Token:
        """The card of a token that the bank gave elsewhere. Raises InvalidCard."""

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
        """Hold an amount. ``reference`` is our own name of the payment, ``merchant`` whom the cardholder pays.

        Raises KeyReused and SetupMissing too.
        """

    def status(self, bank_reference: str) -> Authorised | Linked | Declined | Captured | Voided:
        """How an authorisation stands now."""

    def capture(self, bank_reference: str, amount_minor: int | None = None, *, key: str) -> Captured | Voided:
        """Debit this much of what is held, or all, and let go of the rest; Voided when it is held no longer.

        Raises KeyReused too, and NotConfirmed if the bank confirms debits with us.
        """

    def void(self, bank_reference: str, *, key: str) -> Voided | Captured:
        """Give back what is held, or will be once the customer agrees; Captured when it was debited before.

        Either way it is resolved for good.
        """

    def refund(self, bank_reference: str, amount_minor: int, *, key: str) -> Refunded | Declined:
        """Give back a part, or the whole, of what was debited."""

    def statement(self) -> list[StatementLine]:
        """Everything that the bank debited and gave back for us."""

    def look_up(self, key: str) -> Authorised | Linked | Declined | Captured | Voided | None:
        """What became of the authorisation sent under ``key``; None when the bank never saw it.

        Asked only of banks that can look up by key.
        """

    def find(self, reference: str, since: datetime) -> Authorised | Linked | Declined | Captured | Voided | None:
        """What became of the authorisation of our payment, from a list of all since then; None when there is none.

        Slower than ``look_up``, and it does not see a request that is still under way.
        """
