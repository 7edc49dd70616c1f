"""The simulated carrier against a small real service: each verb, its fall-through, webhooks and streams."""

from __future__ import annotations

import base64
import json
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Response, request
from simcarrier_stub import SID, TOKEN, Service, Socket, recognise, serving, slowly, stream
from twilio.request_validator import RequestValidator

from ivr.ops.simcarrier import CallRecord, ScenarioError, run_call
from ivr.ops.simcarrier.line import Budget
from ivr.ops.simcarrier.record import Answered, Dialled, KeysLost, Reopened, Requested, Streamed
from ivr.ops.simcarrier.scenario import parse

SPEED = 100.0
GATHER = '<Gather numDigits="1" timeout="1" action="/voice/turn/1">{}</Gather>'


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """One person's clips: half a second of tone and some silence; 0.1 s for each digit."""

    def write(name: str, *parts: tuple[float, int]) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            for seconds, level in parts:
                tone = level * np.sin(np.arange(int(seconds * 8000)) * 0.6)
                file.writeframes(struct.pack(f"<{len(tone)}h", *tone.astype(int)))

    write("alice/card.wav", (0.5, 8000), (0.2, 0))
    write("cafe.wav", (0.3, 500))
    for digit in range(10):
        for take in (1, 2):
            write(f"alice/digits/{digit}_{take}.wav", (0.1 + 0.02 * digit, 8000))
    return tmp_path


def call(service: Service, *turns: dict[str, Any], **options: Any) -> CallRecord:
    caller = {"from": "+14155550101", "voice": "alice", **options.pop("caller", {})}
    table = {"name": "test", "caller": caller, "turn": list(turns), **options.pop("top", {})}
    return run_call(
        parse(table, "test"),
        base_url=service.url,
        account_sid=SID,
        auth_token=TOKEN,
        recognise=recognise,
        **{"speed": SPEED, **options},
    )


# Verbs and what follows them.


def test_the_end_of_the_document_hangs_up_and_the_status_callback_says_completed(service: Service) -> None:
    service.on("/voice/answer", "<Say>welcome</Say><Pause/>")
    record = call(service)
    assert record.heard == ["welcome"]
    assert (record.status, record.errors, record.mismatch) == ("completed", [], None)
    assert service.paths == ["/voice/answer", "/voice/status"]
    status = service.forms("/voice/status")[0]
    assert status["CallStatus"] == "completed"
    assert int(status["CallDuration"]) >= 1


def test_every_webhook_names_the_call_and_is_signed(service: Service) -> None:
    service.on("/voice/answer", "<Redirect>/voice/turn/1</Redirect>")
    service.on("/voice/turn/1", "<Hangup/>")
    record = call(service, caller={"attestation": "TN-Validation-Passed-A"})
    assert all(seen.signed for seen in service.seen)
    assert len({seen.token for seen in service.seen}) == 3
    first, second = service.seen[0].form, service.seen[1].form
    assert first["CallStatus"] == "ringing"
    assert second["CallStatus"] == "in-progress"
    for form in (first, second):
        assert form["CallSid"] == record.call_sid
        assert form["From"] == "+14155550101"
        assert form["AccountSid"] == SID
        assert form["StirVerstat"] == "TN-Validation-Passed-A"


def test_no_attestation_sends_no_parameter(service: Service) -> None:
    service.on("/voice/answer", "<Hangup/>")
    call(service, caller={"from": "anonymous"})
    assert "StirVerstat" not in service.seen[0].form
    assert service.seen[0].form["From"] == "anonymous"


def test_a_get_redirect_is_signed_with_its_query(service: Service) -> None:
    service.on("/voice/answer", '<Redirect method="GET">/voice/turn/1?a=b</Redirect>')
    service.on("/voice/turn/1", "<Hangup/>")
    call(service)
    seen = service.seen[1]
    assert (seen.method, seen.form["a"], seen.signed) == ("GET", "b", True)


def test_what_follows_a_redirect_a_hangup_or_a_reject_is_never_reached(service: Service) -> None:
    service.on("/voice/answer", "<Redirect>/voice/turn/1</Redirect><Say>never</Say>")
    service.on("/voice/turn/1", "<Hangup/><Say>never</Say>")
    assert call(service).heard == []


