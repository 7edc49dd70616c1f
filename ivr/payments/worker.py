"""The worker: takes jobs from the queue, one at a time, and runs them. Run as many as the load needs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from ivr.payments import service
from ivr.payments.bank import Bank
from ivr.payments.banks import connect
from ivr.payments.debit import debit, wait_before
from ivr.payments.jobs import Again, GiveUp, Held, LeaseLost, take
from ivr.settings import Settings
from ivr.store.db import Database

LEASE = timedelta(seconds=30)
"""Longer than any bank request may take (its time-out), so that a living worker keeps its job."""
POLL_S = 0.05
LONGEST_OUTAGE_WAIT_S = 5.0
MOST_FAILURES = 20
"""Attempts at a job whose handler fails in a way that nobody foresaw; some two hours."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Services:
    """What handlers work with besides the job."""

    settings: Settings
    bank: Bank


Handler = Callable[[Held, Services], None]
HANDLERS: dict[str, Handler] = {
    service.DEBIT_JOB: lambda held, services: debit(held, services.bank),
}
"""Which handler runs which kind of job. A handler bears repeating, and raises jobs.Again or jobs.GiveUp."""


def run(
    settings: Settings,
    stop: threading.Event,
    *,
    once: bool = False,
    bank: Bank | None = None,
    lease: timedelta = LEASE,
) -> None:
    """Run jobs until ``stop`` is set; with ``once``, until none is due. The job in hand is finished first."""
    database = Database(settings.sqlalchemy_url())
    services = Services(settings, bank or connect(settings))
    worker = f"{socket.gethostname()[:24]}:{os.getpid()}"
    log.info("worker started", worker=worker)
    outage_wait_s = POLL_S
    while not stop.is_set():
        try:
            held = take(database, worker, HANDLERS.keys(), lease)
            if held is not None:
                run_job(held, services)
            elif once:
                break
            else:
                stop.wait(POLL_S)
            outage_wait_s = POLL_S
        except (
            SQLAlchemyError
        ) as error:  # the database is away: whatever was in hand comes back with its lease
            if once:
                raise
            log.error("database failed", error=type(error).__name__)
            stop.wait(outage_wait_s)
            outage_wait_s = min(outage_wait_s * 2, LONGEST_OUTAGE_WAIT_S)
    database.engine.dispose()
    log.info("worker stopped", worker=worker)


def run_job(held: Held, services: Services) -> None:
    """Run one job and put it off, or take it off the queue, by what its handler says."""
    try:
        try:
            HANDLERS[held.kind](held, services)
            held.done()
            log.info("job done", job=held.job_id, kind=held.kind, attempts=held.attempts)
        except Again as again:
            held.release(again.after, again.reason)
        except GiveUp as error:
            held.done(error_type=str(error)[:64])
        except (LeaseLost, SQLAlchemyError):
            raise
        except Exception as error:  # an error of ours: it must neither kill the worker nor spin
            log.exception("job failed", job=held.job_id, kind=held.kind, attempts=held.attempts)
            if held.attempts >= MOST_FAILURES:
                held.done(error_type=type(error).__name__[:64])
            else:
                held.release(wait_before(held.attempts + 1), type(error).__name__[:64])
    except LeaseLost:
        log.warning("lease lost to another worker", job=held.job_id, kind=held.kind)
