"""What an operator or a merchant gave that cannot be used: the message says what was wrong, nothing was changed."""

from __future__ import annotations


class InvalidInput(Exception):
    """Base of every refusal of given data. Messages hold no card number, PIN or code."""


class CustomerUnknown(InvalidInput):
    """No customer has this number."""