@pytest.mark.parametrize(("reason", "status"), [("busy", "busy"), ("rejected", "no-answer")])
def test_a_reject_ends_the_call_unanswered(service: Service, reason: str, status: str) -> None:
    service.on("/voice/answer", f'<Reject reason="{reason}"/>')
    assert call(service).status == status
    assert service.forms("/voice/status")[0]["CallStatus"] == status


def test_a_gather_without_keys_falls_through(service: Service) -> None:
    service.on("/voice/answer", GATHER.format("<Say>choose</Say>") + "<Say>nothing.heard</Say>")
    record = call(service)
    assert record.heard == ["choose", "nothing.heard"]
    assert "/voice/turn/1" not in service.paths


def test_a_gather_without_keys_asks_its_action_when_it_says_so(service: Service) -> None:
    service.on(
        "/voice/answer",
        '<Gather timeout="1" actionOnEmptyResult="true" action="/voice/turn/1"/><Say>never</Say>',
    )
    service.on("/voice/turn/1", "<Hangup/>")
    assert call(service).heard == []
    assert service.forms("/voice/turn/1")[0]["Digits"] == ""


def test_a_gather_ends_at_its_number_of_digits(service: Service) -> None:
    service.on("/voice/answer", '<Gather numDigits="3" action="/voice/turn/1"><Say>choose</Say></Gather>')
    service.on("/voice/turn/1", "<Hangup/>")
    call(service, {"expect": "choose", "keys": "123"})
    assert service.forms("/voice/turn/1")[0]["Digits"] == "123"


def test_a_gather_ends_at_its_finishing_key_which_is_not_sent(service: Service) -> None:
    service.on("/voice/answer", '<Gather action="/voice/turn/1"><Say>choose</Say></Gather>')
    service.on("/voice/turn/1", "<Hangup/>")
    call(service, {"expect": "choose", "keys": "12#"})
    assert service.forms("/voice/turn/1")[0]["Digits"] == "12"


def test_a_gather_sends_what_it_has_when_its_timeout_passes(service: Service) -> None:
    service.on("/voice/answer", '<Gather timeout="2" action="/voice/turn/1"><Say>choose</Say></Gather>')
    service.on("/voice/turn/1", "<Hangup/>")
    call(service, {"expect": "choose", "keys": "12"})
    assert service.forms("/voice/turn/1")[0]["Digits"] == "12"


def test_the_finishing_key_alone_is_an_empty_result(service: Service) -> None:
    service.on(
        "/voice/answer", '<Gather action="/voice/turn/1"><Say>choose</Say></Gather><Say>nothing.heard</Say>'
    )
    assert call(service, {"expect": "choose", "keys": "#"}).heard == ["choose", "nothing.heard"]


def test_a_gather_without_an_action_asks_its_own_document_again(service: Service) -> None:
    service.on("/voice/answer", '<Gather numDigits="1"><Say>choose</Say></Gather>', "<Hangup/>")
    call(service, {"expect": "choose", "keys": "1"})
    assert [form.get("Digits") for form in service.forms("/voice/answer")] == [None, "1"]


def test_a_key_during_a_nested_prompt_ends_the_prompts(service: Service) -> None:
    service.on("/voice/answer", GATHER.format("<Say>choose one of these</Say><Say>more</Say>"))
    service.on("/voice/turn/1", "<Hangup/>")
    record = call(service, {"expect": "choose", "keys": "1", "barge": True})
    assert record.heard == ["choose"]
    assert service.forms("/voice/turn/1")[0]["Digits"] == "1"


def test_keys_outside_a_gather_are_lost(service: Service) -> None:
    long = "<Say>read " + "x" * 60 + "</Say>"
    service.on("/voice/answer", long + GATHER.format(""))
    record = call(service, {"expect": "read", "keys": "123", "barge": True})
    assert [lost.count for lost in record.of(KeysLost)] == [3]
    assert "/voice/turn/1" not in service.paths


