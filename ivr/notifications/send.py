"""Sending one notice: what a worker does with the job that ``ivr.customers.notices.notify`` queued with it.

A notice is sent, then marked as sent. It goes out once, except where nobody can know that it did: a worker that
dies, loses the database or outlives its lease between the two, or a server that takes the message and whose answer
is lost, may make it go out twice. Better told twice than not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import structlog

from ivr.approval.links import NoPublicUrl, reveal
from ivr.approval.models import Link
from ivr.customers.models import Contact, ContactKind, Customer, Notice
from ivr.jobs import Again, GiveUp, Held
from ivr.keys import Keyring
from ivr.notifications.channels import Channel, NotSent, Undeliverable
from ivr.notifications.texts import compose

MOST_ATTEMPTS = 11
"""Over some eight and a half hours; then the notice is left unsent, and the log says so."""
FIRST_WAIT = timedelta(seconds=30)

log = structlog.get_logger(__name__)


def send(
    held: Held,
    channels: Mapping[ContactKind, Channel],
    keyring: Keyring | None = None,
    public_url: str | None = None,
) -> None:
    """Send the job's notice, unless it has been. No transaction is open meanwhile.

    ``keyring`` and ``public_url``: of the links and codes that a notice only names.

    Raises Again when the channel did not take it, GiveUp when it never will or there is none, LeaseLost.
    """
    notice_id = held.payload["notice_id"]
    with held.transaction() as session:
        notice = session.get_one(Notice, notice_id)
        contact = session.get_one(Contact, notice.contact_id)
        locale = session.get_one(Customer, notice.customer_id).locale
        link = session.get(Link, notice.values["link_id"]) if "link_id" in notice.values else None
    if notice.sent_at is not None:
        return
    if link is not None and datetime.now(UTC) > link.expires_at:
        raise GiveUp("LinkExpired")  # it would promise half an hour that is over; a reminder brings another
    about = log.bind(notice=notice_id, template=notice.template, channel=contact.kind.value)
    if contact.kind not in channels:
        about.warning("notice not sent: its channel is not configured")
        raise GiveUp("ChannelNotConfigured")
    try:
        values = reveal(notice.values, keyring, public_url) if keyring else notice.values
        channels[contact.kind].send(contact.address, *compose(notice.template, values, locale))
    except NoPublicUrl as error:
        about.error("notice not sent", reason=str(error))
        raise GiveUp("NoPublicUrl") from None
    except NotSent as error:
        about.warning("notice not sent", reason=str(error), attempts=held.attempts)
        if isinstance(error, Undeliverable) or held.attempts >= MOST_ATTEMPTS:
            about.error("notice given up", reason=str(error))
            raise GiveUp(str(error)) from None
        raise Again(FIRST_WAIT * 2 ** (held.attempts - 1), str(error)[:64]) from None
    with held.transaction() as session:
        session.get_one(Notice, notice_id).sent_at = datetime.now(UTC)
