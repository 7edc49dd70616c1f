"""One listening turn over the carrier's media stream: plays a prompt or the tone, listens, closes when it has heard.

The stream is opened by a one-time token, judges the turn, and only then closes: when the carrier asks what comes
next, the outcome lies in the session.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import structlog
from flask import current_app
from flask_sock import Sock  # type: ignore[import-untyped]
from simple_websocket import ConnectionClosed, Server  # type: ignore[import-untyped]

from ivr import metrics, tracing
from ivr.call.flow import Call, Event
from ivr.call.listening import expectation
from ivr.call.prompts import recording
from ivr.call.session import Answer, Outcome
from ivr.carrier.twiml import is_streamed
from ivr.carrier.webhooks import SID, blueprint
from ivr.services import Services
from ivr.speech.audio import SAMPLE_RATE, pcm_to_ulaw
from ivr.speech.turn import Listening

log = structlog.get_logger()

SILENT_LINE_S = 10  # a carrier sends a frame every 20 ms; after this without any it is gone
MOST_BAD_MESSAGES = 50
MARK_PATIENCE_BYTES = SAMPLE_RATE * 3  # of audio after a prompt's length: its end is taken as played by then
START_MESSAGES = 3
PLAYED = "played"
CHUNK_BYTES = SAMPLE_RATE // 2
LONGEST_FRAME_BYTES = SAMPLE_RATE  # a second
LONGEST_STREAM_S = 120.0  # of a prompt and the longest turn after it
SEND_TIMEOUT_S = 5.0
STEP = re.compile(r"\d{1,4}")
TONE_HZ, TONE_S = 800, 0.15


sock = Sock()


@sock.route("/stream", bp=blueprint)  # type: ignore[untyped-decorator]
def voice_stream(ws: Server) -> None:
    """The carrier opens a stream; its handshake has been verified as the carrier's."""
    listen(ws, current_app.extensions["ivr"])


@cache
def tone() -> bytes:
    """The short tone after which the caller speaks, as mu-law."""
    t = np.arange(int(SAMPLE_RATE * TONE_S)) / SAMPLE_RATE
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
    return pcm_to_ulaw((4000 * np.sin(2 * np.pi * TONE_HZ * t) * fade).astype(np.int16))


class BadStream(Exception):
    """The other side does not speak the carrier's protocol, or may not listen in here."""


#: What a carrier, a caller or the network do to a stream; anything else is a fault of ours.
BROKEN = (BadStream, ConnectionClosed, OSError)


def listen(ws: Server, services: Services) -> None:
    """Serve one websocket until its turn is over. Whatever goes wrong, it is closed and the call goes on."""
    ws.sock.settimeout(SEND_TIMEOUT_S)
    try:
        _listen(ws, services)
    except BROKEN as broken:
        log.warning("stream broken", reason=str(broken) or type(broken).__name__)
    except Exception:
        log.exception("stream failed")
    with suppress(*BROKEN):  # the other side may have been first
        ws.close()


def _listen(ws: Server, services: Services) -> None:
    sid, stream_sid, answer, call = _open(ws, services)
    try:
        listening = Listening(services.digit_model(call.locale), expectation(call))
        turn = Turn(ws, stream_sid, answer, listening)
        with metrics.LISTENING.track_inprogress(), tracing.span("listen", sid, step=answer.step, state=call.state):
            whole = turn.run()
        if whole:
            with metrics.TURN_S.labels(call.state).time(), tracing.span("conclude", sid, state=call.state):
                services.judge.conclude(answer.step, call, turn.listening.close())
    finally:
        # A turn that was not judged is asked again; where it was, the first outcome stands.
        services.calls.put_outcome(answer.step, Outcome(Event.AGAIN, call))


@dataclass(frozen=True)
class Start:
    """What a stream says of itself: whose it is, and by which token."""

    sid: str
    stream_sid: str
    step: int
    token: str


def read_start(ws: Server) -> Start:
    """Read up to the start message. Raises BadStream."""
    for _ in range(START_MESSAGES):
        message = _receive(ws)
        if message.get("event") == "start":
            break
    else:
        raise BadStream("no start message")
    start = message.get("start")
    given = start.get("customParameters") if isinstance(start, dict) else None
    if not isinstance(start, dict) or not isinstance(given, dict):
        raise BadStream("a start message without parameters")
    sid, step = str(start.get("callSid")), str(given.get("step"))
    if not SID.fullmatch(sid) or not STEP.fullmatch(step):
        raise BadStream("no token of this turn")
    stream_sid = str(start.get("streamSid") or message.get("streamSid"))
    return Start(sid, stream_sid, int(step), str(given.get("token")))


