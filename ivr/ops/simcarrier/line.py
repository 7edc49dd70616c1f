"""The carrier's webhooks: signed, retried, within their budget, and what the network does to them.

Source: docs usage/security, usage/webhooks/webhooks-connection-overrides, voice/twiml#request-parameters.
"""

from __future__ import annotations

import ipaddress
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, urldefrag, urlencode, urlsplit

import requests
from twilio.request_validator import RequestValidator

from ivr.ops.simcarrier.clock import Clock
from ivr.ops.simcarrier.record import CallRecord, Requested
from ivr.ops.simcarrier.scenario import NO_FAULTS, Faults, Repeat

REFUSED = 403
OTHER_CALLER = "+14155550198"  # nobody's

XML_TYPES = {"text/xml", "application/xml", "text/html"}


class WebhookFailed(Exception):
    """A webhook without a usable answer; ``code`` is the carrier's error number."""

    def __init__(self, code: int, url: str, problem: str) -> None:
        super().__init__(f"{code} at {url}: {problem}")
        self.code = code
        self.url = url


@dataclass(frozen=True)
class Budget:
    """The patience of one webhook, in wall time; the default is the carrier's."""

    connect_ms: int = 5000
    read_ms: int = 15000
    total_ms: int = 15000
    retries: int = 1
    policy: frozenset[str] = frozenset({"ct"})  # retry on: ct connection, rt read timeout, 4xx, 5xx, all

    def override(self, fragment: str) -> Budget:
        """The budget of a URL with overrides in its fragment: ``#rc=2&rt=4000&tt=15000&rp=ct,rt,5xx``."""
        given = {key: values[0] for key, values in parse_qs(fragment).items()}
        return Budget(
            connect_ms=int(given.get("ct", self.connect_ms)),
            read_ms=int(given.get("rt", self.read_ms)),
            total_ms=int(given.get("tt", self.total_ms)),
            retries=int(given.get("rc", self.retries)),
            policy=frozenset(given["rp"].split(",")) if "rp" in given else self.policy,
        )

    def retries_on(self, reason: str) -> bool:
        return reason in self.policy or "all" in self.policy


@dataclass(frozen=True)
class Answer:
    """A webhook's answer: the URL it came from (relative URLs in it start there) and its body."""

    url: str
    body: bytes
    content_type: str


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authorities() -> str | bool:
    """Whose certificates are trusted, for requests, which ignores what OpenSSL and our websockets obey."""
    return os.environ.get("SSL_CERT_FILE") or True


