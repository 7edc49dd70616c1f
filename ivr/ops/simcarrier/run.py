"""One call, from the ring to the status callback."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urljoin

from ivr.call import prompts
from ivr.ops.simcarrier.audio import Voices
from ivr.ops.simcarrier.caller import PATIENCE_S, Caller, Mismatch
from ivr.ops.simcarrier.clock import Clock
from ivr.ops.simcarrier.line import XML_TYPES, Answer, Budget, Line, WebhookFailed
from ivr.ops.simcarrier.record import Answered, CallRecord, Ended
from ivr.ops.simcarrier.scenario import NO_FAULTS, Faults, Scenario
from ivr.ops.simcarrier.twiml import TwimlError, Verb, parse
from ivr.ops.simcarrier.verbs import CallEnded, Goto, HungUp, Leg, Recogniser, execute

ANSWER, FALLBACK, STATUS = "/voice/answer", "/voice/fallback", "/voice/status"
TO = "+15550100000"  # the service's number
API_VERSION = "2010-04-01"
MAX_DOCUMENTS = 300  # a call that needs more goes round in circles
CARRIER_BUDGET = Budget()
PATIENCE_WALL_S = 1.0  # at any speed the service has this long to say what the caller expects


def run_call(
    scenario: Scenario,
    *,
    base_url: str,
    account_sid: str,
    auth_token: str,
    speed: float = 1.0,
    audio: Path | None = None,
    values: Mapping[str, str] | None = None,
    recognise: Recogniser | None = None,
    budget: Budget = CARRIER_BUDGET,
    to: str = TO,
    waveforms: bool = False,
    locale: str | None = None,
) -> CallRecord:
    """Make one call to the service at ``base_url`` and say what happened.

    ``audio`` is the folder of the callers' recordings (the scenario's own folder comes first); ``values`` are
    what the scenario may name besides what prompts tell, such as ``{card.alice}``; ``recognise`` tells a
    prompt's id and values from its words (default: the service's own prompts). ``speed`` scales the caller's
    time, not the service's. ``waveforms``: keep outlines of what is said, where the recordings are published ones.
    ``locale``: the number rung is one that speaks this language. Errors of the service stand in the record;
    ScenarioError is raised when the scenario itself cannot be played.
    """
    clock = Clock(speed)
    record = CallRecord(scenario.name, "CA" + secrets.token_hex(16), scenario.caller.from_)
    voices = Voices(*([scenario.folder] + ([audio] if audio else [])))
    patience_s = max(PATIENCE_S, PATIENCE_WALL_S * speed)
    caller = Caller(scenario, voices, record, values or {}, patience_s, waveforms)
    line = Line(auth_token, clock, record, budget, alter=scenario.carrier.alter_every_request)
    try:
        first = f"{ANSWER}?locale={locale}" if locale else ANSWER
        recognise = recognise or prompts.recognise
        _Call(scenario, base_url, account_sid, to, caller, clock, line, record, recognise, first).run()
    finally:
        line.close()
    return record


class _Call:
    def __init__(
        self,
        scenario: Scenario,
        base_url: str,
        account_sid: str,
        to: str,
        caller: Caller,
        clock: Clock,
        line: Line,
        record: CallRecord,
        recognise: Recogniser,
        first: str,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._repeat = scenario.carrier.repeat_every_request
        self._caller, self._clock, self._line, self._record = caller, clock, line, record
        self._leg = Leg(
            account_sid=account_sid,
            caller=caller,
            clock=clock,
            line=line,
            record=record,
            recognise=recognise,
            callback=self._callback,
            dialled_for_s=scenario.caller.dialled_for_s,
            forge_stream_token=scenario.carrier.forge_stream_token,
            reopen_streams=scenario.carrier.reopen_every_stream,
        )
        self._params = {
            "CallSid": record.call_sid,
            "AccountSid": account_sid,
            "From": scenario.caller.from_,
            "Caller": scenario.caller.from_,
            "To": to,
            "Called": to,
            "Direction": "inbound",
            "ApiVersion": API_VERSION,
        }
        self._first = first
        if scenario.caller.rung:
            self._first = caller.filled(scenario.caller.rung)
            swapped = {"From": to, "Caller": to, "To": scenario.caller.from_, "Called": scenario.caller.from_}
            self._params |= swapped | {"Direction": "outbound-api", "AnsweredBy": scenario.caller.answered_by}
        if scenario.caller.attestation:
            self._params["StirVerstat"] = scenario.caller.attestation

    def run(self) -> None:
        status, by = "completed", "service"
        try:
            self._converse()
        except HungUp:
            by = "caller"
            self._record.add(Answered(self._clock.now_s, "hangup", "", 0.0))
        except CallEnded as ended:
            status = ended.status
        except Mismatch as mismatch:
            by = "caller"
            self._record.mismatch = str(mismatch)
        if self._record.mismatch is None:
            try:
                self._caller.finish()
            except Mismatch as mismatch:
                self._record.mismatch = f"{mismatch}, and the call was over"
        self._record.add(Ended(self._clock.now_s, status, by))
        self._status_callback(status)

    def _converse(self) -> None:
        """Execute documents until one has no successor. Raises HungUp, CallEnded, Mismatch."""
        url, verbs = self._fetch(self._base_url + self._first, Goto("", "POST"), "ringing")
        for _ in range(MAX_DOCUMENTS):
            goto = self._execute(verbs)
            if goto is None:
                return
            url, verbs = self._fetch(url, goto, "in-progress")
        self._record.errors.append(f"the call went through {MAX_DOCUMENTS} documents and had no end")

    def _execute(self, verbs: tuple[Verb, ...]) -> Goto | None:
        for verb in verbs:
            if goto := execute(self._leg, verb):
                return goto
        return None

    def _fetch(self, base: str, goto: Goto, status: str) -> tuple[str, tuple[Verb, ...]]:
        """The next document, or the fallback's. Raises CallEnded when there is neither."""
        url = urljoin(base, goto.url) if goto.url else base
        try:
            return self._document(url, goto.method, {**goto.params, "CallStatus": status}, self._caller.take_faults())
        except WebhookFailed as failure:
            self._record.errors.append(str(failure))
            params = {"CallStatus": status, "ErrorCode": str(failure.code), "ErrorUrl": failure.url}
        try:
            return self._document(self._base_url + FALLBACK, "POST", params, NO_FAULTS)
        except WebhookFailed as second:
            self._record.errors.append(str(second))
            raise CallEnded("failed") from None

    def _document(
        self, url: str, method: str, params: Mapping[str, str], faults: Faults
    ) -> tuple[str, tuple[Verb, ...]]:
        if self._repeat and faults.repeat_request is None:
            faults = faults.model_copy(update={"repeat_request": self._repeat})
        answer = self._line.request(url, method, {**self._params, **params}, faults)
        return url, _verbs(answer)

    def _status_callback(self, status: str) -> None:
        seconds = str(round(self._clock.now_s))
        self._callback(
            self._base_url + STATUS,
            {
                "CallStatus": status,
                "CallDuration": seconds,
                "Timestamp": format_datetime(datetime.now(UTC)),
                "CallbackSource": "call-progress-events",
                "SequenceNumber": "0",
            },
        )

    def _callback(self, url: str, params: Mapping[str, str]) -> None:
        """Send a status callback; nobody waits for what it answers, but an error of it is one."""
        try:
            faults = Faults(repeat_request=self._repeat)
            params = {"CallStatus": "in-progress", **self._params, **params}
            self._line.request(urljoin(self._base_url, url), "POST", params, faults)
        except WebhookFailed as failure:
            self._record.errors.append(str(failure))


def _verbs(answer: Answer) -> tuple[Verb, ...]:
    """The verbs of a webhook's answer. Raises WebhookFailed."""
    if answer.content_type not in XML_TYPES:
        raise WebhookFailed(12300, answer.url, f"the content type is {answer.content_type or 'missing'}")
    try:
        return parse(answer.body)
    except TwimlError as error:
        raise WebhookFailed(error.code, answer.url, str(error)) from None
