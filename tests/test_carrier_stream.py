"""The media stream's websocket, as a carrier, a stranger and a broken line use it. Real server, real sockets."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from twilio.request_validator import RequestValidator
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from werkzeug.serving import make_server

from ivr.app import create_app
from ivr.call.engine import Engine
from ivr.call.flow import Event
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.keys import Keyring
from ivr.resources import shipped
from ivr.services import Services
from ivr.settings import Settings
from ivr.speech.recogniser import DigitModel
from ivr.store.db import Database
from voiceprint import Encoder, Scorer

SID = "CA" + "1" * 32
SILENCE = base64.b64encode(b"\xff" * 160).decode()


@pytest.fixture(scope="session")
def models() -> tuple[DigitModel, Encoder, Scorer]:
    voice = shipped("models/voice")
    return DigitModel(shipped("models/digits")), Encoder.load(voice), Scorer.load(voice)


@dataclass
class Service:
    """A service that a call has just rung."""

    services: Services
    url: str
    token: str

    def open(self, signed: bool = True) -> ClientConnection:
        token = self.services.settings.auth_token.get_secret_value()
        signature = RequestValidator(token).compute_signature(self.url, {}) if signed else "bm90IGl0"
        ws = connect(self.url, additional_headers={"X-Twilio-Signature": signature}, compression=None)
        return ws.__enter__()  # closed by the service, or with it

    def start(self, token: str | None = None, step: str = "1", sid: str = SID) -> ClientConnection:
        ws = self.open()
        _send(ws, event="connected", protocol="Call", version="1.0.0")
        parameters = {"token": token or self.token, "step": step}
        _send(ws, event="start", start={"callSid": sid, "streamSid": "MZ1", "customParameters": parameters})
        return ws

    def outcome(self) -> Event | None:
        outcome = self.services.calls.outcome(SID, 1)
        return outcome.event if outcome else None


@pytest.fixture
def service(
    tmp_path: Any,
    settings: Settings,
    redis_client: redis.Redis,
    keyring: Keyring,
    sqlite_template: Any,
    models: tuple[DigitModel, Encoder, Scorer],
) -> Iterator[Service]:
    import shutil

    shutil.copy(sqlite_template, tmp_path / "ivr.sqlite3")
    database = Database(settings.sqlalchemy_url())
    calls = CallStore(redis_client, keyring)
    digits, encoder, scorer = models
    judge = Judge(database, calls, keyring, encoder, scorer, lambda: datetime.now(UTC))
    engine = Engine(calls, database, judge, lambda: datetime.now(UTC))
    services = Services(settings.model_copy(update={"public_url": None}), database, calls, engine, judge, digits)
    server = make_server("127.0.0.1", 0, create_app(services.settings, services), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    engine.ring(SID, None, None, "en")
    url = f"ws://127.0.0.1:{server.server_port}/voice/stream"
    yield Service(services, url, calls.stream_token(SID, 1))
    server.shutdown()
    thread.join()


def _send(ws: ClientConnection, **message: object) -> None:
    ws.send(json.dumps(message))


def _media(ws: ClientConnection, payload: object) -> None:
    _send(ws, event="media", media={"payload": payload})


def _until_closed(ws: ClientConnection) -> list[dict[str, Any]]:
    """What the service sends before it closes."""
    received = []
    try:
        while True:
            received.append(json.loads(ws.recv(timeout=20)))
    except ConnectionClosed:
        return received


def _played(ws: ClientConnection) -> None:
    """The carrier has played everything."""
    _send(ws, event="mark", mark={"name": "played"})


def test_a_handshake_without_the_carriers_signature_is_refused(service: Service) -> None:
    with pytest.raises(InvalidStatus) as refused:
        service.open(signed=False)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "wrong", [{"token": "0" * 64}, {"step": "2"}, {"step": "x"}, {"sid": "CA" + "2" * 32}, {"sid": "{CA}"}]
)
def test_a_stream_with_a_wrong_token_is_closed_and_the_call_goes_on(service: Service, wrong: dict[str, str]) -> None:
    assert _until_closed(service.start(**wrong)) == []
    answer = service.services.engine.turn_over(SID, 1)
    assert answer
    assert answer.lines[0].prompt == "card.retry"


def test_a_token_opens_one_stream(service: Service) -> None:
    first = service.start()
    first.recv(timeout=20)
    assert _until_closed(service.start()) == []
    first.close()


def test_the_prompt_is_played_with_its_mark(service: Service) -> None:
    ws = service.start()
    received: list[dict[str, Any]] = []
    while not received or received[-1].get("mark", {}).get("name") != "played":
        received.append(json.loads(ws.recv(timeout=20)))
    assert {"name": "prompt:card.ask"} in [m.get("mark") for m in received]
    assert sum(len(base64.b64decode(m["media"]["payload"])) for m in received if "media" in m) > 8000
    ws.close()


def test_silence_ends_the_turn_after_six_seconds_of_it(service: Service) -> None:
    ws = service.start()
    _played(ws)
    for _ in range(50 * 7):
        _media(ws, SILENCE)
    _until_closed(ws)
    assert service.outcome() is Event.AGAIN


def test_keys_interrupt_the_prompt_and_none_is_lost(service: Service) -> None:
    ws = service.start()
    for key in "4539148803436467":
        _send(ws, event="dtmf", dtmf={"digit": key})
    received = _until_closed(ws)
    assert [m["event"] for m in received].count("clear") == 1
    assert service.outcome() is Event.KEYED


GARBAGE: list[Any] = [
    "not json", "[]", "{}", "null", '{"event": "media"}',
    '{"event": "media", "media": 5}',
    '{"event": "media", "media": {"payload": "hello, I am text"}}', '{"event": "media", "media": {"payload": 7}}',
    '{"event": "dtmf", "dtmf": {"digit": "12"}}', '{"event": "dtmf"}', '{"event": ["mark"]}',
    "[" * 5000, b"\x00\xff\x00",
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: str(g)[:30])
def test_garbage_is_borne_a_while_and_then_closed(service: Service, garbage: Any) -> None:
    ws = service.start()
    try:
        for _ in range(60):
            ws.send(garbage)
    except ConnectionClosed:
        pass
    _until_closed(ws)
    assert service.services.engine.turn_over(SID, 1)  # the call goes on


def test_a_message_far_too_long_closes_the_stream(service: Service) -> None:
    ws = service.start()
    with contextlib.suppress(ConnectionClosed):
        _media(ws, base64.b64encode(b"\x00" * 1_000_000).decode())
    _until_closed(ws)
    assert service.services.engine.turn_over(SID, 1)


def test_a_ten_minute_monologue_is_cut_off(service: Service) -> None:
    import soundfile

    from ivr.speech.audio import pcm_to_ulaw, read_audio

    speech = pcm_to_ulaw(read_audio(shipped("fixtures/audio/noise/babble.wav")))
    assert soundfile
    frames = [base64.b64encode(speech[i : i + 160]).decode() for i in range(0, len(speech) - 160, 160)]
    ws = service.start()
    _played(ws)
    sent = 0
    try:
        while sent < 50 * 600:
            _media(ws, frames[sent % len(frames)])
            sent += 1
    except ConnectionClosed:
        pass
    _until_closed(ws)
    assert service.outcome() is Event.AGAIN


def test_a_hang_up_in_the_middle_leaves_a_call_that_can_go_on(service: Service) -> None:
    ws = service.start()
    _played(ws)
    _media(ws, SILENCE)
    _send(ws, event="stop", stop={})
    _until_closed(ws)
    assert service.outcome() is Event.AGAIN
