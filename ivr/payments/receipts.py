"""Receipt numbers: seven digits, easily read out on the telephone, the last a Luhn check digit."""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.payments.models import Payment
from ivr.speech.pan import luhn_check_digit

_TRIES = 50


def new_receipt_number(session: Session) -> str:
    """A number that no payment has. The unique column settles the rare race: the job is then repeated."""
    for _ in range(_TRIES):
        body = f"{secrets.randbelow(10**6):06}"
        number = body + luhn_check_digit(body)
        if session.scalar(select(Payment.id).where(Payment.receipt_number == number)) is None:
            return number
    raise RuntimeError("no free receipt number found; the seven digits are nearly used up")
