"""Whether somebody speaks now: a recording of what she said before, and the time that an answer took.

Both are always found out and recorded. A recording is a failure like any other, but for customers flagged as test,
whom recordings are let through for: they can be debited at the sandbox bank alone (``ivr.payments.service``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ivr.call.flow import Call
from ivr.call.judging.desk import Desk
from ivr.customers import utterances
from ivr.customers.models import Customer
from ivr.customers.voiceprints import voiceprint_of

#: After the tone: so long may an answer to the challenge keep us waiting, and so late may it end.
ANSWER_BEGINS_MS = 5_000
ANSWER_ENDS_MS = 12_000


@dataclass(frozen=True)
class Replay:
    """How like a recording of what this customer said before; None where there was nothing to compare."""

    likeness: float | None
    let_through: bool

    @property
    def is_one(self) -> bool:
        return self.likeness is not None and self.likeness >= 1

    @property
    def refuses(self) -> bool:
        return self.is_one and not self.let_through

    @property
    def record(self) -> tuple[str, float]:
        """For the turn's decisions."""
        if self.likeness is None:
            return "nothing to compare", 0.0
        return "replayed" if self.is_one else "fresh", round(self.likeness, 2)


def replay(desk: Desk, call: Call, customer_id: str) -> Replay:
    """This turn's utterance against those of the customer that went before it."""
    if desk.sound is None:
        return Replay(None, False)
    secret = utterances.secret_of(desk.session, customer_id, desk.keyring, desk.now)
    kept = utterances.earlier(desk.session, customer_id, desk.keyring, call_sid=call.sid, step=str(desk.step))
    return Replay(desk.sound.likeness(secret, kept), desk.session.get_one(Customer, customer_id).test)


def remember(desk: Desk, call: Call, customer_id: str, channel: str = "telephone") -> None:
    """The utterance was hers, and accepted: know a recording of it again. Under the consent of her voiceprint."""
    voiceprint = voiceprint_of(desk.session, customer_id)
    if desk.sound is None or voiceprint is None:
        return
    secret = utterances.secret_of(desk.session, customer_id, desk.keyring, desk.now)
    utterances.remember(
        desk.session,
        customer_id,
        desk.sound.fingerprint(secret),
        call_sid=call.sid,
        step=str(desk.step),
        channel=channel,
        consent_id=voiceprint.consent_id,
        keyring=desk.keyring,
        now=desk.now,
    )


def is_late(desk: Desk) -> bool:
    """Whether the answer came outside the window in which somebody who heard the digits says them."""
    begins_ms, ends_ms = desk.heard.onset_ms, len(desk.heard.pcm) // 8
    return (begins_ms is not None and begins_ms > ANSWER_BEGINS_MS) or ends_ms > ANSWER_ENDS_MS


def times(desk: Desk) -> dict[str, object]:
    """When the answer began and when listening ended, for the turn's decisions; both in ms after the tone."""
    return {"begun_ms": desk.heard.onset_ms, "ended_ms": len(desk.heard.pcm) // 8}
