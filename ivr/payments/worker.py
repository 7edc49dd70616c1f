"""The worker: takes jobs from the queue and runs them. Run as many as the load needs.

It works in lanes, each one job at a time, so that no debit, for which a caller waits, waits for a mail server or a
merchant's.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from ivr import metrics, tracing
from ivr.approval import app_links, ringing, sign_in, telling
from ivr.approval import requests as approval_requests
from ivr.call import bill_calls
from ivr.clock import utc_now
from ivr.customers import apps, card_requests, retention
from ivr.customers.models import ContactKind
from ivr.customers.notices import SEND_JOB
from ivr.customers.rings import Dial
from ivr.jobs import Again, GiveUp, Held, LeaseLost, take
from ivr.keys import Keyring
from ivr.ledger.outbox import carry
from ivr.notifications import calls
from ivr.notifications import channels as notification_channels
from ivr.notifications.channels import Channel
from ivr.notifications.send import send
from ivr.payments import service
from ivr.payments.bank import Bank
from ivr.payments.banks import connect
from ivr.payments.debit import debit, wait_before
from ivr.payments.keeper import keep, keep_whole
from ivr.payments.pending import PendingDebits
from ivr.payments.refunds import REFUND_JOB, give_back
from ivr.purchases import buy
from ivr.settings import Settings
from ivr.store import redis
from ivr.store.db import Database
from ivr.webhooks.deliver import DELIVER_JOB, deliver

LEASE = timedelta(seconds=30)
"""Longer than any bank request may take (its time-out), so that a living worker keeps its job."""
POLL_S = 0.05
NOTICES_POLL_S = 1.0
NOTICE_LANES = {
    frozenset({REFUND_JOB}): 1,
    frozenset({SEND_JOB}): 1,
    frozenset({DELIVER_JOB}): 4,
    frozenset(
        {approval_requests.TEND_JOB, telling.DIGEST_JOB, sign_in.CODE_JOB, card_requests.ASK_JOB, apps.BIND_JOB}
    ): 1,
    frozenset({buy.EXPIRE_JOB, retention.PURGE_JOB}): 1,
    frozenset({ringing.RING_JOB, bill_calls.RING_JOB}): 1,
}
"""What no caller waits for, in lanes of its own: several for webhooks, so that one slow merchant stops no other."""
LONGEST_OUTAGE_WAIT_S = 5.0
MOST_FAILURES = 20
"""Attempts at a job whose handler fails in a way that nobody foresaw; some two hours."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Services:
    """What handlers work with besides the job."""

    settings: Settings
    bank: Bank
    channels: Mapping[ContactKind, Channel] = field(default_factory=dict)
    keyring: Keyring | None = None  # of links and codes, which no row holds
    dial: Dial | None = None  # where people can be rung up
    pending: PendingDebits | None = None  # where the bank confirms debits


Handler = Callable[[Held, Services], None]
HANDLERS: dict[str, Handler] = {
    service.DEBIT_JOB: lambda held, services: debit(held, services.bank, services.pending),
    REFUND_JOB: lambda held, services: give_back(held, services.bank),
    SEND_JOB: lambda held, services: send(held, services.channels, services.keyring, services.settings.public_url),
    DELIVER_JOB: lambda held, services: deliver(held, services.settings),
    card_requests.ASK_JOB: lambda held, _: card_requests.ask(held, utc_now()),
    approval_requests.TEND_JOB: lambda held, _: approval_requests.tend(held),
    telling.DIGEST_JOB: lambda held, _: telling.send_digest(held),
    ringing.RING_JOB: lambda held, services: ringing.ring(held, services.dial, services.settings.time_zone),
    bill_calls.RING_JOB: lambda held, services: bill_calls.ring(held, services.dial, services.settings.time_zone),
    sign_in.CODE_JOB: lambda held, _: sign_in.send_code(held),
    apps.BIND_JOB: lambda held, _: app_links.ask(held),
    buy.EXPIRE_JOB: lambda held, _: buy.end_expired(held, utc_now()),
    retention.PURGE_JOB: lambda held, services: retention.purge_daily(held, services.settings, utc_now()),
}
"""Which handler runs which kind of job. A handler bears repeating, and raises jobs.Again or jobs.GiveUp."""


