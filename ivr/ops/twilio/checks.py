"""Checks of all that calls hang on, each a line that says what to do. Nothing is changed anywhere.

Each check is a function of :class:`Asked` that yields what it found; a check that raises is a finding too.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from urllib.parse import urlsplit

import requests
from twilio.base.exceptions import TwilioException
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect as websocket

from ivr.keys import Keyring, KeysUnusable
from ivr.ops.twilio.number import changes, wanted
from ivr.payments.bank import BankError, BankUnavailable, InvalidCard
from ivr.payments.banks import BankSettingsWrong
from ivr.payments.banks import connect as connect_bank
from ivr.settings import Settings
from ivr.speech.recogniser import DigitModel
from ivr.store import redis
from ivr.store.db import Database
from ivr.store.migrations import current, head
from voiceprint import Encoder, Scorer

TIMEOUT_S = 10
MOST_CLOCK_ERROR_S = 30
LEAST_CERTIFICATE_DAYS = 14
RECORDINGS = "Voice > Settings, and each number: recordings of spoken card numbers are stored cardholder data"


class State(Enum):
    OK = "ok"
    LOOK = "look"  # a person must look: we cannot know, or it may be meant so
    FAIL = "FAIL"


@dataclass(frozen=True)
class Found:
    """One line: what was looked at, how it is, and what to do about it."""

    name: str
    state: State
    said: str


@dataclass(frozen=True)
class Asked:
    """What the checks look at."""

    settings: Settings
    client: Client | None
    number: str | None

    @property
    def base(self) -> str:
        return (self.settings.public_url or "").rstrip("/")


Check = Callable[[Asked], Iterator[Found]]


def run(
    settings: Settings, client: Client | None, number: str | None, checks: tuple[Check, ...] | None = None
) -> Iterator[Found]:
    """All findings, or those of ``checks``, as they are made."""
    asked = Asked(settings, client, number)
    for check in CHECKS if checks is None else checks:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            yield from check(asked)
        except Exception as error:  # whatever it is: the other checks are still of use
            yield Found(name, State.FAIL, f"could not be checked ({type(error).__name__})")


def _settings(asked: Asked) -> Iterator[Found]:
    given = asked.settings
    if not asked.base:
        yield Found("public URL", State.FAIL, "set IVR_PUBLIC_URL to the https:// address at which Twilio reaches us")
    elif urlsplit(asked.base).scheme != "https":
        yield Found("public URL", State.FAIL, "IVR_PUBLIC_URL is not https: card numbers would be heard on the way")
    else:
        yield Found("public URL", State.OK, asked.base)
    if not (given.account_sid and given.auth_token.get_secret_value()):
        yield Found("credentials", State.FAIL, "set IVR_ACCOUNT_SID and IVR_AUTH_TOKEN, from the console: Account")


def _reached(asked: Asked) -> Iterator[Found]:
    if not asked.base:
        return
    try:
        began = time.monotonic()
        given = requests.get(f"{asked.base}/health", timeout=TIMEOUT_S)
    except requests.exceptions.SSLError:
        yield Found("reachable", State.FAIL, "its certificate is not valid for this name: Twilio refuses it too")
        return
    except requests.RequestException as error:
        yield Found("reachable", State.FAIL, f"no answer ({type(error).__name__}): is the service up, the port open?")
        return
    if given.status_code != 200 or "ok" not in given.text:
        yield Found("reachable", State.FAIL, f"/health answers {given.status_code}: does the proxy pass requests on?")
        return
    yield Found("reachable", State.OK, f"in {1000 * (time.monotonic() - began):.0f} ms from here")


def _certificate(asked: Asked) -> Iterator[Found]:
    parts = urlsplit(asked.base)
    if parts.scheme != "https" or not parts.hostname:
        return
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), timeout=TIMEOUT_S) as tcp,
            ssl.create_default_context().wrap_socket(tcp, server_hostname=parts.hostname) as tls,
        ):
            ends = str((tls.getpeercert() or {})["notAfter"])
    except (OSError, KeyError) as error:
        yield Found("certificate", State.FAIL, f"no TLS connection ({type(error).__name__})")
        return
    days = int((ssl.cert_time_to_seconds(ends) - time.time()) / 86400)
    state = State.OK if days >= LEAST_CERTIFICATE_DAYS else State.FAIL
    yield Found("certificate", state, f"ends in {days} days" + ("" if state is State.OK else ": renew it"))


def _signature(asked: Asked) -> Iterator[Found]:
    """Signed as Twilio signs, for the public URL: whether what arrives behind the proxies is what was signed."""
    token = asked.settings.auth_token.get_secret_value()
    if not (asked.base and token):
        return
    url = f"{asked.base}/voice/status"
    form = {"CallSid": "CA" + secrets.token_hex(16), "CallStatus": "ringing"}
    signature = RequestValidator(token).compute_signature(url, form)
    try:
        signed = requests.post(url, form, headers={"X-Twilio-Signature": signature}, timeout=TIMEOUT_S)
        bare = requests.post(url, form, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        yield Found("signature", State.FAIL, f"no answer ({type(error).__name__})")
        return
    if bare.status_code != 403:
        yield Found("signature", State.FAIL, f"without one the answer is {bare.status_code}, not 403: is it us?")
    elif signed.status_code != 204:
        yield Found(
            "signature", State.FAIL,
            f"a signed request is answered {signed.status_code}: the service has another IVR_AUTH_TOKEN or "
            "IVR_PUBLIC_URL, or the proxy changes path, query or form",
        )  # fmt: skip
    else:
        yield Found("signature", State.OK, "signed requests come through the proxy, others are refused")


def _websocket(asked: Asked) -> Iterator[Found]:
    token = asked.settings.auth_token.get_secret_value()
    if not (asked.base and token):
        return
    url = asked.base.replace("http", "ws", 1) + "/voice/stream"
    signature = RequestValidator(token).compute_signature(url, {})
    try:
        with websocket(url, additional_headers={"X-Twilio-Signature": signature}, open_timeout=TIMEOUT_S):
            yield Found("websocket", State.OK, "audio can come")
    except (WebSocketException, OSError) as error:
        yield Found(
            "websocket", State.FAIL,
            f"not opened ({type(error).__name__}): have the proxy pass Upgrade and Connection on, with HTTP/1.1",
        )  # fmt: skip


def _credentials(asked: Asked) -> Iterator[Found]:
    if asked.client is None:
        return
    try:
        account = asked.client.api.accounts(asked.settings.account_sid).fetch()
    except TwilioException as error:
        status = getattr(error, "status", None)
        yield Found("credentials", State.FAIL, f"Twilio answers {status}: copy account SID and token anew")
        return
    active = str(account.status) == "active"
    yield Found("credentials", State.OK if active else State.FAIL, f"the account is {account.status}")


def _clock(asked: Asked) -> Iterator[Found]:
    """Notices, links and webhooks are signed with the time. Our own /health would only tell this machine's."""
    date = None
    if asked.client is not None:
        date = asked.client.http_client.request("GET", "https://api.twilio.com/").headers.get("Date")
    if not date:
        yield Found("clock", State.LOOK, "nobody told the time to compare with: is NTP running?")
        return
    off = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    state = State.OK if off <= MOST_CLOCK_ERROR_S else State.FAIL
    yield Found("clock", state, f"{off:.0f} s off" + ("" if state is State.OK else ": have NTP set it"))


