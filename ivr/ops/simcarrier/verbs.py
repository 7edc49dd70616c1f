"""What each verb does to a call, with the carrier's fall-through rules.

A verb answers with where to go (:class:`Goto`), or None: the next verb of the document follows. Source: docs
voice/twiml, one page for each verb.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ivr.ops.simcarrier.audio import FRAME_S, SILENT_FRAME
from ivr.ops.simcarrier.caller import Caller
from ivr.ops.simcarrier.clock import Clock
from ivr.ops.simcarrier.line import Line, is_loopback
from ivr.ops.simcarrier.record import CallRecord, Dialled, Gathered, Heard, mask
from ivr.ops.simcarrier.stream import MediaStream, StreamFailed
from ivr.ops.simcarrier.twiml import (
    Connect,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Prompt,
    Record,
    Redirect,
    Reject,
    Say,
    Verb,
)

CHARACTER_S = 0.06  # of speech synthesis
SKIP_FROM_SPEED = 20  # from this speed on nobody waits for spoken prompts
PLAY_S = 2.0  # of a recording that <Play> names; it is not fetched

Recogniser = Callable[[str], tuple[str, Mapping[str, str]] | None]


class HungUp(Exception):
    """The caller hung up."""


class CallEnded(Exception):
    """A verb ended the call, with this CallStatus."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Goto:
    """Go on with the document at ``url`` (relative to the present one; empty: the present one)."""

    url: str
    method: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Leg:
    """What the verbs of a call work on."""

    account_sid: str
    caller: Caller
    clock: Clock
    line: Line
    record: CallRecord
    recognise: Recogniser
    callback: Callable[[str, Mapping[str, str]], None]  # a status callback: its answer is ignored
    dialled_for_s: float
    forge_stream_token: bool = False
    reopen_streams: bool = False

    def pass_time(self, seconds: float, skip: bool = False) -> None:
        """Let time pass in which nobody listens. Raises HungUp when the caller hangs up meanwhile."""
        hangup_at_s = self.caller.hangup_at_s
        until_hangup = max(0.0, hangup_at_s - self.clock.now_s) if hangup_at_s is not None else seconds
        (self.clock.skip if skip else self.clock.sleep)(min(seconds, until_hangup))
        if hangup_at_s is not None and hangup_at_s <= self.clock.now_s:
            raise HungUp

    def await_key(self, seconds: float, skip: bool = False) -> str | None:
        """Let time pass until a key is pressed, at most ``seconds``. Raises HungUp."""
        pressed = self.caller.key(self.clock.now_s + seconds)
        self.pass_time(seconds if pressed is None else max(0.0, pressed[0] - self.clock.now_s), skip)
        return pressed[1] if pressed else None


def execute(leg: Leg, verb: Verb) -> Goto | None:
    """Do what a verb says. Raises HungUp, CallEnded, Mismatch."""
    return _VERBS[type(verb)](leg, verb)


def _prompt(leg: Leg, prompt: Prompt, keys_end_it: bool = False) -> str | None:
    """Play a prompt; with ``keys_end_it`` the key that ended it."""
    seconds = _begin(leg, prompt)
    skip = leg.clock.speed >= SKIP_FROM_SPEED and not isinstance(prompt, Pause)
    pressed = None
    if keys_end_it:
        pressed = leg.await_key(seconds, skip)
    else:
        leg.pass_time(seconds, skip)
        leg.caller.lose_keys(leg.clock.now_s)
    if pressed is None:
        leg.caller.prompt_over(leg.clock.now_s)
        leg.pass_time(0.0)
    return pressed


def _begin(leg: Leg, prompt: Prompt) -> float:
    """The caller begins to hear a prompt; its length in seconds."""
    if isinstance(prompt, Pause):
        return prompt.length_s
    if isinstance(prompt, Say):
        text, seconds = prompt.text, len(prompt.text) * CHARACTER_S * prompt.loop
        name, values = leg.recognise(text) or (None, {})
    else:
        text, seconds = prompt.url, PLAY_S * prompt.loop
        name, values = PurePosixPath(urlsplit(text).path).stem, {}
    leg.record.add(Heard(leg.clock.now_s, name, mask(text)))
    leg.caller.hear(name, values, leg.clock.now_s)
    return seconds


def _say(leg: Leg, verb: Prompt) -> None:
    _prompt(leg, verb)


