"""What is said to an app's charge: a recording over HTTP, or frames over a websocket.

Not under the merchant's key but under a token of the charge alone, so that the app needs no key, and from any origin.
The recording is heard in memory and kept nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import redis
import structlog
from flask import Flask, Response, current_app, json, request, send_file
from flask_sock import Sock  # type: ignore[import-untyped]
from simple_websocket import ConnectionClosed, Server  # type: ignore[import-untyped]
from werkzeug.exceptions import RequestEntityTooLarge

from ivr.api import problems
from ivr.api.asking import Asking, addresses, asking
from ivr.api.operations import ROW_ID, Desk, api_desk, blueprint
from ivr.api.responses import refusal
from ivr.api.shapes import AppChargeAnswer
from ivr.call.judging import charge as judging
from ivr.call.judging.judge import FLOOR_S
from ivr.customers import apps
from ivr.customers.apps import AppCharge
from ivr.payments.bank import Bank
from ivr.services import Services
from ivr.speech import decode
from ivr.speech.audio import SAMPLE_RATE, pcm_to_ulaw, ulaw_to_pcm
from ivr.speech.expect import Expect, Heard
from ivr.speech.turn import Listening, hear
from ivr.store.db import UNAVAILABLE
from voiceprint import Utterance
from voiceprint.errors import EncoderBusy
from voiceprint.replay import Sound

EXTENSION = "ivr.app_charges"
ANSWERS = 10  # to one charge, whatever becomes of them
CORS = {"Access-Control-Allow-Origin": "*"}
_PREFLIGHT = CORS | {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Max-Age": "600",
}
END = "end"  # a text message by which an app says that nothing more comes
SILENT_LINE_S = 5
LONGEST_STREAM_S = 30
_PIECE_BYTES = SAMPLE_RATE  # half a second of PCM

log = structlog.get_logger(__name__)
sock = Sock()


def install(app: Flask, bank: Bank) -> None:
    app.extensions[EXTENSION] = bank
    sock.init_app(app)


def prompts_folder(data_dir: Path) -> Path:
    """Where merchants' own recordings lie (``ivr app prompt``)."""
    return data_dir / "app-prompts"


def _answering(view: Callable[[str], Response]) -> Callable[[str], Response]:
    @wraps(view)
    def answer(charge_id: str) -> Response:
        try:
            response = view(charge_id)
        except problems.Problem as problem:
            response = refusal(problem)
        except EncoderBusy:
            response = refusal(problems.Unavailable("too many are speaking", {"Retry-After": "1"}))
        except (redis.RedisError, *UNAVAILABLE) as error:
            log.error("answer not judged", error=type(error).__name__)
            response = refusal(problems.Unavailable("send the answer again", {"Retry-After": "1"}))
        response.headers.update(CORS)
        return response

    return answer


@blueprint.route("/app-charges/<charge_id>/voice", methods=["POST", "OPTIONS"], provide_automatic_options=False)
@_answering
def app_charge_voice(charge_id: str) -> Response:
    """A recording of what was said."""
    if request.method == "OPTIONS":
        return Response(status=204, headers=_PREFLIGHT)
    desk = api_desk()
    asked = _open(desk, charge_id)
    request.max_content_length = decode.LONGEST_BODY_BYTES
    try:
        pcm = decode.decode(request.get_data(), request.mimetype, dict(request.mimetype_params))
    except RequestEntityTooLarge:
        raise problems.TooLong(f"a recording has {decode.LONGEST_BODY_BYTES} bytes at most") from None
    except decode.WrongAudioType as error:
        raise problems.WrongType(str(error)) from None
    except decode.AudioTooLong as error:
        raise problems.TooLong(str(error)) from None
    except decode.AudioRefused as error:
        raise problems.Invalid(str(error)) from None
    pcm = ulaw_to_pcm(pcm_to_ulaw(pcm))  # as the telephone would bring it, on which the models were trained
    model = desk.services.digit_model(asked.locale)
    assert model
    with ThreadPoolExecutor(1) as beside:  # two cores at once: neither the recogniser nor the encoder holds Python up
        voice = beside.submit(desk.services.judge.embed, pcm)
        heard = hear(model, pcm, _expected(asked))
    return Response(json.dumps(_conclude(desk, asked, heard, voice.result())), 200, mimetype="application/json")


@blueprint.get("/app-charges/<charge_id>/prompt")
@_answering
def app_charge_prompt(charge_id: str) -> Response:
    """The merchant's own recording."""
    desk = api_desk()
    asked = _asked(desk, charge_id)
    path = prompts_folder(desk.services.settings.data_dir.resolve()) / (asked.prompt_file or "")
    if not asked.prompt_file or not path.is_file():
        raise problems.NotFound("there is no recording with this charge")
    return send_file(path)