def test_keys_beyond_a_gather_of_one_are_lost_while_its_webhook_is_asked(service: Service) -> None:
    service.on("/voice/answer", GATHER.format("<Say>choose</Say>"))
    service.on("/voice/turn/1", slowly(0.4, GATHER.format("")))
    record = call(service, {"expect": "choose", "keys": "123", "key_gap_ms": 150})
    assert [form["Digits"] for form in service.forms("/voice/turn/1")] == ["1"]
    assert [lost.count for lost in record.of(KeysLost)] == [2]


def test_a_recording_is_ended_by_silence_and_asks_its_action(service: Service, audio: Path) -> None:
    service.on(
        "/voice/answer", '<Say>speak</Say><Record timeout="2" action="/voice/turn/1"/><Say>never</Say>'
    )
    service.on("/voice/turn/1", "<Hangup/>")
    record = call(service, {"expect": "speak", "play": "alice/card.wav"}, audio=audio)
    form = service.forms("/voice/turn/1")[0]
    assert form["RecordingUrl"].endswith(form["RecordingSid"])
    assert form["RecordingDuration"] == "1"
    assert record.heard == ["speak"]


def test_a_recording_of_nothing_falls_through(service: Service) -> None:
    service.on("/voice/answer", '<Record timeout="2" action="/voice/turn/1"/><Say>nothing.heard</Say>')
    assert call(service).heard == ["nothing.heard"]


def test_a_dial_is_noted_and_the_next_verb_follows(service: Service) -> None:
    service.on("/voice/answer", "<Dial>+14155550199</Dial><Say>back</Say>")
    record = call(service)
    assert [dialled.number for dialled in record.of(Dialled)] == ["+14155550199"]
    assert record.heard == ["back"]


def test_a_dial_with_an_action_tells_how_it_ended(service: Service) -> None:
    service.on("/voice/answer", '<Dial action="/voice/turn/1">+14155550199</Dial><Say>never</Say>')
    service.on("/voice/turn/1", "<Hangup/>")
    assert call(service).heard == []
    assert service.forms("/voice/turn/1")[0]["DialCallStatus"] == "completed"


def test_a_call_that_never_ends_is_ended(service: Service) -> None:
    service.on("/voice/answer", "<Redirect>/voice/answer</Redirect>")
    assert "had no end" in call(service).errors[0]


# The media stream.


