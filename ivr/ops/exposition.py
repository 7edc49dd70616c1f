"""``/metrics``: what the processes counted, and what waits by the database.

Counters and times are of processes, which share a folder (``PROMETHEUS_MULTIPROC_DIR``); what waits is read from the
database when it is asked for, so that it is right whoever asks.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Iterator
from datetime import datetime

from flask import Flask, Response, abort, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector
from sqlalchemy import func, select

from ivr import metrics
from ivr.approval.models import ApprovalRequest, RequestState
from ivr.clock import utc_now
from ivr.jobs import Job
from ivr.payments.models import Payment
from ivr.payments.states import FINAL
from ivr.store.db import Database
from ivr.webhooks.models import WebhookDelivery


def install(app: Flask, database: Database, token: str) -> None:
    """Serve ``/metrics`` to whoever shows the token, and time every request."""

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        taken_s = time.perf_counter() - g.began
        metrics.REQUEST_S.labels(request.endpoint or "none", response.status_code).observe(taken_s)
        return response

    @app.get("/metrics")
    def exposed() -> Response:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), token.encode()):
            abort(401)
        return Response(exposition(database, utc_now()), content_type=CONTENT_TYPE_LATEST)


class Waiting(Collector):
    """What waits, and for how long, by the database."""

    def __init__(self, database: Database, now: datetime) -> None:
        self._database, self._now = database, now

    def collect(self) -> Iterator[Metric]:
        with self._database.snapshot() as session:
            states = session.execute(
                select(Payment.state, func.count()).where(Payment.state.not_in(FINAL)).group_by(Payment.state)
            ).all()
            overdue = session.execute(
                select(Job.kind, func.count(), func.min(Job.run_at))
                .where(Job.done_at.is_(None), Job.run_at <= self._now)
                .group_by(Job.kind)
            ).all()
            asked = select(func.count()).select_from(ApprovalRequest).where(ApprovalRequest.state == RequestState.OPEN)
            approvals = session.scalar(asked) or 0
            waits = (WebhookDelivery.delivered_at.is_(None), WebhookDelivery.given_up_at.is_(None))
            webhooks = session.scalar(select(func.count()).select_from(WebhookDelivery).where(*waits)) or 0
        payments = GaugeMetricFamily("ivr_payments_undecided", "Payments that are not decided yet.", labels=["state"])
        for state, count in states:
            payments.add_metric([state.value], count)
        due = GaugeMetricFamily("ivr_jobs_due", "Jobs that are due and not done.", labels=["kind"])
        late = GaugeMetricFamily("ivr_jobs_late_seconds", "How long the first of them has been due.", labels=["kind"])
        for kind, count, since in overdue:
            due.add_metric([kind], count)
            late.add_metric([kind], (self._now - since).total_seconds())
        yield from (payments, due, late)
        yield GaugeMetricFamily("ivr_approvals_open", "Payments that wait for somebody to agree.", value=approvals)
        yield GaugeMetricFamily("ivr_webhooks_waiting", "Messages to merchants that wait.", value=webhooks)


def exposition(database: Database, now: datetime) -> bytes:
    """All of it, in Prometheus' text format."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(Waiting(database, now))
    return generate_latest(registry)
