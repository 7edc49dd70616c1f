"""``ivr worker``: runs the jobs that nobody waits for."""

from __future__ import annotations

import signal
import threading

import click
from prometheus_client import start_http_server

from ivr import log, tracing
from ivr.clock import utc_now
from ivr.customers.retention import plan_purge
from ivr.payments.worker import run
from ivr.settings import settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade


@click.command()
@click.option("--once", is_flag=True, help="Run what is due, then end.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True)
@click.option("--metrics-port", type=int, help="Serve /metrics there, to whoever reaches it; default: not at all.")
def command(once: bool, metrics_host: str, metrics_port: int | None) -> None:
    """Make debits and whatever else waits in the queue. SIGTERM ends it after the job in hand."""
    log.configure()
    tracing.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if metrics_port is not None:
        try:
            start_http_server(metrics_port, metrics_host)
        except OSError as error:
            told = f"{metrics_host}:{metrics_port} cannot be listened on: {error.strerror}"
            raise click.ClickException(told) from None
    database = Database(settings().sqlalchemy_url())
    upgrade(database)
    with database.transaction() as session:
        plan_purge(session, utc_now())
    run(settings(), stop, once=once)
