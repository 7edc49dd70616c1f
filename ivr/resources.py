"""Where the files that ship with the package lie: in a checkout, or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE.parent, _PACKAGE / "_shipped")  # the checkout; what the wheel carries


def shipped(relative: str) -> Path:
    """The path of a shipped folder or file, such as ``models/digits`` or ``fixtures/audio``.

    Raises FileNotFoundError when the installation lacks it.
    """
    if found := shipped_if_any(relative):
        return found
    raise FileNotFoundError(f"{relative} is not part of this installation; reinstall the package")


def shipped_if_any(relative: str) -> Path | None:
    """The same, or None when the installation lacks it."""
    return next((root / relative for root in _ROOTS if (root / relative).exists()), None)
