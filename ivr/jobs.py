"""A queue of jobs in the database. A worker holds a job by a lease; a lease that expires is anybody's again.

A job is therefore run at least once, and now and then by two workers at a time: what it does must bear
repeating, and what it records goes through ``Held.transaction``, which lets only the present holder write.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Index, String, or_, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from ivr.store.db import Base, Database
from ivr.store.insert import insert_new

_NOT_DONE = text("done_at IS NULL")


class Job(Base):
    """Something that nobody waits for. Ready when not done, due, and not leased by a living worker."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_ready", "run_at", sqlite_where=_NOT_DONE, postgresql_where=_NOT_DONE),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=lambda: secrets.token_hex(8))
    kind: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    dedupe_key: Mapped[str] = mapped_column(String(128), unique=True)
    run_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    leased_by: Mapped[str | None] = mapped_column(String(64))
    done_at: Mapped[datetime | None]
    last_error_type: Mapped[str | None] = mapped_column(String(64))


class LeaseLost(Exception):
    """Another worker holds the job now, or has done it: stop, and record nothing."""


class Again(Exception):
    """Raised by a handler: run this job again after a while. ``counted``: this was a failed attempt, not a look."""

    def __init__(self, after: timedelta, reason: str, *, counted: bool = True) -> None:
        super().__init__(f"again after {after}: {reason}")
        self.after, self.reason, self.counted = after, reason, counted


class GiveUp(Exception):
    """Raised by a handler: this job will never succeed, a person must look. Its message is stored."""


@dataclass(frozen=True)
class Held:
    """A job in a worker's hands."""

    database: Database
    job_id: str
    kind: str
    payload: dict[str, Any]
    attempts: int  # this one included
    holder: str
    lease: timedelta

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction in which the job's row is locked and its lease renewed. Raises LeaseLost."""
        with self._locked() as (session, job):
            job.lease_until = datetime.now(UTC) + self.lease
            yield session

    def done(self, error_type: str | None = None) -> None:
        """Take the job off the queue; with ``error_type``, as given up. Raises LeaseLost."""
        with self._locked() as (_, job):
            job.done_at, job.last_error_type = datetime.now(UTC), error_type
            job.leased_by = job.lease_until = None

    def release(self, after: timedelta, error_type: str, *, counted: bool = True) -> None:
        """Anybody may take the job again, after a while. Raises LeaseLost."""
        with self._locked() as (_, job):
            job.attempts -= not counted
            job.run_at, job.last_error_type = datetime.now(UTC) + after, error_type
            job.leased_by = job.lease_until = None

    @contextmanager
    def _locked(self) -> Iterator[tuple[Session, Job]]:
        # A lease that ran out without another taking the job is still good: the row lock keeps others away.
        with self.database.transaction() as session:
            job = session.get(Job, self.job_id, with_for_update=True)
            if job is None or job.leased_by != self.holder:
                raise LeaseLost(self.job_id)
            yield session, job


def put(session: Session, kind: str, payload: dict[str, Any], dedupe_key: str, run_at: datetime) -> Job:
    """Queue a job in the caller's transaction. The same ``dedupe_key`` gives the job queued first."""
    if job := session.scalar(select(Job).where(Job.dedupe_key == dedupe_key)):
        return job
    values = {"id": secrets.token_hex(8), "kind": kind, "payload": payload, "dedupe_key": dedupe_key, "run_at": run_at}
    insert_new(session, Job, {**values, "attempts": 0})
    return session.scalars(select(Job).where(Job.dedupe_key == dedupe_key)).one()


def wake(session: Session, dedupe_key: str, now: datetime) -> None:
    """Run a job now, whatever it waits for; also one that was given up, but not one in a worker's hands."""
    job = session.scalar(select(Job).where(Job.dedupe_key == dedupe_key).with_for_update())
    if job is not None and (job.done_at is None or job.last_error_type is not None):
        job.run_at, job.done_at = now, None


def take(database: Database, worker: str, kinds: Collection[str], lease: timedelta) -> Held | None:
    """The most overdue job of these kinds that nobody holds, leased to ``worker``; None if there is none."""
    now = datetime.now(UTC)
    free = or_(Job.lease_until.is_(None), Job.lease_until <= now)
    with database.transaction() as session:
        job = session.scalar(
            select(Job)
            .where(Job.done_at.is_(None), Job.run_at <= now, free, Job.kind.in_(kinds))
            .order_by(Job.run_at)
            .limit(1)
            .with_for_update(skip_locked=True)  # on SQLite a transaction is alone anyway
        )
        if job is None:
            return None
        job.attempts += 1
        # The suffix makes every lease another holder, so that a worker cannot write by a lease it once lost.
        job.leased_by, job.lease_until = f"{worker}:{secrets.token_hex(4)}", now + lease
        return Held(database, job.id, job.kind, dict(job.payload), job.attempts, job.leased_by, lease)
