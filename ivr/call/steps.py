"""Which calls move, told to whoever watches: one bounded Redis stream of steps, with nothing personal in it.

A stream and not a channel: who lost the connection goes on where it broke, and who comes later sees what is live.
It is one key, so a Cluster serves it like any Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
import structlog
from redis.exceptions import RedisError

KEY = "steps"
KEPT = 10_000
ENDED = "ended"  # in place of a state: the carrier says that the call is over

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Step:
    """A call came to a state."""

    id: str  # in the stream
    sid: str
    step: int
    state: str
    at: datetime


def tell(client: redis.Redis, sid: str, step: int, state: str, now: datetime) -> None:
    """A call came to a state. Watching is no reason for a call to fail: what cannot be told is only logged."""
    fields: dict[str, str | int] = {"sid": sid, "step": step, "state": state, "at": now.isoformat()}
    try:
        client.xadd(KEY, fields, maxlen=KEPT, approximate=True)  # type: ignore[arg-type]
    except RedisError as error:
        log.warning("step not told", call=sid, reason=type(error).__name__)


def since(client: redis.Redis, after: str, wait_ms: int, most: int = 100) -> list[Step]:
    """What came after ``after``, an id or "$"; waits for something to come."""
    found: Any = client.xread({KEY: after}, count=most, block=wait_ms)
    return [_step(*entry) for _, entries in found or () for entry in entries]


def newest(client: redis.Redis) -> str:
    """The id after which comes what has not been told yet."""
    found: Any = client.xrevrange(KEY, count=1)
    return str(found[0][0].decode()) if found else "0"


def recent(client: redis.Redis, now: datetime, span: timedelta, most: int) -> list[Step]:
    """The last step of each call that moved within ``span``, newest first."""
    last: dict[str, Step] = {}
    for step in _backwards(client, now - span, most):
        if step.sid not in last:
            last[step.sid] = step
    return list(last.values())


def of_call(client: redis.Redis, sid: str, now: datetime, span: timedelta, most: int) -> list[Step]:
    """The steps of one call, oldest first."""
    return list(_backwards(client, now - span, most, sid))[::-1]


def _backwards(client: redis.Redis, since: datetime, most: int, sid: str | None = None) -> Iterator[Step]:
    found: Any = client.xrevrange(KEY, min=int(since.timestamp() * 1000), count=most)
    wanted = sid and sid.encode()
    for entry_id, fields in found:
        if wanted is None or fields[b"sid"] == wanted:
            yield _step(entry_id, fields)


def _step(entry_id: bytes, fields: dict[bytes, bytes]) -> Step:
    given = {name.decode(): value.decode() for name, value in fields.items()}
    at = datetime.fromisoformat(given["at"])
    return Step(entry_id.decode(), given["sid"], int(given["step"]), given["state"], at)
