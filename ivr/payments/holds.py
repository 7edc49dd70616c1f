"""Amounts that are held first: posted later, whole or in part, or released. Asked for by commands, done by a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy.orm import Session

from ivr.payments import service
from ivr.payments.bank import Capabilities
from ivr.payments.models import Payment
from ivr.payments.processor import PaymentError, execute
from ivr.payments.states import Event, State


class NotHeld(PaymentError):
    """Nothing is held for the payment: it is unknown, posted or released already, or the bank has let go of it."""


class NotSoMuch(PaymentError):
    """More is to be posted than is held, or a part at a bank that posts only the whole."""


@dataclass(frozen=True)
class Post:
    """Debit ``amount_minor`` of what is held, and let go of the rest; the whole when None."""

    name: ClassVar[str] = "post"
    payment_id: str
    amount_minor: int | None
    why: str = field(compare=False)
    partly: bool = field(compare=False)  # whether the bank can post a part

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        payment = _held(session, self.payment_id)
        if payment.hold_expires_at is not None and payment.hold_expires_at <= now:
            raise NotHeld(f"the bank held payment {payment.id} only until {payment.hold_expires_at:%Y-%m-%d %H:%M} UTC")
        amount = payment.amount_minor if self.amount_minor is None else self.amount_minor
        if not 0 < amount <= payment.amount_minor:
            raise NotSoMuch(f"{payment.amount_minor} minor units are held for payment {payment.id}")
        if amount < payment.amount_minor and not self.partly:
            raise NotSoMuch("this bank posts only the whole of what it holds")
        payment.post_minor = amount
        service.apply(session, payment, Event.POST, who=who, why=self.why, now=now)
        service.queue_debit(session, payment, "post", now)
        return {"amount_minor": amount}


@dataclass(frozen=True)
class Release:
    """Give back what is held; nothing is debited."""

    name: ClassVar[str] = "release"
    payment_id: str
    why: str = field(compare=False)

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        payment = _held(session, self.payment_id)
        service.apply(session, payment, Event.RELEASE, who=who, why=self.why, now=now)
        service.queue_debit(session, payment, "release", now)
        return {}


def post(
    session: Session,
    payment_id: str,
    amount_minor: int | None,
    capabilities: Capabilities,
    *,
    key: str,
    who: str,
    why: str,
    now: datetime,
) -> int:
    """Have a held amount, or a part of it, debited; how much. Raises NotHeld, NotSoMuch, IdempotencyConflict."""
    command = Post(payment_id, amount_minor, why, capabilities.partial_capture)
    return int(execute(session, command, key=f"post:{key}", who=who, now=now)["amount_minor"])


def release(session: Session, payment_id: str, *, key: str, who: str, why: str, now: datetime) -> None:
    """Have a held amount given back. Raises NotHeld, IdempotencyConflict."""
    execute(session, Release(payment_id, why), key=f"release:{key}", who=who, now=now)


def _held(session: Session, payment_id: str) -> Payment:
    """The payment, its row locked."""
    payment = session.get(Payment, payment_id, with_for_update=True)
    if payment is None:
        raise NotHeld(f"there is no payment {payment_id!r}")
    if payment.state is not State.HELD:
        raise NotHeld(f"payment {payment_id} is {payment.state}, not held")
    return payment