@sock.route("/app-charges/<charge_id>/stream", bp=blueprint)  # type: ignore[untyped-decorator]
def app_charge_stream(ws: Server, charge_id: str) -> None:
    """Frames of PCM, 16 bit little-endian, mono, 8 kHz; ends by itself when enough was heard."""
    converse(ws, charge_id)


def converse(ws: Server, charge_id: str) -> None:
    """Listen until the answer is over, and say what it came to. Whatever goes wrong, the socket is closed."""
    try:
        with suppress(ConnectionClosed, OSError):
            try:
                desk = api_desk()
                asked = _open(desk, charge_id)
                heard = _listen(desk, asked, ws)
                answer = _conclude(desk, asked, heard, desk.services.judge.embed(heard.pcm))
            except problems.Problem as problem:
                answer = problem.document()
            ws.send(json.dumps(answer))
    except Exception as error:
        log.error("stream failed", error=type(error).__name__)
    with suppress(ConnectionClosed, OSError):
        ws.close()


def _listen(desk: Desk, asked: Asking, ws: Server) -> Heard:
    """Raises ConnectionClosed when the app goes first: then nothing was answered."""
    listening = Listening(desk.services.digit_model(asked.locale), _expected(asked))
    left, until = 2 * SAMPLE_RATE * decode.LONGEST_S, time.monotonic() + LONGEST_STREAM_S
    while left > 0 and time.monotonic() < until:
        frames = ws.receive(timeout=SILENT_LINE_S)
        if frames is None or frames == END:
            break
        if not isinstance(frames, bytes) or len(frames) % 2:
            raise problems.Invalid("frames are binary, 16 bit little-endian samples")
        left -= len(frames)
        pieces = (frames[at : at + _PIECE_BYTES] for at in range(0, len(frames), _PIECE_BYTES))
        if any(listening.frame(pcm_to_ulaw(np.frombuffer(piece, "<i2"))) for piece in pieces):
            break
    return listening.close()


def _expected(asked: Asking) -> Expect:
    return Expect.digits(len(asked.challenge), frozenset()) if asked.challenge else Expect.confirm()


def _open(desk: Desk, charge_id: str) -> Asking:
    """The charge that may be answered with this token, once more. Raises NotFound, TooMany."""
    asked = _asked(desk, charge_id)
    if not desk.services.calls.within(f"charge:{charge_id}", ANSWERS, 600):
        raise problems.TooMany("this charge was answered too often", {"Retry-After": "600"})
    return asked


def _asked(desk: Desk, charge_id: str) -> Asking:
    token = request.args.get("token", "")
    if not ROW_ID.fullmatch(charge_id) or not apps.is_charge_token(desk.keyring, charge_id, token):
        raise problems.NotFound("there is no charge with this address")
    with desk.services.database.snapshot() as session:
        charge = session.get(AppCharge, charge_id)
        if charge is None:
            raise problems.NotFound("there is no charge with this address")
        return asking(session, desk.services, desk.keyring, charge)


def _conclude(desk: Desk, asked: Asking, heard: Heard, voice: tuple[Utterance, Sound]) -> dict[str, Any]:
    """What the answer came to, in words; with what to ask next where it is asked again."""
    services = desk.services
    heard = _no_instead(services, asked, heard)
    embedded = time.monotonic()
    with services.database.transaction() as session:
        charge = judging.hold(session, asked.charge_id)
        judged = services.judge.desk(session, asked.step, heard, *voice)
        said = judging.conclude(judged, charge, current_app.extensions[EXTENSION])
        following = asking(session, services, desk.keyring, charge)
        key = "awaiting" if said is judging.Said.CONFIRMED and judging.awaits_others(session, charge) else said.value
    time.sleep(max(0.0, FLOOR_S - (time.monotonic() - embedded)))  # a refusal does not tell how far it got
    log.info("app charge", charge=asked.charge_id, came_to=said.value)
    answer = AppChargeAnswer(status=said.value, say=following.say(key))
    if said is judging.Said.AGAIN:
        where = addresses(services, desk.keyring, following, request.host_url)
        new = {"challenge": following.challenge or None, **{k: where[k] for k in ("upload_url", "stream_url")}}
        answer = answer.model_copy(update=new)
    return answer.model_dump(exclude_unset=True)


def _no_instead(services: Services, asked: Asking, heard: Heard) -> Heard:
    """Who does not say the digits may have said no, which the ear for digits does not know."""
    longest = max((len(h.digits) for h in heard.hypotheses), default=0)
    model = services.digit_model(asked.locale)
    if not asked.challenge or longest >= judging.ATTEMPT_DIGITS or model is None or not len(heard.pcm):
        return heard
    answer = hear(model, heard.pcm, Expect.confirm()).answer
    return replace(heard, answer=answer) if answer == "no" else heard
