"""Free text from outside, before it is stored and shown. Pure."""

from __future__ import annotations

import re

from ivr.customers.errors import InvalidInput
from ivr.speech.pan import LONGEST, SHORTEST, is_complete

LONGEST_SPOKEN = 80
_DIGITS = re.compile(rf"(?<!\d)\d(?:[ .-]?\d){{{SHORTEST - 1},{LONGEST - 1}}}(?!\d)")


def clean_text(text: str, what: str, *, least: int = 0, most: int) -> str:
    """The text without outer space. Raises InvalidInput: length, control characters, a card number in it."""
    text = text.strip()
    if not least <= len(text) <= most:
        raise InvalidInput(f"{what} has {least} to {most} characters, not {len(text)}")
    if not text.isprintable():
        raise InvalidInput(f"{what} is one line of printable characters")
    if any(is_complete(re.sub(r"\D", "", match)) for match in _DIGITS.findall(text)):
        raise InvalidInput(f"{what} holds what looks like a card number, which may not be stored")
    return text
