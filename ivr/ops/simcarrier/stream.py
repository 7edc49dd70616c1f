"""One ``<Connect><Stream>``: the carrier's end of the media stream's websocket.

Source: docs voice/media-streams/websocket-messages. Numbers are strings, except in ``mediaFormat``.
"""

from __future__ import annotations

import base64
import binascii
import json
import queue
import secrets
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from typing import Any, cast

from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidHandshake, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event
from websockets.sync.client import ClientConnection, connect

from ivr.ops.simcarrier.audio import FRAME_S, FRAME_SAMPLES
from ivr.ops.simcarrier.caller import Caller
from ivr.ops.simcarrier.clock import Clock
from ivr.ops.simcarrier.line import is_loopback
from ivr.ops.simcarrier.record import CallRecord, Heard, Reopened, Streamed
from ivr.ops.simcarrier.twiml import Stream

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.1  # for the service to end the TCP connection; the stream is over before
SETTLE_S = 0.15  # that the service has to begin a prompt before the caller may speak; at natural speed
REOPENED_STEP_S = 0.05
MAX_S = 900.0  # of the call; no listening turn is longer
PROMPT_MARK = "prompt:"


class StreamFailed(Exception):
    """The websocket could not be opened (carrier error 31920)."""


class _Connection(ClientConnection):
    """Notes when the service's close frame came; the library waits for the end of the TCP connection."""

    close_came_at: float | None = None  # perf_counter

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
            self.close_came_at = time.perf_counter()
        super().process_event(event)


class _Playout:
    """What the service sent to be played, in order: seconds of audio, and marks behind them."""

    def __init__(self) -> None:
        self._queue: deque[int | str] = deque()  # bytes of mu-law, or the name of a mark

    def add(self, item: int | str) -> None:
        self._queue.append(item)

    def play(self, budget: int) -> list[str]:
        """Play ``budget`` bytes; the marks that were passed."""
        passed = []
        while self._queue:
            head = self._queue.popleft()
            if isinstance(head, str):
                passed.append(head)
            elif head > budget:
                self._queue.appendleft(head - budget)
                break
            else:
                budget -= head
        return passed

    def clear(self) -> list[str]:
        """Drop what has not been played; its marks."""
        marks = [item for item in self._queue if isinstance(item, str)]
        self._queue.clear()
        return marks

    @property
    def idle(self) -> bool:
        return not self._queue


