"""TwiML as typed verbs: the part of the language that the simulated carrier executes.

Source: the carrier's reference (docs: voice/twiml and its page for each verb). What the real carrier would
only warn of (error 12200) is an error here, so that a mistake of ours is seen before a caller meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

KEYS = frozenset("0123456789*#")


class TwimlError(Exception):
    """A document that the carrier would not execute as meant; ``code`` is the carrier's number for it."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


@dataclass(frozen=True)
class Say:
    text: str
    loop: int = 1


@dataclass(frozen=True)
class Play:
    url: str
    loop: int = 1


@dataclass(frozen=True)
class Pause:
    length_s: float = 1.0


Prompt = Say | Play | Pause


@dataclass(frozen=True)
class Gather:
    prompts: tuple[Prompt, ...] = ()
    action: str = ""
    method: str = "POST"
    timeout_s: float = 5.0
    finish_on_key: str = "#"
    num_digits: int | None = None
    action_on_empty_result: bool = False


@dataclass(frozen=True)
class Record:
    action: str = ""
    method: str = "POST"
    timeout_s: float = 5.0
    finish_on_key: str = "1234567890*#"
    max_length_s: float = 3600.0
    status_callback: str | None = None


@dataclass(frozen=True)
class Stream:
    url: str
    name: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    status_callback: str | None = None


@dataclass(frozen=True)
class Connect:
    stream: Stream
    action: str | None = None
    method: str = "POST"


@dataclass(frozen=True)
class Dial:
    number: str
    action: str | None = None
    method: str = "POST"


@dataclass(frozen=True)
class Redirect:
    url: str
    method: str = "POST"


@dataclass(frozen=True)
class Reject:
    reason: str = "rejected"


@dataclass(frozen=True)
class Hangup:
    pass


Verb = Say | Play | Pause | Gather | Record | Connect | Dial | Redirect | Reject | Hangup

_METHOD = {"action", "method"}
_ATTRIBUTES: dict[str, set[str]] = {
    "Response": set(),
    "Say": {"voice", "language", "loop"},
    "Play": {"loop"},
    "Pause": {"length"},
    "Gather": _METHOD
    | {"input", "timeout", "finishOnKey", "numDigits", "actionOnEmptyResult", "bargeIn", "language", "debug"},
    "Record": _METHOD
    | {"timeout", "finishOnKey", "maxLength", "playBeep", "trim"}
    | {
        "recordingStatusCallback",
        "recordingStatusCallbackMethod",
        "recordingStatusCallbackEvent",
        "transcribe",
    },
    "Connect": _METHOD,
    "Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
    "Parameter": {"name", "value"},
    "Dial": _METHOD | {"timeout", "callerId", "answerOnBridge", "timeLimit", "hangupOnStar", "record", "referUrl"},
    "Number": set(),
    "Redirect": {"method"},
    "Reject": {"reason"},
    "Hangup": set(),
}


def parse(document: str | bytes) -> tuple[Verb, ...]:
    """The verbs of a TwiML document, in order.

    Raises TwimlError: 12100 for what is not XML or not a ``<Response>``, 12200 for what the language lacks.
    """
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise TwimlError(12100, f"not XML: {error}") from None
    if root.tag != "Response":
        raise TwimlError(12100, f"the root is <{root.tag}>, not <Response>")
    _check(root)
    return tuple(_verb(element) for element in root)


def _check(element: ElementTree.Element) -> None:
    for child in element.iter():
        known = _ATTRIBUTES.get(child.tag)
        if known is None:
            raise TwimlError(12200, f"<{child.tag}> is no verb that this carrier executes")
        if unknown := sorted(set(child.attrib) - known):
            raise TwimlError(12200, f"<{child.tag}> has no attribute {', '.join(unknown)}")


def _verb(element: ElementTree.Element) -> Verb:
    get, method = element.get, _method(element)
    match element.tag:
        case "Say" | "Play" | "Pause":
            return _prompt(element)
        case "Gather":
            return _gather(element, method)
        case "Record":
            return Record(
                action=get("action", ""),
                method=method,
                timeout_s=_positive(element, "timeout", 5),
                finish_on_key=_keys(element, "1234567890*#"),
                max_length_s=_positive(element, "maxLength", 3600),
                status_callback=get("recordingStatusCallback"),
            )
        case "Connect":
            return Connect(_stream(element), get("action"), method)
        case "Dial":
            return Dial(_text(element), get("action"), method)
        case "Redirect":
            return Redirect(_text(element), method)
        case "Reject":
            return Reject(get("reason", "rejected"))
        case "Hangup":
            return Hangup()
    raise TwimlError(12200, f"<{element.tag}> cannot stand in <Response>")


def _prompt(element: ElementTree.Element) -> Prompt:
    match element.tag:
        case "Say":
            return Say(_text(element), _loop(element))
        case "Play":
            return Play(_text(element), _loop(element))
        case "Pause":
            return Pause(_positive(element, "length", 1))
    raise TwimlError(12200, f"<{element.tag}> cannot stand in <Gather>")


def _gather(element: ElementTree.Element, method: str) -> Gather:
    if element.get("input", "dtmf") != "dtmf":
        raise TwimlError(12200, 'only input="dtmf" is simulated: the carrier cannot hear single characters')
    num_digits = element.get("numDigits")
    return Gather(
        prompts=tuple(_prompt(child) for child in element),
        action=element.get("action", ""),
        method=method,
        timeout_s=_positive(element, "timeout", 5),
        finish_on_key=_keys(element, "#"),
        num_digits=None if num_digits is None else int(_positive(element, "numDigits", 1)),
        action_on_empty_result=element.get("actionOnEmptyResult", "false").lower() == "true",
    )


def _stream(connect: ElementTree.Element) -> Stream:
    if [child.tag for child in connect] != ["Stream"]:
        raise TwimlError(12200, "<Connect> needs exactly one <Stream>")
    element = connect[0]
    url = element.get("url", "")
    if not url.startswith(("wss://", "ws://")):
        raise TwimlError(12200, f"<Stream> needs a wss:// url, not {url!r}")
    if "?" in url:
        raise TwimlError(12200, "the query string of a <Stream> url is not passed on: use <Parameter>")
    if element.get("track", "inbound_track") != "inbound_track":
        raise TwimlError(12200, "<Connect><Stream> has the inbound track only")
    parameters = {child.get("name", ""): child.get("value", "") for child in element if child.tag == "Parameter"}
    return Stream(url, element.get("name"), parameters, element.get("statusCallback"))


def _text(element: ElementTree.Element) -> str:
    text = "".join(element.itertext()).strip()
    if not text:
        raise TwimlError(12200, f"<{element.tag}> is empty")
    return text


def _method(element: ElementTree.Element) -> str:
    method = element.get("method", "POST").upper()
    if method not in ("GET", "POST"):
        raise TwimlError(12200, f"<{element.tag}> method is {method!r}, not GET or POST")
    return method


def _positive(element: ElementTree.Element, name: str, default: int) -> float:
    value = element.get(name, str(default))
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise TwimlError(12200, f"<{element.tag}> {name} is {value!r}, not a positive whole number")
    return float(value)


def _loop(element: ElementTree.Element) -> int:
    value = element.get("loop", "1")
    if not (value.isascii() and value.isdigit()):
        raise TwimlError(12200, f"<{element.tag}> loop is {value!r}, not a whole number")
    return int(value)


def _keys(element: ElementTree.Element, default: str) -> str:
    value = element.get("finishOnKey", default)
    if not set(value) <= KEYS:
        raise TwimlError(12200, f"<{element.tag}> finishOnKey is {value!r}, not keys of a telephone")
    return value