def _open(ws: Server, services: Services) -> tuple[str, str, Answer, Call]:
    """Read up to the start message and check its token. Raises BadStream."""
    start = read_start(ws)
    if not services.calls.open_stream(start.sid, start.step, start.token):
        raise BadStream("no token of this turn")
    at, answer = services.calls.load(start.sid), services.calls.answer(start.sid, start.step)
    if at is None or answer is None or answer.then != "listen":
        raise BadStream("nothing is being listened for")
    return start.sid, start.stream_sid, answer, at[1]


def _receive(ws: Server) -> Mapping[str, Any]:
    """The next message; an empty one for what cannot be read. Raises BadStream on silence, ConnectionClosed."""
    raw = ws.receive(timeout=SILENT_LINE_S)
    if raw is None:
        raise BadStream("the line is dead")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


class Turn:
    """The listening turn on its websocket."""

    def __init__(self, ws: Server, stream_sid: str, answer: Answer, listening: Listening) -> None:
        self.listening = listening
        self._ws = ws
        self._stream_sid = stream_sid
        self._answer = answer
        self._playing = True
        self._unplayed_bytes = MARK_PATIENCE_BYTES
        self._bad = 0
        self._deadline = time.monotonic() + LONGEST_STREAM_S

    def run(self) -> bool:
        """True when the turn ended by itself, False when the caller hung up."""
        self._play()
        while time.monotonic() < self._deadline:
            message = _receive(self._ws)
            match message.get("event"):
                case "media":
                    if self._media(message):
                        return True
                case "dtmf":
                    if self._key(message):
                        return True
                case "mark":
                    mark = message.get("mark")
                    if isinstance(mark, dict) and mark.get("name") == PLAYED:
                        self._playing = False
                    self._count_bad()  # one a prompt is good, more are not
                case "stop":
                    return False
                case _:
                    self._count_bad()
        raise BadStream("the stream has no end")

    def _play(self) -> None:
        """The prompts that may be interrupted by secret keys, or the tone after those that the carrier read out."""
        if is_streamed(self._answer):
            for line in self._answer.lines:
                self._send_audio(recording(line, self._answer.locale) or b"")
                self._mark(f"prompt:{line.prompt}")
        else:
            self._send_audio(tone())
        self._mark(PLAYED)

    def _media(self, message: Mapping[str, Any]) -> bool:
        media = message.get("media")
        try:
            frame = base64.b64decode(media["payload"], validate=True) if isinstance(media, dict) else None
        except (binascii.Error, KeyError, TypeError, ValueError):
            frame = None
        if not frame or len(frame) > LONGEST_FRAME_BYTES:
            self._count_bad()
            return False
        self._unplayed_bytes -= len(frame)
        if self._playing and self._unplayed_bytes > 0:
            return False  # our own prompt may echo on the line
        return self.listening.frame(frame)

    def _key(self, message: Mapping[str, Any]) -> bool:
        dtmf = message.get("dtmf")
        key = dtmf.get("digit") if isinstance(dtmf, dict) else None
        if not isinstance(key, str) or len(key) != 1 or key not in "0123456789*#":
            self._count_bad()
            return False
        if self._playing:
            self._playing = False
            self._send({"event": "clear"})
        return self.listening.key(key)

    def _count_bad(self) -> None:
        self._bad += 1
        if self._bad > MOST_BAD_MESSAGES:
            raise BadStream("too many messages that cannot be read")

    def _send_audio(self, ulaw: bytes) -> None:
        self._unplayed_bytes += len(ulaw)
        for i in range(0, len(ulaw), CHUNK_BYTES):
            payload = base64.b64encode(ulaw[i : i + CHUNK_BYTES]).decode()
            self._send({"event": "media", "media": {"payload": payload}})

    def _mark(self, name: str) -> None:
        self._send({"event": "mark", "mark": {"name": name}})

    def _send(self, message: dict[str, Any]) -> None:
        self._ws.send(json.dumps({**message, "streamSid": self._stream_sid}))
