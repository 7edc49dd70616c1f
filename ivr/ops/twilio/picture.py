"""The page of Twilio's console as a picture, each value in its field. Pure."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment

from ivr.ops.twilio.number import Field

ROW, HEAD = 46, 64  # in pixels: one line of the form, the head of a part
_TEMPLATE = Path(__file__).with_name("console.svg")


def picture(number: str, fields: tuple[Field, ...]) -> str:
    """An SVG of what the form of ``number`` looks like when it is filled in."""
    parts: dict[str, dict[str, dict[str, str]]] = {}  # Voice: A call comes in: URL: its value
    for field in fields:
        part, _, where = field.console.partition(" > ")
        line, _, box = where.partition(": ")
        value = {"False": "Disabled"}.get(field.value, field.value)
        parts.setdefault(part, {}).setdefault(line, {})[box] = value
    height = sum(HEAD + ROW * len(lines) for lines in parts.values())
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_TEMPLATE.read_text())
    return template.render(number=number, parts=parts, height=height, row=ROW, head=HEAD) + "\n"
