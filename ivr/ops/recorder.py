"""A fixture said into one's own telephone: a small service of its own that asks, hears, and keeps or forgets.

It is no part of the service that takes payments, which keeps no audio and has no way to: this one knows no customer,
database or bank. It answers one telephone number, by the carrier's own protocol, and ends with the recording.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from flask import Flask, Response, abort, request
from flask_sock import Sock  # type: ignore[import-untyped]
from simple_websocket import Server  # type: ignore[import-untyped]
from twilio.twiml.voice_response import VoiceResponse  # type: ignore[import-untyped]
from werkzeug.serving import make_server

from ivr.call.flow import State
from ivr.call.prompts import Line
from ivr.call.session import Answer
from ivr.carrier.signature import is_from_carrier
from ivr.carrier.stream import BROKEN, BadStream, Turn, read_start
from ivr.carrier.twiml import twiml
from ivr.customers.lookup import normalise_caller
from ivr.ops.fixtures import Asked, Kind, NotAsAsked, Recording, heard
from ivr.settings import Settings
from ivr.speech.expect import Expect
from ivr.speech.recogniser import DigitModel
from ivr.speech.turn import Listening

ATTEMPTS = 3
GOODBYE_S = 3.0  # for the last answer to go out; the carrier need not tell us of the call's end
LONGEST_MESSAGE_BYTES = 64 * 1024


class Recorder:
    """One recording to be made, by calls from one telephone. ``keep`` gets what is to be kept, once."""

    def __init__(
        self,
        settings: Settings,
        model: DigitModel,
        asked: Asked,
        telephone: str,
        locale: str,
        keep: Callable[[list[Recording]], object],
    ) -> None:
        self._settings, self._model, self._asked = settings, model, asked
        self._telephone, self._locale, self._keep = telephone, locale, keep
        self._step = 0
        self._token = ""
        self._lock = threading.Lock()
        self.over = threading.Event()
        self.kept = False

    def app(self) -> Flask:
        """The pages that the carrier asks for; those of ``ivr.carrier``, in small."""
        app = Flask(__name__)
        app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": LONGEST_MESSAGE_BYTES}
        sock = Sock(app)

        @app.before_request
        def refuse_strangers() -> None:
            if not is_from_carrier(request, self._settings):
                abort(403)

        @app.post("/voice/answer")
        def answer() -> Response:
            if normalise_caller(request.form.get("From")) != self._telephone:
                rejection = VoiceResponse()
                rejection.reject()
                return Response(str(rejection), mimetype="text/xml")
            self._step = 0
            return self._ask("enrol.first")

        @app.post("/voice/turn/<int:step>")
        @app.post("/voice/turn/<int:step>/key", endpoint="key")
        def turn(step: int) -> Response:
            if self.kept:
                threading.Timer(GOODBYE_S, self.over.set).start()
                return self._say("guard.over")
            return self._ask("enrol.retry") if step < ATTEMPTS else self._say("enrol.poor")

        @app.post("/voice/status")
        def status() -> Response:
            if self.kept:
                self.over.set()
            return Response(status=204)

        @sock.route("/voice/stream")  # type: ignore[untyped-decorator]
        def stream(ws: Server) -> None:
            with suppress(*BROKEN):
                self._listen(ws)
            with suppress(*BROKEN):
                ws.close()

        return app

    def _ask(self, prompt: str) -> Response:
        with self._lock:
            self._step += 1
            self._token = secrets.token_hex(32)
            answer = self._answer(self._step, prompt)
        base = str(self._settings.public_url).rstrip("/")
        return Response(twiml(answer, base, self._token, self._settings), mimetype="text/xml")

    def _answer(self, step: int, prompt: str) -> Answer:
        line = Line.of(prompt, digits=" ".join(self._asked.digits))
        return Answer(step, State.ENROL_1, (line,), "listen", self._locale)

    def _say(self, prompt: str) -> Response:
        answer = Answer(0, State.OVER, (Line.of(prompt),), "hang_up", self._locale)
        return Response(twiml(answer, "", "", self._settings), mimetype="text/xml")

    def _listen(self, ws: Server) -> None:
        start = read_start(ws)
        with self._lock:
            token, self._token = self._token, ""
            if self.kept or start.step != self._step or not token or not hmac.compare_digest(start.token, token):
                raise BadStream("no token of this turn")
        card = self._asked.kind is Kind.CARD
        expect = Expect.card() if card else Expect.digits(len(self._asked.digits), frozenset())
        turn = Turn(ws, start.stream_sid, self._answer(start.step, "enrol.first"), Listening(self._model, expect))
        turn.run()
        with suppress(NotAsAsked), self._lock:
            self._keep(heard(self._model, turn.listening.close().pcm, self._asked))
            self.kept = True


@contextmanager
def serving(recorder: Recorder, port: int) -> Iterator[int]:
    """Answer calls on a port of this machine; which."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", port, recorder.app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
