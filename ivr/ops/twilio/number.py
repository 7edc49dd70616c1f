"""What a Twilio number must be set to so that its calls come to us, and how it differs from what it is set to. Pure.

Names are those of Twilio's IncomingPhoneNumber resource and of its client's arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Twilio's connection overrides (docs: usage/webhooks/webhooks-connection-overrides). A call's webhook has 15 s in all:
#: three tries of 4 s fit. Every step of ours is idempotent, so it may be sent again when we answered late or badly.
ANSWER_TRIES = "#rc=2&ct=2000&rt=4000&tt=14000&rp=ct,rt,5xx"
#: Nobody waits for these.
STATUS_TRIES = "#rc=5&ct=2000&rt=5000&tt=15000&rp=all"


@dataclass(frozen=True)
class Field:
    """One field of a number: its name in the API, where the console shows it, and its value."""

    name: str
    console: str
    value: str


def wanted(public_url: str, locale: str | None = None) -> tuple[Field, ...]:
    """The fields of a number whose calls we take, in the order of the console's page."""
    base = f"{public_url.rstrip('/')}/voice"
    answer = f"{base}/answer" + (f"?locale={locale}" if locale else "")
    return (
        Field("voice_url", "Voice > A call comes in: Webhook, URL", answer + ANSWER_TRIES),
        Field("voice_method", "Voice > A call comes in: HTTP", "POST"),
        Field("voice_fallback_url", "Voice > Primary handler fails: Webhook, URL", f"{base}/fallback{ANSWER_TRIES}"),
        Field("voice_fallback_method", "Voice > Primary handler fails: HTTP", "POST"),
        Field("status_callback", "Voice > Call status changes: URL", f"{base}/status{STATUS_TRIES}"),
        Field("status_callback_method", "Voice > Call status changes: HTTP", "POST"),
        Field("voice_caller_id_lookup", "Voice > Caller Name Lookup", "False"),
        Field("sms_url", "Messaging > A message comes in: Webhook, URL", f"{base}/message{STATUS_TRIES}"),
        Field("sms_method", "Messaging > A message comes in: HTTP", "POST"),
    )


#: What would be asked instead of our URLs while it is set.
OVERRIDES = {
    "voice_application_sid": "a TwiML App takes the calls",
    "trunk_sid": "a SIP trunk takes the calls",
    "sms_application_sid": "a TwiML App takes the messages",
}


@dataclass(frozen=True)
class Change:
    """One field that is to be set to another value."""

    name: str
    console: str
    before: str
    after: str


def changes(current: Mapping[str, object], fields: tuple[Field, ...]) -> tuple[Change, ...]:
    """What is to be changed; nothing when all is as wanted."""
    shown = {name: "" if current.get(name) is None else str(current[name]) for name in (f.name for f in fields)}
    differ = [Change(f.name, f.console, shown[f.name], f.value) for f in fields if shown[f.name] != f.value]
    taken = [(name, str(current[name]), why) for name, why in OVERRIDES.items() if current.get(name)]
    return (*differ, *(Change(name, why, before, "") for name, before, why in taken))
