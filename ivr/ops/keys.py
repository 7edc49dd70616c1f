"""What in the database needs which key, and what can be sealed anew without anybody's help."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql import ColumnElement

from ivr.console.operators import accounts
from ivr.console.operators.models import Operator
from ivr.customers import retention
from ivr.customers.cards import still_authorised
from ivr.customers.models import Card, EnrolmentCode, Pin, UtterancePrint, VoiceprintRow, VoiceSecret, WatchlistEntry
from ivr.keys import Keyring
from ivr.webhooks.models import WebhookEndpoint
from voiceprint.sealing import key_id_of

PROTECTS = {
    "pan": "hashes of card numbers",
    "pin": "hashes of PINs and enrolment codes, operators' second factors",
    "voiceprint": "voiceprints, fingerprints of utterances, the watch list",
    "session": "calls in progress, one-time pages, sign-ins, secrets of merchants' webhooks",
}

#: What becomes of the rows that an older key made.
THEN = {
    "pan": "each at its customer's next call; of who never calls, `ivr card add` again",
    "pin": "`ivr keys reseal` for second factors; a PIN when it is next keyed",
    "voiceprint": "`ivr keys reseal`",
    "session": "pages and links within days; a webhook when its merchant registers it again",
}


def needed(session: Session, now: datetime) -> dict[str, Counter[str]]:
    """By purpose: how many rows need each key, by its id."""
    return {
        "pan": _named(session, Card.pan_key_id, still_authorised(now.date())),
        "pin": _named(session, Pin.key_id)
        + _named(session, EnrolmentCode.key_id, EnrolmentCode.used_at.is_(None) & (EnrolmentCode.expires_at > now))
        + _sealed(session, Operator.totp_sealed),
        "voiceprint": _sealed(session, VoiceprintRow.sealed)
        + _sealed(session, UtterancePrint.sealed)
        + _sealed(session, VoiceSecret.sealed)
        + _sealed(session, WatchlistEntry.sealed),
        "session": _named(session, WebhookEndpoint.key_id, WebhookEndpoint.removed_at.is_(None)),
    }


def reseal(session: Session, keyring: Keyring) -> int:
    """Seal with the keys in force what others sealed; how many rows there were."""
    return retention.reseal(session, keyring) + accounts.reseal(session, keyring)


def _named(
    session: Session, column: InstrumentedAttribute[str], where: ColumnElement[bool] | None = None
) -> Counter[str]:
    rows = select(column, func.count()).group_by(column)
    counts = Counter[str]()
    for key_id, count in session.execute(rows if where is None else rows.where(where)):
        counts[key_id] = count
    return counts


def _sealed(session: Session, column: InstrumentedAttribute[bytes]) -> Counter[str]:
    return Counter(key_id_of(sealed) for sealed in session.scalars(select(column)))
