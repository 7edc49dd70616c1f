"""Card numbers: checksum, issuer, lengths, the keyed hash, and the one way a number is shown. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class Issuer:
    """A card brand: the prefixes it owns (``"4"``, or a range ``"51-55"``) and the lengths it issues.

    ``usual``: the length of nearly all its cards; None where several are common.
    """

    brand: str
    prefixes: tuple[str, ...]
    lengths: frozenset[int]
    usual: int | None = 16


_16 = frozenset({16})
_16_TO_19 = frozenset(range(16, 20))

#: After ISO/IEC 7812 and the brands' published ranges. A longer prefix wins over a shorter one.
#: Visa's 13 digits are left out: none is issued any more, and one spoken 16-digit number in ten
#: would pass for one after its first thirteen digits.
ISSUERS = (
    Issuer("visa", ("4",), frozenset({16, 19})),
    Issuer("mastercard", ("51-55", "2221-2720"), _16),
    Issuer("amex", ("34", "37"), frozenset({15}), 15),
    Issuer("discover", ("6011", "644-649", "65"), _16_TO_19),
    Issuer("diners", ("300-305", "3095", "36", "38-39"), frozenset(range(14, 20)), 14),
    Issuer("jcb", ("3528-3589",), _16_TO_19),
    Issuer("unionpay", ("62", "81"), _16_TO_19, None),
    Issuer("mir", ("2200-2204",), _16_TO_19),
    Issuer("rupay", ("508", "60", "82"), _16),
    Issuer("troy", ("9792",), _16),
    Issuer("maestro", ("50", "56-58", "6"), frozenset(range(12, 20)), None),
)

SHORTEST, LONGEST = 12, 19


def _by_prefix() -> dict[str, Issuer]:
    table: dict[str, Issuer] = {}
    for issuer in ISSUERS:
        for prefix in issuer.prefixes:
            low, _, high = prefix.partition("-")
            for number in range(int(low), int(high or low) + 1):
                table[str(number)] = issuer
    return table


_ISSUER_BY_PREFIX = _by_prefix()


def luhn_sum(digits: str) -> int:
    """The Luhn (mod 10) sum of a digit string, doubling every second digit from the right; valid is 0."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = ord(digit) - 48
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10


def luhn_valid(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    return bool(digits) and digits.isascii() and digits.isdigit() and luhn_sum(digits) == 0


def luhn_check_digit(digits: str) -> str:
    """The digit that makes ``digits + result`` Luhn-valid."""
    return str(-luhn_sum(digits + "0") % 10)


def issuer(pan: str) -> Issuer | None:
    """The issuer of a number that begins so, or None when no brand begins so."""
    for length in (4, 3, 2, 1):
        if found := _ISSUER_BY_PREFIX.get(pan[:length]):
            return found
    return None


def brand(pan: str) -> str | None:
    """``visa``, ``mastercard``, ... or None."""
    found = issuer(pan)
    return found.brand if found else None


def possible_lengths(pan: str) -> frozenset[int]:
    """How long a number that begins so can be; empty when no brand begins so."""
    found = issuer(pan)
    return found.lengths if found else frozenset()


def possible_length(pan: str) -> bool:
    """Whether a number that begins so may have this length."""
    return len(pan) in possible_lengths(pan)


def is_complete(pan: str) -> bool:
    """A whole card number: a length its issuer uses, and a right check digit."""
    return possible_length(pan) and luhn_valid(pan)


def may_go_on(pan: str) -> bool:
    """Whether longer numbers that begin so are in common use: UnionPay has 16 digits and 19."""
    found = issuer(pan)
    return found is not None and found.usual != len(pan) and len(pan) < max(found.lengths)


def pan_hash(key: bytes, customer_id: str, pan: str) -> bytes:
    """HMAC-SHA256 over customer id and number: nothing links one card between two customers."""
    return hmac.digest(key, f"{customer_id}\x00{pan}".encode(), "sha256")


def masked(pan: str) -> str:
    """``•••• 1234``: how a card number appears wherever a person may see it (PCI DSS 3.4.1).

    What is too short to be a card number (a PIN, half a number) shows nothing of itself.
    """
    return f"•••• {pan[-4:]}" if len(pan) >= SHORTEST else "••••"