def _gather(leg: Leg, verb: Gather) -> Goto | None:
    leg.caller.lose_keys(leg.clock.now_s)
    pressed = None
    for prompt in verb.prompts:
        pressed = _prompt(leg, prompt, keys_end_it=True)
        if pressed is not None:
            break
    digits = ""
    while True:
        if pressed is None:
            leg.caller.invite(leg.clock.now_s, ears=False)
            pressed = leg.await_key(verb.timeout_s)
        if pressed is None or pressed == verb.finish_on_key:
            break
        digits, pressed = digits + pressed, None
        if len(digits) == verb.num_digits:
            break
    leg.caller.listening_over(leg.clock.now_s)
    leg.record.add(Gathered(leg.clock.now_s, len(digits)))
    if digits or verb.action_on_empty_result:
        return Goto(verb.action, verb.method, {"Digits": digits})
    return None


def _record(leg: Leg, verb: Record) -> Goto | None:
    leg.caller.lose_keys(leg.clock.now_s)
    started_s = spoke_s = leg.clock.now_s
    anything, digits = False, ""
    while leg.clock.now_s - started_s < verb.max_length_s and leg.clock.now_s - spoke_s < verb.timeout_s:
        leg.caller.invite(leg.clock.now_s, ears=True)
        frame, _ = leg.caller.frame(leg.clock.now_s)
        if frame != SILENT_FRAME:
            anything, spoke_s = True, leg.clock.now_s
        pressed = leg.await_key(FRAME_S)
        if pressed is not None and pressed in verb.finish_on_key:
            digits = pressed
            break
    leg.caller.listening_over(leg.clock.now_s)
    leg.record.add(Gathered(leg.clock.now_s, len(digits)))
    if not anything:
        return None
    sid = "RE" + secrets.token_hex(16)
    recording = {
        "RecordingSid": sid,
        "RecordingUrl": f"https://api.twilio.com/2010-04-01/Accounts/{leg.account_sid}/Recordings/{sid}",
        "RecordingDuration": str(round(spoke_s - started_s)),
    }
    if verb.status_callback:
        leg.callback(verb.status_callback, {**recording, "RecordingStatus": "completed"})
    return Goto(verb.action, verb.method, {**recording, "Digits": digits})


def _connect(leg: Leg, verb: Connect) -> Goto | None:
    given = verb.stream
    if leg.forge_stream_token:
        given = replace(given, parameters={**given.parameters, "token": secrets.token_hex(32)})
    stream = MediaStream(given, leg.account_sid, leg.caller, leg.clock, leg.record)
    try:
        if not (verb.stream.url.startswith("wss://") or is_loopback(verb.stream.url)):
            raise StreamFailed(f"31921 at {verb.stream.url}: only wss:// leaves this machine")
        leg.record.add(stream.run(leg.line.sign(verb.stream.url, {})))
        if leg.reopen_streams:
            stream.reopen(leg.line.sign(verb.stream.url, {}))
        event = {"StreamEvent": "stream-stopped"}
    except StreamFailed as error:
        leg.record.errors.append(str(error))
        event = {"StreamEvent": "stream-error", "StreamError": str(error)}
    if verb.stream.status_callback:
        leg.callback(verb.stream.status_callback, {"StreamSid": stream.sid, **event})
    leg.pass_time(0.0)
    return Goto(verb.action, verb.method) if verb.action is not None else None


def _dial(leg: Leg, verb: Dial) -> Goto | None:
    leg.record.add(Dialled(leg.clock.now_s, verb.number))
    leg.pass_time(leg.dialled_for_s)
    outcome = {
        "DialCallSid": "CA" + secrets.token_hex(16),
        "DialCallStatus": "completed",
        "DialCallDuration": str(round(leg.dialled_for_s)),
    }
    return Goto(verb.action, verb.method, outcome) if verb.action is not None else None


def _redirect(leg: Leg, verb: Redirect) -> Goto:
    return Goto(verb.url, verb.method)


def _reject(leg: Leg, verb: Reject) -> None:
    raise CallEnded("busy" if verb.reason == "busy" else "no-answer")


def _hangup(leg: Leg, verb: Hangup) -> None:
    raise CallEnded("completed")


_VERBS: dict[type, Callable[[Leg, Any], Goto | None]] = {
    Say: _say,
    Play: _say,
    Pause: _say,
    Gather: _gather,
    Record: _record,
    Connect: _connect,
    Dial: _dial,
    Redirect: _redirect,
    Reject: _reject,
    Hangup: _hangup,
}