class Line:
    """Sends the webhooks of one call and writes each try into its record."""

    def __init__(
        self, auth_token: str, clock: Clock, record: CallRecord, budget: Budget, *, alter: bool = False
    ) -> None:
        self._validator = RequestValidator(auth_token)
        self._clock = clock
        self._record = record
        self._budget = budget
        self._alter = alter
        self._session = requests.Session()
        self._session.verify = authorities()

    def sign(self, url: str, params: Mapping[str, str]) -> str:
        """X-Twilio-Signature of a request: over its full URL, without fragment, and its form."""
        return str(self._validator.compute_signature(url, dict(params)))

    def request(self, url: str, method: str, params: Mapping[str, str], faults: Faults = NO_FAULTS) -> Answer:
        """Send one webhook, with its retries, inside its budget. Raises WebhookFailed."""
        url, fragment = urldefrag(url)
        budget = self._budget.override(fragment)
        call = _Webhook(url, method, dict(params), str(uuid.uuid4()))
        with self._clock.waiting():
            if self._alter:
                self._send_altered(call, budget)
            answer = self._tries(call, budget, faults)
            if faults.repeat_request:
                self._repeat(call, budget, faults.repeat_request)
        return answer

    def close(self) -> None:
        self._session.close()

    def _tries(self, call: _Webhook, budget: Budget, faults: Faults) -> Answer:
        time.sleep(faults.delay_request_s / self._clock.speed)
        deadline = time.perf_counter() + budget.total_ms / 1000
        for attempt in range(budget.retries + 1):
            dropped = attempt == 0 and (faults.drop_request or faults.drop_response)
            try:
                if attempt == 0 and faults.drop_request:
                    self._note(call, None, 0.0, "lost on the way; tried again")
                    continue
                answer = self._send(call, budget, deadline, "answer lost; tried again" if dropped else "")
                if not dropped:
                    return answer
            except _TryFailed as failure:
                if attempt == budget.retries or not budget.retries_on(failure.reason):
                    raise WebhookFailed(failure.code, call.url, str(failure)) from None
        raise WebhookFailed(11205, call.url, "no answer after all tries")

    def _repeat(self, call: _Webhook, budget: Budget, repeat: Repeat) -> None:
        for _ in range(repeat.times):
            time.sleep(repeat.delay_s / self._clock.speed)
            again = replace(call, token=str(uuid.uuid4())) if repeat.fresh_token else call
            try:
                self._send(again, budget, time.perf_counter() + budget.total_ms / 1000, "sent again")
            except _TryFailed as failure:
                self._record.errors.append(f"{failure.code} at {call.url}, sent again: {failure}")

    def _send_altered(self, call: _Webhook, budget: Budget) -> None:
        """Before the true one, what somebody would send who has seen it: another form, under its signature."""
        altered = replace(call, params={**call.params, "From": OTHER_CALLER, "Digits": "1"}, token=str(uuid.uuid4()))
        signature = self.sign(call.url, {} if call.get else call.params)
        deadline = time.perf_counter() + budget.total_ms / 1000
        try:
            self._send(altered, budget, deadline, "altered under its signature", signature)
        except _TryFailed as failure:
            if failure.status == REFUSED:
                return
        self._record.errors.append(f"11200 at {call.url}: an altered request was not refused")

    def _send(
        self, call: _Webhook, budget: Budget, deadline: float, note: str = "", signature: str | None = None
    ) -> Answer:
        left_s = deadline - time.perf_counter()
        if left_s <= 0:
            raise _TryFailed("tt", 11200, f"the budget of {budget.total_ms} ms was used up")
        self._session.trust_env = not is_loopback(call.url)  # a proxy of the environment cannot reach this machine
        url = f"{call.url}{'&' if '?' in call.url else '?'}{urlencode(call.params)}" if call.get else call.url
        form = {} if call.get else call.params
        headers = {"X-Twilio-Signature": signature or self.sign(url, form), "I-Twilio-Idempotency-Token": call.token}
        timeout = (min(budget.connect_ms / 1000, left_s), min(budget.read_ms / 1000, left_s))
        started = time.perf_counter()
        status, problem = None, None
        try:
            response = self._session.request(
                call.method, url, data=form, headers=headers, timeout=timeout, allow_redirects=False
            )
            status = response.status_code
        except requests.exceptions.ConnectTimeout:
            problem = _TryFailed("ct", 11205, "no connection in time")
        except requests.exceptions.Timeout:
            problem = _TryFailed("rt", 11200, "no answer in time")
        except requests.exceptions.RequestException as error:
            problem = _TryFailed("ct", 11205, f"no connection ({type(error).__name__})")
        ended = time.perf_counter()
        meant = signature is not None and status == REFUSED
        self._note(call, status, (ended - started) * 1000, note or (str(problem) if problem else ""), meant)
        if problem:
            raise problem
        if ended > deadline:
            raise _TryFailed("tt", 11200, f"answered after the budget of {budget.total_ms} ms")
        if not 200 <= response.status_code < 300:
            status = response.status_code
            raise _TryFailed(f"{status // 100}xx", 11200, f"HTTP {status}", status)
        return Answer(url, response.content, response.headers.get("Content-Type", "").split(";")[0].strip())

    def _note(self, call: _Webhook, status: int | None, ms: float, note: str, meant: bool = False) -> None:
        at_s, ms = self._clock.now_s, round(ms, 1)
        self._record.add(Requested(at_s, call.method, call.url, status, ms, call.token, note, meant))


@dataclass(frozen=True)
class _Webhook:
    url: str
    method: str
    params: dict[str, str]
    token: str

    @property
    def get(self) -> bool:
        return self.method == "GET"


class _TryFailed(Exception):
    def __init__(self, reason: str, code: int, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.reason = reason
        self.code = code
        self.status = status
