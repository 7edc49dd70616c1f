"""Receipt numbers: seven digits, easily read out on the telephone, the last a Luhn check digit.

When those are nearly used up, after about a million payments, they have eight.
"""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.payments.models import Payment
from ivr.speech.pan import luhn_check_digit

_TRIES = 50
LENGTHS = (7, 8)


def new_receipt_number(session: Session) -> str:
    """A number that no payment has. The unique column settles the rare race: the job is then repeated."""
    for digits in LENGTHS:
        for _ in range(_TRIES):
            body = f"{secrets.randbelow(10 ** (digits - 1)):0{digits - 1}}"
            number = body + luhn_check_digit(body)
            if session.scalar(select(Payment.id).where(Payment.receipt_number == number)) is None:
                return number
    raise RuntimeError("no free receipt number found; those of eight digits are nearly used up too")
