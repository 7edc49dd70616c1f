"""What in the database needs which key, and what can be sealed anew without anybody's help."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql import ColumnElement

from ivr.approval import links
from ivr.approval.models import Link, SignInCode
from ivr.console.operators import accounts
from ivr.console.operators.models import Operator
from ivr.customers import apps, card_requests, retention
from ivr.customers.apps import AppBinding, AppCharge, ChargeStatus
from ivr.customers.card_requests import CardRequest
from ivr.customers.cards import still_authorised
from ivr.customers.models import (
    Audit,
    Card,
    EnrolmentCode,
    Pin,
    UtterancePrint,
    VoiceprintRow,
    VoiceSecret,
    WatchlistEntry,
)
from ivr.keys import Keyring
from ivr.purchases import buy
from ivr.purchases.models import Purchase
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
    "session": "pages and links within a day; a webhook when its merchant registers it again",
}

#: What a token or code of the session key opens: a table, how long a row of it lives, and which rows still wait.
#: No row says which key made its token.
_OPENED: tuple[tuple[type[Any], timedelta, ColumnElement[bool]], ...] = (
    (Link, links.LINK_LIFE, Link.used_at.is_(None)),
    (SignInCode, links.CODE_LIFE, true()),
    (Purchase, buy.LIFE, Purchase.result.is_(None) & Purchase.payment_id.is_(None)),
    (CardRequest, card_requests.LIFE, CardRequest.card_id.is_(None)),
    (AppBinding, apps.LINK_LIFE, AppBinding.bound_at.is_(None) & AppBinding.unbound_at.is_(None)),
    (AppCharge, apps.CHARGE_LIFE, AppCharge.status == ChargeStatus.ASKING),
)

#: After a rotation: until then a process may still make tokens with the key before.
RESTARTED_WITHIN = timedelta(hours=1)


def needed(session: Session, keyring: Keyring, now: datetime) -> dict[str, Counter[str]]:
    """By purpose: how many rows need each key, by its id; those that may need it are counted, too."""
    rows = named(session, now)
    active, _ = keyring.active("session")
    rotated_at = session.scalar(select(func.max(Audit.at)).where(Audit.what == "key.rotated", Audit.subject == active))
    last_used = rotated_at + RESTARTED_WITHIN if rotated_at else now
    until = {key_id: now if key_id == active else last_used for key_id in keyring.all("session")}
    rows["session"] += Counter({key_id: _open(session, now, made_until) for key_id, made_until in until.items()})
    return rows


def named(session: Session, now: datetime) -> dict[str, Counter[str]]:
    """The same for rows that name their key: all of which a backup can be of use for."""
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


def _open(session: Session, now: datetime, made_until: datetime) -> int:
    """How many links, pages, codes and charges wait, of those made until then."""
    return sum(
        session.scalar(
            select(func.count())
            .select_from(table)
            .where(waits, table.expires_at >= now, table.expires_at <= made_until + life)
        )
        or 0
        for table, life, waits in _OPENED
    )


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