def test_a_stream_follows_the_protocol(service: Service, audio: Path) -> None:
    service.on(
        "/voice/answer", "<Say>card.ask</Say>" + stream(service, '<Parameter name="token" value="abc"/>')
    )
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = lambda socket: socket.until("media", 100) and None
    record = call(service, {"expect": "card.ask", "play": "alice/card.wav"}, audio=audio)
    (socket,) = service.sockets
    assert socket.signed
    assert [message["event"] for message in socket.messages[:3]] == ["connected", "start", "media"]
    start = socket.messages[1]
    assert start["sequenceNumber"] == "1"
    assert start["start"]["callSid"] == record.call_sid
    assert start["start"]["customParameters"] == {"token": "abc"}
    assert start["start"]["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    media = socket.of("media")
    assert [message["media"]["chunk"] for message in media[:3]] == ["1", "2", "3"]
    assert [message["media"]["timestamp"] for message in media[:3]] == ["0", "20", "40"]
    assert {message["streamSid"] for message in media} == {start["streamSid"]}
    frames = [base64.b64decode(message["media"]["payload"]) for message in media]
    assert {len(frame) for frame in frames} == {160}
    spoken = [index for index, frame in enumerate(frames) if frame != b"\xff" * 160]
    assert len(spoken) == 25  # the half second of tone
    assert spoken[0] >= 15  # 0.3 s after the stream began
    assert service.paths[-2:] == ["/voice/turn/1", "/voice/status"]


def test_without_an_action_the_next_verb_follows_the_stream(service: Service) -> None:
    service.on("/voice/answer", stream(service, action="") + "<Say>after</Say>")
    assert call(service).heard == ["after"]


def test_the_time_from_the_last_speech_to_the_close_is_measured(service: Service, audio: Path) -> None:
    def close_after_speech(socket: Socket) -> None:
        spoke = False
        while message := socket.receive():
            loud = (
                message["event"] == "media" and base64.b64decode(message["media"]["payload"]) != b"\xff" * 160
            )
            if spoke and not loud:
                return
            spoke = spoke or loud

    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = close_after_speech
    record = call(service, {"expect": "card.ask", "play": "alice/card.wav"}, audio=audio)
    (streamed,) = record.of(Streamed)
    assert streamed.closed_by == "service"
    assert streamed.end_of_turn_ms is not None
    assert 0 <= streamed.end_of_turn_ms < 5000
    assert not streamed.cut_off


def test_a_service_that_closes_too_early_cuts_the_caller_off(service: Service, audio: Path) -> None:
    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = lambda socket: socket.until("media", 25) and None
    record = call(service, {"expect": "card.ask", "play": "alice/card.wav"}, audio=audio, speed=10)
    (streamed,) = record.of(Streamed)
    assert streamed.cut_off
    assert streamed.end_of_turn_ms is None


def play(socket: Socket, prompt: str, seconds: float) -> None:
    audio = base64.b64encode(b"\x00" * int(8000 * seconds)).decode()
    socket.send("media", media={"payload": audio})
    socket.send("mark", mark={"name": f"prompt:{prompt}"})


def test_a_mark_comes_back_when_the_audio_before_it_has_played(service: Service) -> None:
    timestamps: list[int] = []

    def on_stream(socket: Socket) -> None:
        socket.until("start")
        play(socket, "card.ask", 1.0)
        socket.until("mark")
        timestamps.append(int(socket.of("media")[-1]["media"]["timestamp"]))

    service.on("/voice/answer", stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = on_stream
    record = call(service)
    assert record.heard == ["card.ask"]
    assert timestamps[0] >= 980
    assert service.sockets[0].of("mark")[0]["mark"] == {"name": "prompt:card.ask"}


def test_clear_drops_the_audio_and_brings_its_marks_back(service: Service) -> None:
    def on_stream(socket: Socket) -> None:
        socket.until("start")
        play(socket, "card.ask", 60.0)
        socket.send("clear")
        assert socket.until("mark")

    service.on("/voice/answer", stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = on_stream
    call(service)
    assert service.sockets[0].of("mark")


def test_keys_go_into_the_stream_as_messages_after_its_prompt(service: Service) -> None:
    def on_stream(socket: Socket) -> None:
        socket.until("start")
        play(socket, "pin.ask", 1.0)
        socket.until("dtmf", 6)

    service.on("/voice/answer", stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = on_stream
    call(service, {"expect": "pin.ask", "keys": "271828"})
    (socket,) = service.sockets
    assert "".join(message["dtmf"]["digit"] for message in socket.of("dtmf")) == "271828"
    assert {message["dtmf"]["track"] for message in socket.of("dtmf")} == {"inbound_track"}
    events = [message["event"] for message in socket.messages]
    assert events.index("mark") < events.index("dtmf")
    assert all("Digits" not in seen.form for seen in service.seen)


def test_keys_that_barge_in_come_while_the_prompt_plays(service: Service) -> None:
    def on_stream(socket: Socket) -> None:
        socket.until("start")
        play(socket, "pin.ask", 60.0)
        socket.until("dtmf", 6)

    service.on("/voice/answer", stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = on_stream
    call(service, {"expect": "pin.ask", "keys": "271828", "barge": True})
    (socket,) = service.sockets
    assert len(socket.of("dtmf")) == 6
    assert not socket.of("mark")


def test_values_of_a_prompt_are_said_in_the_callers_own_clips(service: Service, audio: Path) -> None:
    service.on("/voice/answer", "<Say>challenge.ask 4 7 1 9</Say>" + stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = lambda socket: socket.until("media", 150) and None
    records = [
        call(service, {"expect": "challenge.ask", "say": "{digits}"}, audio=audio, caller={"seed": seed})
        for seed in (1, 1, 2)
    ]
    lengths = [record.of(Answered)[0].seconds for record in records]
    assert lengths[0] == lengths[1] != lengths[2]  # seeded takes and gaps
    assert 0.1 * 4 + 0.02 * 21 < lengths[0] < 1.6


def test_noise_is_heard_while_the_caller_is_silent(service: Service, audio: Path) -> None:
    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = lambda socket: socket.until("media", 200) and None
    call(service, {"expect": "card.ask", "silence": 2.0, "noise": "cafe.wav"}, audio=audio)
    frames = [base64.b64decode(message["media"]["payload"]) for message in service.sockets[0].of("media")]
    assert sum(frame != b"\xff" * 160 for frame in frames) > 100


def test_a_caller_who_hangs_up_in_the_stream_stops_it_and_no_action_is_asked(
    service: Service, audio: Path
) -> None:
    ended = []

    def on_stream(socket: Socket) -> None:
        while socket.receive():
            pass
        ended.append(socket.messages[-1]["event"])

    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on_stream = on_stream
    record = call(service, {"expect": "card.ask", "play": "alice/card.wav", "hangup": True}, audio=audio)
    assert ended == ["stop"]
    assert service.paths == ["/voice/answer", "/voice/status"]
    assert record.of(Streamed)[0].closed_by == "caller"
    assert record.status == "completed"


def test_a_caller_may_hang_up_on_a_prompt(service: Service) -> None:
    service.on("/voice/answer", "<Say>pay.wait</Say><Redirect>/voice/turn/1</Redirect>")
    call(service, {"expect": "pay.wait", "hangup": True})
    assert service.paths == ["/voice/answer", "/voice/status"]


@pytest.mark.parametrize(
    "sent",
    [
        "garbage",
        json.dumps({"event": "media", "media": {"payload": "####"}, "streamSid": "other"}),
        json.dumps(["media"]),
    ],
)
def test_messages_that_the_protocol_lacks_are_errors_of_the_service(service: Service, sent: str) -> None:
    def on_stream(socket: Socket) -> None:
        socket.until("start")
        socket.raw.send(sent)
        socket.until("media", 30)

    service.on("/voice/answer", stream(service, action=""))
    service.on_stream = on_stream
    assert call(service).errors[0].startswith("31951")


def test_a_stream_that_cannot_be_opened_is_an_error_and_the_call_goes_on(service: Service) -> None:
    url = service.url.replace("http", "ws") + "/nowhere"
    service.on("/voice/answer", f'<Connect action="/voice/turn/1"><Stream url="{url}"/></Connect>')
    service.on("/voice/turn/1", "<Say>sorry</Say>")
    record = call(service)
    assert record.errors[0].startswith("31920")
    assert record.heard == ["sorry"]


# Webhooks.


def test_an_error_asks_the_fallback_which_may_apologise(service: Service) -> None:
    service.on("/voice/answer", Response("broken", status=500))
    service.on("/voice/fallback", "<Say>apology</Say>")
    record = call(service)
    assert record.heard == ["apology"]
    assert "HTTP 500" in record.errors[0]
    form = service.forms("/voice/fallback")[0]
    assert form["ErrorCode"] == "11200"
    assert form["ErrorUrl"] == service.url + "/voice/answer"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Response("<Response><Speak/></Response>", content_type="text/xml"), "12200"),
        (Response("<Response>", content_type="text/xml"), "12100"),
        (Response("{}", content_type="application/json"), "12300"),
    ],
)
def test_an_answer_that_is_no_twiml_asks_the_fallback(service: Service, answer: Response, code: str) -> None:
    service.on("/voice/answer", answer)
    service.on("/voice/fallback", "<Hangup/>")
    call(service)
    assert service.forms("/voice/fallback")[0]["ErrorCode"] == code


def test_without_a_fallback_the_call_fails(service: Service) -> None:
    service.on("/voice/answer", Response("broken", status=500))
    service.on("/voice/fallback", Response("broken", status=500))
    assert call(service).status == "failed"


def test_a_webhook_over_its_budget_is_given_up(service: Service) -> None:
    service.on("/voice/answer", slowly(1.0, "<Say>late</Say>"))
    service.on("/voice/fallback", "<Say>apology</Say>")
    record = call(service, budget=Budget(total_ms=200))
    assert record.heard == ["apology"]
    assert len(service.forms("/voice/answer")) == 1  # a slow answer is not asked for again


def test_a_url_may_override_its_budget(service: Service) -> None:
    service.on("/voice/answer", "<Redirect>/voice/turn/1#rc=2&amp;rp=5xx</Redirect>")
    service.on("/voice/turn/1", Response("", status=503), Response("", status=503), "<Say>third</Say>")
    record = call(service)
    assert record.heard == ["third"]
    assert len({seen.token for seen in service.seen if seen.path == "/voice/turn/1"}) == 1
    assert all(seen.signed for seen in service.seen)


def test_a_connection_that_fails_is_tried_once_more(service: Service) -> None:
    table = {"name": "test", "caller": {"from": "+1"}}
    with serving() as gone:
        url = gone.url
    record = run_call(
        parse(table, "test"), base_url=url, account_sid=SID, auth_token=TOKEN, recognise=recognise
    )
    assert [request.url.rsplit("/", 1)[1] for request in record.of(Requested)] == [
        *["answer"] * 2,
        *["fallback"] * 2,
        *["status"] * 2,
    ]
    assert record.status == "failed"


@pytest.mark.parametrize(("fault", "arrive"), [("drop_response", 2), ("drop_request", 1)])
def test_a_lost_answer_is_asked_for_again_with_the_same_token(
    service: Service, fault: str, arrive: int
) -> None:
    service.on("/voice/answer", GATHER.format("<Say>choose</Say>"))
    service.on("/voice/turn/1", "<Say>done</Say>")
    record = call(service, {"expect": "choose", "keys": "1", fault: True})
    seen = [seen for seen in service.seen if seen.path == "/voice/turn/1"]
    assert len(seen) == arrive
    assert len({one.token for one in seen}) == 1
    assert len({json.dumps(one.form, sort_keys=True) for one in seen}) == 1
    assert record.heard == ["choose", "done"]
    assert record.errors == []


def test_a_request_can_be_repeated_and_its_first_answer_counts(service: Service) -> None:
    service.on("/voice/answer", GATHER.format("<Say>choose</Say>"))
    service.on("/voice/turn/1", "<Say>first</Say>", "<Say>second</Say>")
    turn = {"expect": "choose", "keys": "1", "repeat_request": {"times": 2, "delay_s": 1}}
    record = call(service, turn)
    seen = [seen for seen in service.seen if seen.path == "/voice/turn/1"]
    assert len(seen) == 3
    assert len({one.token for one in seen}) == 1
    assert record.heard == ["choose", "first"]


def test_every_request_can_be_replayed_with_another_token(service: Service) -> None:
    service.on("/voice/answer", "<Redirect>/voice/turn/1</Redirect>")
    service.on("/voice/turn/1", "<Hangup/>")
    call(service, top={"carrier": {"repeat_every_request": {"times": 1, "fresh_token": True}}})
    assert service.paths == ["/voice/answer"] * 2 + ["/voice/turn/1"] * 2 + ["/voice/status"] * 2
    assert len({seen.token for seen in service.seen}) == 6
    assert all(seen.signed for seen in service.seen)


def test_every_request_can_be_sent_altered_which_is_to_be_refused(service: Service) -> None:
    def answer(form: dict[str, str]) -> Any:
        return Response(status=403) if form["From"] != "+14155550101" else "<Hangup/>"

    service.on("/voice/answer", answer)
    top = {"carrier": {"alter_every_request": True}}
    record = call(service, top=top)
    altered, true = service.seen[:2]
    assert (altered.signed, true.signed) == (False, True)
    assert record.errors == ["11200 at " + service.url + "/voice/status: an altered request was not refused"]
    service.on("/voice/status", answer)
    assert call(service, top=top).errors == []


def test_a_stream_opened_again_is_to_be_closed_in_silence(service: Service) -> None:
    service.on("/voice/answer", stream(service, '<Parameter name="token" value="abc"/>'))
    service.on("/voice/turn/1", "<Hangup/>")
    service.on_stream = lambda socket: socket.until("start") and None
    top = {"carrier": {"reopen_every_stream": True}}
    record = call(service, top=top)
    assert record.errors == []
    assert len(record.of(Reopened)) == 1
    tokens = [socket.of("start")[0]["start"]["customParameters"]["token"] for socket in service.sockets]
    assert tokens == ["abc", "abc"]

    def listens(socket: Socket) -> None:
        socket.until("start")
        if len(service.sockets) % 2 == 0:
            socket.send("mark", mark={"name": "played"})
            socket.until("stop")

    service.on_stream = listens
    record = call(service, top=top)
    assert record.of(Reopened) == []
    assert [error for error in record.errors if "opened a stream twice" in error]


def test_a_number_of_another_language_and_a_machine_that_answers(service: Service) -> None:
    asked: list[str | None] = []
    service.on("/voice/answer", lambda _form: asked.append(request.args.get("locale")) or "<Hangup/>")
    call(service, locale="zh")
    call(service)
    assert asked == ["zh", None]
    assert service.seen[0].signed  # with its query
    service.on("/voice/bill", "<Hangup/>")
    call(service, caller={"rung": "/voice/bill?bill=1", "answered_by": "machine_start"})
    assert service.forms("/voice/bill")[0]["AnsweredBy"] == "machine_start"


def test_the_signature_is_the_carriers_own() -> None:
    params = {
        "CallSid": "CA1234567890ABCDE",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
        "Caller": "+14158675309",
    }
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert RequestValidator("12345").compute_signature(url, params) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


# The person.


def test_another_prompt_than_expected_fails_with_both_ids(service: Service) -> None:
    service.on("/voice/answer", "<Say>card.retry</Say>" + stream(service))
    service.on_stream = lambda socket: socket.until("stop") and None
    record = call(service, {"expect": "bill.choose", "keys": "1"})
    assert record.mismatch == "turn 1 expects bill.choose, heard card.retry"
    assert service.paths[-1] == "/voice/status"


def test_a_call_that_ends_before_the_expected_prompt_fails(service: Service) -> None:
    service.on("/voice/answer", "<Say>refused</Say>")
    record = call(service, {"expect": "card.ask", "keys": "1"})
    assert record.mismatch == "turn 1 expects card.ask, heard refused, and the call was over"


def test_words_of_no_prompt_are_heard_as_such(service: Service) -> None:
    service.on("/voice/answer", "<Say>unknown words</Say>")
    record = call(service, {"expect": "card.ask", "keys": "1"})
    assert "heard ?" in str(record.mismatch)


def test_the_expected_prompt_may_be_among_several(service: Service) -> None:
    service.on("/voice/answer", GATHER.format("<Say>welcome</Say><Say>choose</Say>"))
    service.on("/voice/turn/1", "<Hangup/>")
    record = call(service, {"expect": "choose", "keys": "1"})
    assert record.mismatch is None


def test_a_turn_may_only_listen(service: Service) -> None:
    service.on("/voice/answer", "<Say>welcome</Say>" + GATHER.format("<Say>choose</Say>"))
    service.on("/voice/turn/1", "<Say>done</Say>")
    record = call(service, {"expect": "welcome"}, {"expect": "choose", "keys": "1"}, {"expect": "done"})
    assert record.mismatch is None


def test_silence_lasts_until_the_service_stops_listening(service: Service) -> None:
    again = '<Gather timeout="2" actionOnEmptyResult="true" action="/voice/turn/1"><Say>{}</Say></Gather>'
    service.on("/voice/answer", again.format("choose"))
    service.on("/voice/turn/1", again.format("again"), "<Hangup/>")
    record = call(service, {"expect": "choose", "silence": 60}, {"expect": "again", "keys": "1"})
    assert record.mismatch is None
    assert [form["Digits"] for form in service.forms("/voice/turn/1")] == ["", "1"]


def test_a_card_of_the_fixtures_can_be_keyed_and_is_not_in_the_record(service: Service) -> None:
    service.on("/voice/answer", '<Gather action="/voice/turn/1"><Say>choose</Say></Gather>')
    service.on("/voice/turn/1", "<Hangup/>")
    record = call(
        service, {"expect": "choose", "keys": "{card.alice}#"}, values={"card.alice": "4539148803436467"}
    )
    assert service.forms("/voice/turn/1")[0]["Digits"] == "4539148803436467"
    assert "453914" not in json.dumps(record.as_json())
    assert "453914" not in repr(record)
    assert "•••• 6467#" in json.dumps(record.as_json(), ensure_ascii=False)


def test_a_recording_that_is_missing_is_the_scenarios_mistake(service: Service, audio: Path) -> None:
    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on_stream = lambda socket: socket.until("stop") and None
    with pytest.raises(ScenarioError, match=r"no recording alice/none\.wav"):
        call(service, {"expect": "card.ask", "play": "alice/none.wav"}, audio=audio)
