"""The languages that the service speaks."""

from __future__ import annotations

from typing import Literal, get_args

Locale = Literal["en", "zh"]
LOCALES: tuple[str, ...] = get_args(Locale)
