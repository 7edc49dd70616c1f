"""TwiML read as the carrier reads it."""

from __future__ import annotations

import pytest

from ivr.ops.simcarrier import twiml


def read(inside: str) -> tuple[twiml.Verb, ...]:
    return twiml.parse(f"<Response>{inside}</Response>")


def test_verbs_come_in_order_with_the_documented_defaults() -> None:
    assert read("<Say>Hello</Say><Pause/><Gather/><Record/><Reject/><Hangup/>") == (
        twiml.Say("Hello"),
        twiml.Pause(1.0),
        twiml.Gather(timeout_s=5, finish_on_key="#", num_digits=None, method="POST", action=""),
        twiml.Record(timeout_s=5, finish_on_key="1234567890*#", max_length_s=3600),
        twiml.Reject("rejected"),
        twiml.Hangup(),
    )


def test_a_gather_holds_prompts() -> None:
    (gather,) = read(
        '<Gather input="dtmf" numDigits="1" timeout="1" finishOnKey="" actionOnEmptyResult="true"'
        ' action="/next"><Say>One</Say><Play>/a.wav</Play><Pause length="2"/></Gather>'
    )
    assert gather == twiml.Gather(
        prompts=(twiml.Say("One"), twiml.Play("/a.wav"), twiml.Pause(2)),
        action="/next",
        timeout_s=1,
        finish_on_key="",
        num_digits=1,
        action_on_empty_result=True,
    )


def test_a_stream_has_parameters() -> None:
    (connect,) = read(
        '<Connect action="/next"><Stream url="wss://a.example/s">'
        '<Parameter name="t" value="x"/></Stream></Connect>'
    )
    assert connect == twiml.Connect(twiml.Stream("wss://a.example/s", parameters={"t": "x"}), "/next")


def test_dial_takes_a_bare_number_or_a_noun() -> None:
    assert read("<Dial>+14155550111</Dial>") == read("<Dial><Number>+14155550111</Number></Dial>")


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ("<Speak>Hello</Speak>", "<Speak> is no verb"),
        ('<Say voise="x">Hello</Say>', "no attribute voise"),
        ("<Say/>", "<Say> is empty"),
        ('<Gather timeout="0"/>', "timeout is '0'"),
        ('<Gather input="speech"/>', "cannot hear single characters"),
        ("<Gather><Hangup/></Gather>", "<Hangup> cannot stand in <Gather>"),
        ('<Gather><Connect><Stream url="wss://a/s"/></Connect></Gather>', "cannot stand in <Gather>"),
        ('<Connect><Stream url="https://a/s"/></Connect>', "wss://"),
        ('<Connect><Stream url="wss://a/s?token=1"/></Connect>', "use <Parameter>"),
        ("<Connect/>", "exactly one <Stream>"),
        ('<Redirect method="PUT">/x</Redirect>', "not GET or POST"),
    ],
)
def test_what_the_carrier_would_warn_of_is_an_error(inside: str, problem: str) -> None:
    with pytest.raises(twiml.TwimlError, match=problem) as error:
        read(inside)
    assert error.value.code == 12200


@pytest.mark.parametrize("document", ["", "Hello", "<Response>", "<html/>"])
def test_what_is_no_document_is_a_parse_failure(document: str) -> None:
    with pytest.raises(twiml.TwimlError) as error:
        twiml.parse(document)
    assert error.value.code == 12100
