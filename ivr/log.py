"""Structured logs, and the scrubber through which every line passes, ours and the libraries'."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "[masked]"

# A card number: 12 digits or more, whatever single spaces or dashes stand between them.
_DIGITS = re.compile(r"(?<!\d)\d(?:[ .-]?\d){11,}(?!\d)")

_ENGLISH = (
    "zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred "
    "double triple"
).replace(" ", "|")
# A spoken number: four number words or more in a row, as a recogniser writes them.
_SPELLED = re.compile(
    rf"\b(?:{_ENGLISH})\b(?:[\s,.\"'-]+(?:{_ENGLISH})\b){{3,}}|[零〇幺一二两三四五六七八九](?:[\s,，]*[零〇幺一二两三四五六七八九]){{3,}}",
    re.IGNORECASE,
)


# A one-time link's token: a web server and an error name the path that was asked for. And that of an app charge.
_LINK = re.compile(r"((?:/my/l|/pay/[a-z]+)/|[?&]token=)[^\s\"'?&/\]]+")


# Audio as the carrier sends it: a frame of 20 ms has 216 letters. Nothing of ours is so long without a space or sign.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{160,}={0,2}")

#: They are given handlers of their own, and pass nothing on.
_GUNICORN = ("gunicorn.error", "gunicorn.access")


def scrub(text: str) -> str:
    """The text with everything masked that could be a card number, in figures or words, or audio, or opens a link."""
    return _SPELLED.sub(MASK, _DIGITS.sub(MASK, _BASE64.sub(MASK, _LINK.sub(rf"\1{MASK}", text))))


def scrub_value(value: Any) -> Any:
    """``scrub`` for whatever a log line or a record may hold, at any depth. Bytes are only counted."""
    match value:
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case bool() | None | float():
            return value
        case int():
            return MASK if scrub(str(value)) != str(value) else value
        case Mapping():
            return {scrub(str(key)): scrub_value(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [scrub_value(item) for item in value]
        case _:
            return scrub(str(value))


def scrub_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """structlog's processor form of ``scrub_value``."""
    # What structlog itself keeps there (underscored) is no text of the line.
    return {key: value if key.startswith("_") else scrub_value(value) for key, value in event.items()}


def configure(level: str = "INFO") -> None:
    """Send every log line of this process, from structlog or logging, as scrubbed JSON to standard error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # a plain traceback: source lines, no values of variables
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                scrub_event,  # last: nothing is added after it
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for theirs in map(logging.getLogger, _GUNICORN):
        theirs.handlers, theirs.propagate = [], True