def _number(asked: Asked) -> Iterator[Found]:
    if asked.client is None or asked.number is None or not asked.base:
        return
    found = asked.client.incoming_phone_numbers.list(phone_number=asked.number, limit=1)
    if not found:
        yield Found("number", State.FAIL, f"the account has no number {asked.number}")
        return
    locale = "zh" if "locale=zh" in str(found[0].voice_url) else None
    differ = changes(vars(found[0]), wanted(asked.base, locale))
    if differ:
        said = ", ".join(change.name for change in differ)
        yield Found("number", State.FAIL, f"{said}: run ivr twilio configure --number {asked.number}")
    else:
        yield Found("number", State.OK, f"{asked.number} is set up for {asked.base}")


def _models(asked: Asked) -> Iterator[Found]:
    given = asked.settings
    DigitModel(given.digit_model_dir)  # hears a known recording with each grammar, or raises
    yield Found("digit model", State.OK, f"{given.digit_model_dir.name}: its grammars and graph are in force")
    if given.digit_model_zh_dir:
        DigitModel(given.digit_model_zh_dir, "zh")
        yield Found("digit model, Mandarin", State.OK, f"{given.digit_model_zh_dir.name}: experimental")
    encoder = Encoder.load(given.voice_model_dir)
    Scorer.load(given.voice_model_dir)
    yield Found("voice model", State.OK, f"{encoder.model_id}, with a calibration of its own")


