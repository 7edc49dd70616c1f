"""``ivr worker``: runs the jobs that nobody waits for."""

from __future__ import annotations

import signal
import threading

import click

from ivr import log, tracing
from ivr.payments.worker import run
from ivr.settings import settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade


@click.command()
@click.option("--once", is_flag=True, help="Run what is due, then end.")
def command(once: bool) -> None:
    """Make debits and whatever else waits in the queue. SIGTERM ends it after the job in hand."""
    log.configure()
    tracing.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    upgrade(Database(settings().sqlalchemy_url()))
    run(settings(), stop, once=once)
