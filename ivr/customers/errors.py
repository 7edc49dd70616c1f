"""Something given by an operator or a merchant cannot be used: the message says why, nothing was changed."""

from __future__ import annotations


class InvalidInput(Exception):
    """Base of every refusal of given data. Messages hold no card number, PIN or code."""


class CustomerUnknown(InvalidInput):
    """No customer has this number."""