def run(
    settings: Settings,
    stop: threading.Event,
    *,
    once: bool = False,
    bank: Bank | None = None,
    channels: Mapping[ContactKind, Channel] | None = None,
    lease: timedelta = LEASE,
) -> None:
    """Run jobs until ``stop`` is set; with ``once``, until none is due. The jobs in hand are finished first."""
    database = Database(settings.sqlalchemy_url())
    if channels is None:
        channels = notification_channels.connect(settings)
    bank = bank or connect(settings)
    keyring, pending = Keyring.load(settings), None
    if bank.capabilities.debit_confirmation:
        pending = PendingDebits(redis.connect(settings), keyring)
    caller = calls.connect(settings)
    services = Services(settings, bank, channels, keyring, caller.dial if caller else None, pending)
    worker = f"{socket.gethostname()[:24]}:{os.getpid()}"
    log.info("worker started", worker=worker)

    def lane(kinds: Collection[str], poll_s: float) -> None:
        _work(lambda: take(database, worker, kinds, lease), services, stop, poll_s, once)

    others = [
        threading.Thread(target=lane, args=(kinds, NOTICES_POLL_S), daemon=True)
        for kinds, lanes in NOTICE_LANES.items()
        for _ in range(lanes)
    ]
    if pending and once:
        keep_whole(database, bank.name, pending)
    elif pending:
        others.append(threading.Thread(target=keep, args=(database, bank.name, pending, stop), daemon=True))
    if settings.ledger_url:
        others.append(threading.Thread(target=carry, args=(database, settings, stop), daemon=True))
    if not once:
        for other in others:
            other.start()
    slow = frozenset[str]().union(*NOTICE_LANES)
    lane(HANDLERS.keys() - slow, POLL_S)
    if once:  # only now: the notices of what has just been done are also due
        lane(slow, NOTICES_POLL_S)
    else:
        for other in others:
            other.join()
    database.engine.dispose()
    log.info("worker stopped", worker=worker)


def _work(
    next_job: Callable[[], Held | None],
    services: Services,
    stop: threading.Event,
    poll_s: float,
    once: bool,
) -> None:
    """One lane of the worker."""
    outage_wait_s = poll_s
    while not stop.is_set():
        try:
            held = next_job()
            if held is not None:
                run_job(held, services)
            elif once:
                break
            else:
                stop.wait(poll_s)
            outage_wait_s = poll_s
        except (
            SQLAlchemyError
        ) as error:  # the database is away: whatever was in hand comes back with its lease
            if once:
                raise
            log.error("database failed", error=type(error).__name__)
            stop.wait(outage_wait_s)
            outage_wait_s = min(outage_wait_s * 2, LONGEST_OUTAGE_WAIT_S)


def run_job(held: Held, services: Services) -> None:
    """Run one job and put it off, or take it off the queue, by what its handler says."""
    try:
        with metrics.JOB_S.labels(held.kind).time(), tracing.span(f"job {held.kind}", job=held.job_id):
            outcome = _run(held, services)
        metrics.JOBS.labels(held.kind, outcome).inc()
    except LeaseLost:
        log.warning("lease lost to another worker", job=held.job_id, kind=held.kind)


def _run(held: Held, services: Services) -> str:
    """What became of it, for the count. Raises LeaseLost, SQLAlchemyError."""
    try:
        HANDLERS[held.kind](held, services)
        held.done()
        log.info("job done", job=held.job_id, kind=held.kind, attempts=held.attempts)
        return "done"
    except Again as again:
        held.release(again.after, again.reason, counted=again.counted)
        return "again"
    except GiveUp as error:
        held.done(error_type=str(error)[:64])
        return "given up"
    except (LeaseLost, SQLAlchemyError):
        raise
    except Exception as error:  # an error of ours: it must neither kill the worker nor spin
        log.exception("job failed", job=held.job_id, kind=held.kind, attempts=held.attempts)
        if held.attempts >= MOST_FAILURES:
            held.done(error_type=type(error).__name__[:64])
        else:
            held.release(wait_before(held.attempts + 1), type(error).__name__[:64])
        return "failed"
