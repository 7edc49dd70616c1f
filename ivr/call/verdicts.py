"""What was found out of a customer's voice in her calls, for an export."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, cast, exists, or_, select
from sqlalchemy.orm import Session

from ivr.call.models import Turn
from ivr.customers.models import Consent, Failure, UtterancePrint
from ivr.customers.retention import CONSENT_KINDS
from ivr.payments.models import Payment

OF_THE_VOICE = ("voice", "same_speaker", "replay", "begun_ms", "ended_ms")
"""What of a turn's decisions tells of a voice."""


def of_customer(session: Session, customer_id: str) -> list[dict[str, Any]]:
    """Turns in which a voice was compared with hers, by time: of calls that were hers, and all that failed as her."""
    consents = select(Consent.channel).where(Consent.customer_id == customer_id, Consent.kind.in_(CONSENT_KINDS))
    hers = or_(
        Turn.call_sid.in_(select(UtterancePrint.call_sid).where(UtterancePrint.customer_id == customer_id)),
        Turn.call_sid.in_(select(Payment.call_sid).where(Payment.customer_id == customer_id)),
        Turn.call_sid.in_([channel.removeprefix("call:") for channel in session.scalars(consents)]),
        exists().where(
            Failure.customer_id == customer_id,
            Failure.call_sid == Turn.call_sid,
            Failure.step == cast(Turn.step, String),
        ),
    )
    turns = session.scalars(select(Turn).where(hers).order_by(Turn.at, Turn.call_sid, Turn.step))
    return [
        {
            "said_in": turn.call_sid,
            "step": turn.step,
            "at": turn.at.isoformat(),
            **{name: turn.decisions[name] for name in OF_THE_VOICE if name in turn.decisions},
        }
        for turn in turns
        if "voice" in turn.decisions or "replay" in turn.decisions
    ]