class MediaStream:
    """Streams the caller's frames, plays the service's, until one of them ends it."""

    def __init__(
        self,
        verb: Stream,
        account_sid: str,
        caller: Caller,
        clock: Clock,
        record: CallRecord,
    ) -> None:
        self.sid = "MZ" + secrets.token_hex(16)
        self._verb = verb
        self._account_sid = account_sid
        self._caller = caller
        self._clock = clock
        self._record = record
        self._playout = _Playout()
        self._inbox: queue.SimpleQueue[str | bytes | None] = queue.SimpleQueue()
        self._sequence = 0
        self._frames = 0
        self._last_speech_at: float | None = None  # perf_counter
        self._prompt_played = False

    def run(self, signature: str) -> Streamed:
        """Stream until the service closes or the caller hangs up. Raises StreamFailed, Mismatch."""
        with ExitStack() as stack:
            with self._clock.waiting():
                socket = self._open(stack, signature)
            return self._converse(socket)

    def reopen(self, signature: str) -> None:
        """What somebody would do who has seen the token: open the stream once more. It must be closed in silence."""
        with ExitStack() as stack, self._clock.waiting():
            socket = self._open(stack, signature)
            if not self._is_answered(socket):
                self._record.add(Reopened(self._clock.now_s))
                return
        self._record.errors.append(f"31924 at {self._verb.url}: a token opened a stream twice")

    def _is_answered(self, socket: _Connection) -> bool:
        """Whether anything but a close comes; nothing at all is as if somebody listened."""
        with suppress(ConnectionClosed):
            self._start(socket)
            deadline = time.monotonic() + OPEN_TIMEOUT_S
            while time.monotonic() < deadline and not socket.close_came_at:
                with suppress(TimeoutError):
                    socket.recv(timeout=REOPENED_STEP_S)
                    return True
            return not socket.close_came_at
        return False

    def _converse(self, socket: _Connection) -> Streamed:
        started_s = self._clock.now_s
        reader = threading.Thread(target=self._read, args=(socket,), daemon=True)
        reader.start()
        closed_by = "caller"
        try:
            self._start(socket)
            self._caller.lose_keys(self._clock.now_s)
            while not self._hung_up() and self._clock.now_s - started_s < MAX_S:
                self._receive(socket)
                if socket.close_came_at or not reader.is_alive():
                    closed_by = "service"
                    break
                self._step(socket, started_s)
            else:
                self._send(socket, "stop", stop={"accountSid": self._account_sid, "callSid": self._record.call_sid})
        except ConnectionClosed:
            closed_by = "service"
        finally:
            cut_off = self._caller.speaking and self._last_speech_at is None
            self._caller.listening_over(self._clock.now_s)
            with self._clock.waiting():
                socket.close()
                reader.join(timeout=OPEN_TIMEOUT_S)
        return self._result(started_s, closed_by, cut_off, socket.close_came_at)

    def _open(self, stack: ExitStack, signature: str) -> _Connection:
        try:
            opening = connect(
                self._verb.url,
                additional_headers={"X-Twilio-Signature": signature},
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                create_connection=_Connection,
                compression=None,
                proxy=None if is_loopback(self._verb.url) else True,
            )
            return cast(_Connection, stack.enter_context(opening))
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            raise StreamFailed(f"31920 at {self._verb.url}: {error}") from None

    def _read(self, socket: _Connection) -> None:
        try:
            for message in socket:
                self._inbox.put(message)
        except ConnectionClosedError as error:
            if not (error.sent and error.sent.code == CloseCode.NORMAL_CLOSURE):  # else we closed, and did not wait
                self._record.errors.append(f"31924 at {self._verb.url}: {error}")

    def _start(self, socket: _Connection) -> None:
        socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "accountSid": self._account_sid,
            "streamSid": self.sid,
            "callSid": self._record.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(self._verb.parameters),
        }
        self._send(socket, "start", start=start)

    def _step(self, socket: _Connection, started_s: float) -> None:
        """20 ms: marks passed, keys pressed, one frame."""
        now_s = self._clock.now_s
        settled = now_s - started_s >= SETTLE_S
        for mark in self._playout.play(FRAME_SAMPLES):
            self._send(socket, "mark", mark={"name": mark})
        if self._playout.idle and settled:
            if self._prompt_played:
                self._prompt_played = False
                self._caller.prompt_over(now_s)
            self._caller.invite(now_s, ears=True)
        while pressed := self._caller.key(now_s):
            self._send(socket, "dtmf", dtmf={"track": "inbound_track", "digit": pressed[1]})
            self._last_speech_at = time.perf_counter()
        frame, last_of_speech = self._caller.frame(now_s)
        media = {
            "track": "inbound",
            "chunk": str(self._frames + 1),
            "timestamp": str(round((now_s - started_s) * 1000)),
            "payload": base64.b64encode(frame).decode(),
        }
        self._send(socket, "media", media=media)
        if last_of_speech:
            self._last_speech_at = time.perf_counter()
        self._frames += 1
        # What is sent faster than it can be heard only piles up: once the caller answered, the service has
        # the time that it would have on a real line.
        answered = self._last_speech_at is not None and not self._caller.active
        self._clock.sleep(FRAME_S, natural=not settled or answered)

    def _receive(self, socket: _Connection) -> None:
        while not self._inbox.empty():
            raw = self._inbox.get()
            try:
                self._obey(socket, json.loads(raw or ""))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._record.errors.append(f"31951: a message that this protocol lacks ({type(error).__name__})")

    def _obey(self, socket: _Connection, message: dict[str, Any]) -> None:
        if message["streamSid"] != self.sid:
            raise ValueError("another stream's id")
        match message["event"]:
            case "media":
                self._playout.add(len(_audio(message["media"]["payload"])))
            case "mark":
                name = message["mark"]["name"]
                self._playout.add(name)
                self._hear(name)
            case "clear":
                for mark in self._playout.clear():
                    self._send(socket, "mark", mark={"name": mark})
            case other:
                raise ValueError(f"event {other!r}")

    def _hear(self, mark: str) -> None:
        if not mark.startswith(PROMPT_MARK):
            return
        prompt = mark.removeprefix(PROMPT_MARK)
        self._record.add(Heard(self._clock.now_s, prompt, ""))
        self._prompt_played = True
        self._caller.hear(prompt, {}, self._clock.now_s)

    def _hung_up(self) -> bool:
        at_s = self._caller.hangup_at_s
        return at_s is not None and at_s <= self._clock.now_s

    def _send(self, socket: _Connection, event: str, **body: object) -> None:
        self._sequence += 1
        message = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.sid, **body}
        socket.send(json.dumps(message))

    def _result(self, started_s: float, closed_by: str, cut_off: bool, closed_at: float | None) -> Streamed:
        end_of_turn_ms = None
        if closed_by == "service" and closed_at and self._last_speech_at:
            end_of_turn_ms = round((closed_at - self._last_speech_at) * 1000, 1)
        seconds = round(self._clock.now_s - started_s, 2)
        return Streamed(self._clock.now_s, seconds, self._frames, closed_by, end_of_turn_ms, cut_off)


def _audio(payload: str) -> bytes:
    try:
        audio = base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise ValueError("payload is not base64") from None
    if audio.startswith(b"RIFF"):
        raise ValueError("payload is a WAV file; raw mu-law is wanted")
    return audio