def _stores(asked: Asked) -> Iterator[Found]:
    client = redis.connect(asked.settings)
    policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "?")
    state = State.OK if policy == "noeviction" else State.FAIL
    told = "answers" if state is State.OK else f"evicts ({policy}), and calls in progress with it: set noeviction"
    yield Found("Redis", state, told)
    database = Database(asked.settings.sqlalchemy_url())
    try:
        with database.engine.connect() as connection:
            at = current(connection)
    finally:
        database.engine.dispose()
    if at == head():
        yield Found("database", State.OK, f"{database.engine.dialect.name}, at revision {at}")
    else:
        yield Found("database", State.LOOK, f"at revision {at or 'none'}: the service, started, brings it to {head()}")


def _bank(asked: Asked) -> Iterator[Found]:
    try:
        bank = connect_bank(asked.settings)
        bank.card("ivr-check")
    except BankSettingsWrong as error:
        yield Found("bank", State.FAIL, str(error))
        return
    except InvalidCard:
        pass  # it was asked, took our key, and does not know this token
    except BankUnavailable as error:
        yield Found("bank", State.FAIL, f"no answer: {error}")
        return
    except BankError as error:
        yield Found("bank", State.FAIL, f"does not take our request: {error}")
        return
    money = "play money: test customers only" if bank.test_only else "real money"
    yield Found("bank", State.OK, f"{bank.name} answers; {money}")


def _keys(asked: Asked) -> Iterator[Found]:
    try:
        keyring = Keyring.load(asked.settings)
    except KeysUnusable as error:
        yield Found("keys", State.FAIL, str(error))
        return
    weak = [p for p in ("pan", "pin", "voiceprint", "session") if len(set(keyring.active(p)[1])) < 12]
    if weak:
        yield Found("keys", State.FAIL, f"the active key for {', '.join(weak)} is not random: rotate it")
    elif asked.settings.keys_file is None:
        yield Found("keys", State.LOOK, "in the data folder: back the file up, apart from the database")
    else:
        yield Found("keys", State.OK, "present, random, and readable by this user and group alone")
    if len(asked.settings.auth_token.get_secret_value()) < 32:
        yield Found("auth token", State.FAIL, "shorter than Twilio's: anybody could guess how to sign")


def _account(asked: Asked) -> Iterator[Found]:
    """What only people may decide: reported, never switched."""
    if asked.client is None:
        return
    yield Found("PCI mode", State.LOOK, "no API tells: see Voice > Settings; it cannot be undone: ask Twilio first")
    try:
        voice = asked.client.insights.v1.settings().fetch()
        trace = bool(voice.voice_trace)
        said = "on: Twilio keeps the audio of calls, card numbers with it; switch it off" if trace else "off"
        yield Found("voice trace", State.FAIL if trace else State.OK, said)
    except TwilioException:
        yield Found("voice trace", State.LOOK, "Twilio does not tell: see Voice > Settings")
    recorded = asked.client.recordings.list(limit=1)
    if recorded:
        last = f"{recorded[0].date_created:%Y-%m-%d}"
        yield Found("call recording", State.FAIL, f"the account has recordings, the last of {last}: see {RECORDINGS}")
    else:
        yield Found("call recording", State.OK, "none in the account")


CHECKS: tuple[Check, ...] = (
    _settings,
    _reached,
    _certificate,
    _signature,
    _websocket,
    _credentials,
    _clock,
    _number,
    _models,
    _stores,
    _bank,
    _keys,
    _account,
)

INSIDE: tuple[Check, ...] = (_settings, _stores, _bank, _keys)
"""What the service stands on."""

WAY_IN: tuple[Check, ...] = (_reached, _certificate, _signature, _websocket, _clock)
"""Whether what comes to the public URL reaches it; asked from here, without Twilio."""
