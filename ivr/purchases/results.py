"""How a purchase stands, and how it ended: from the purchase and its payment. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Protocol

from ivr.payments.bank import DeclineReason
from ivr.payments.states import DEBITED, FAILED, State


class Status(StrEnum):
    """Where a purchase stands."""

    OPEN = "open"  # nobody has confirmed it
    CONFIRMED = "confirmed"  # the transfer at the bank is under way
    AWAITING_APPROVAL = "awaiting_approval"  # somebody who looks after the customer must agree first
    PAID = "paid"
    FAILED = "failed"


class Result(StrEnum):
    """How it ended; at most 24 letters."""

    PAID = "paid"
    UNKNOWN_USER = "unknown_user"  # nobody proved to be who is meant
    ACCOUNT_BLOCKED = "account_blocked"
    MERCHANT_NOT_ALLOWED = "merchant_not_allowed"
    NO_BANK = "no_bank"
    BANK_REFUSED = "bank_refused"
    NOT_ALLOWED = "not_allowed"  # by her limits, her policy or those who look after her
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Asked(Protocol):
    """What is looked at of a purchase."""

    result: str | None
    expires_at: datetime


class Paying(Protocol):
    """What is looked at of a payment."""

    state: State
    decline_reason: str | None


def standing(purchase: Asked, payment: Paying | None, now: datetime) -> tuple[Status, Result | None]:
    """Status, and the result once there is one; that never changes again."""
    if purchase.result is not None:
        return Status.FAILED, Result(purchase.result)
    if payment is None:
        late = now > purchase.expires_at
        return (Status.FAILED, Result.EXPIRED) if late else (Status.OPEN, None)
    if payment.state in DEBITED:
        return Status.PAID, Result.PAID
    if payment.state in FAILED:
        return Status.FAILED, _failure(payment)
    waits = payment.state in (State.VERIFYING, State.AWAITING)
    return (Status.AWAITING_APPROVAL if waits else Status.CONFIRMED), None


def _failure(payment: Paying) -> Result:
    if payment.state is State.EXPIRED:
        return Result.EXPIRED
    if payment.state is State.VOIDED or payment.decline_reason in set(DeclineReason):
        return Result.BANK_REFUSED
    if payment.state is State.CANCELLED and payment.decline_reason is None:
        return Result.CANCELLED
    return Result.NOT_ALLOWED
