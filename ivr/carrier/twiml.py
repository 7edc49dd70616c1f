"""Our answers in the carrier's language."""

from __future__ import annotations

from twilio.twiml.messaging_response import MessagingResponse  # type: ignore[import-untyped]
from twilio.twiml.voice_response import Connect, Gather, VoiceResponse  # type: ignore[import-untyped]

from ivr.call.flow import State
from ivr.call.prompts import Line, language, recording, render
from ivr.call.session import Answer
from ivr.settings import Settings

APPROVAL_PAUSE_S = 8  # with the words before it about ten seconds
GATHER_TIMEOUT_S = 1  # the shortest there is: how long the line is deaf to speech between a prompt and the tone


def is_streamed(answer: Answer) -> bool:
    """Whether the prompts of a listening turn are played over the stream, where no key is lost or logged."""
    return all(recording(line, answer.locale) for line in answer.lines)


def twiml(answer: Answer, base: str, token: str, settings: Settings) -> str:
    """``base`` is our public URL; ``token`` opens the stream, where the answer listens."""
    response = VoiceResponse()
    turn = f"{base}/voice/turn/{answer.step}"
    match answer.then:
        case "listen":
            if not is_streamed(answer):
                gather = Gather(
                    input="dtmf", num_digits=1, timeout=GATHER_TIMEOUT_S, finish_on_key="", action=f"{turn}/key"
                )
                _say(gather, answer.lines, answer.locale)
                response.append(gather)
            connect = Connect(action=turn)
            stream = connect.stream(url=f"{base.replace('http', 'ws', 1)}/voice/stream")
            stream.parameter(name="step", value=str(answer.step))
            stream.parameter(name="token", value=token)
            response.append(connect)
        case "hold":
            _say(response, answer.lines, answer.locale)
            response.pause(length=APPROVAL_PAUSE_S if answer.state is State.APPROVAL else 1)
            response.redirect(turn)
        case "transfer" if settings.agent_number:
            _say(response, answer.lines, answer.locale)
            response.dial(settings.agent_number)
        case "transfer":
            _say(response, (Line.of("agent.none"),), answer.locale)
            response.hangup()
        case _:
            _say(response, answer.lines, answer.locale)
            response.hangup()
    return str(response)


def silence() -> str:
    """No answer to a text message."""
    return str(MessagingResponse())


def hang_up() -> str:
    """Say nothing."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def wait(base: str, step: int, waited: int) -> str:
    """The turn is still being judged: come again in a second."""
    response = VoiceResponse()
    response.pause(length=1)
    response.redirect(f"{base}/voice/turn/{step}?waited={waited + 1}")
    return str(response)


def _say(verb: VoiceResponse | Gather, lines: tuple[Line, ...], locale: str) -> None:
    for line in lines:
        verb.say(render(line, locale), language=language(locale))
