"""Ringing people up: in no quiet hours, a few times a day, noted before it is done.

What a call is about and to which number it goes is the matter of whoever asks for it (``ivr.approval.ringing``,
``ivr.call.bill_calls``); what is said in it, that of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr.customers import audit
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Audit
from ivr.jobs import Again, GiveUp, Held

QUIET_FROM, QUIET_UNTIL = time(21), time(8)
RINGS_A_DAY = 3


class Dial(Protocol):
    """Rings a number: the carrier then asks ``page`` what to say, with what the call is about (ids)."""

    def __call__(self, number: str, page: str, about: Mapping[str, str]) -> None:
        """Return when the carrier has taken the call. Raises NotRung."""


class NotRung(Exception):
    """The carrier did not take the call; the message names no number."""


@dataclass(frozen=True)
class Ring:
    """A call to be placed."""

    customer_id: str
    number: str
    page: str
    about: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """Calls that are counted together: ``rung`` is their name in the audit trail, ``apart`` the time between two."""

    rung: str
    apart: timedelta


def ring(
    held: Held,
    dial: Dial | None,
    kind: Kind,
    wanted: Callable[[Session], Ring | None],
    *,
    now: datetime,
    zone: str,
) -> None:
    """Ring once, and come back (by Again) until no call is wanted any more.

    A call is noted before it is placed, so that a worker that dies never rings more often than it may.
    """
    if dial is None:
        raise GiveUp("CallsNotConfigured")
    with held.transaction() as session:
        call = wanted(session)
        if call is None:
            return
        lock_customer(session, call.customer_id)  # of two jobs one after the other: one call at a time is counted
        wait = _must_wait(session, call.customer_id, kind, now, zone)
        if wait is None:
            audit.record(session, "the service", kind.rung, call.customer_id, now, **call.about)
    if wait is not None:
        raise Again(wait, "quiet", counted=False)
    try:
        dial(call.number, call.page, call.about)
    except NotRung as error:
        raise Again(kind.apart, str(error)[:64]) from None
    raise Again(kind.apart, "rung", counted=False)


def _must_wait(session: Session, customer_id: str, kind: Kind, now: datetime, zone: str) -> timedelta | None:
    """Until the quiet hours end, the next day begins when the day's calls have been made, or the last is long ago."""
    local = now.astimezone(ZoneInfo(zone))
    morning = local.replace(hour=QUIET_UNTIL.hour, minute=0, second=0, microsecond=0)
    if local.time() < QUIET_UNTIL:
        return morning - local
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count()).select_from(Audit).where(Audit.subject == customer_id, Audit.what == kind.rung)
    made = session.scalar(query.where(Audit.at >= midnight)) or 0
    if local.time() >= QUIET_FROM or made >= RINGS_A_DAY:
        return morning + timedelta(days=1) - local
    last = audit.last(session, kind.rung, customer_id, since=now - kind.apart)
    return last.at + kind.apart - now if last and last.at + kind.apart > now else None
