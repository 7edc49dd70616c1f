"""Steps of calls to a page that is open, as server-sent events.

A stream lives for 25 s, then the browser opens the next, which goes on where this one ended: so a thread is freed
soon after its browser went, a process that stops waits for none longer than for its calls, and who was signed out
sees no more. A process serves a few at a time: the rest of its threads are for calls.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import redis
from flask import Response, abort, request
from redis.exceptions import RedisError

from ivr.call import steps
from ivr.console.operators.desk import blueprint, desk

LIFE_S, WAIT_MS, RETRY_MS = 25.0, 2_000, 1_000
MOST_STREAMS = 8  # a process
_ID = re.compile(r"0(?:-0)?|\d{1,16}-\d{1,20}", re.ASCII)


@blueprint.get("/events")
def events() -> Response:
    after = request.headers.get("Last-Event-ID") or request.args.get("after", "")
    if not _ID.fullmatch(after):
        abort(400)
    slots = desk().streams
    if not slots.acquire(blocking=False):
        abort(503)
    response = Response(_stream(desk().services.calls.redis, after), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx
    response.call_on_close(slots.release)
    return response


def _stream(client: redis.Redis, after: str) -> Iterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    ends = time.monotonic() + LIFE_S
    while time.monotonic() < ends:
        try:
            found = steps.since(client, after, WAIT_MS)
        except RedisError:
            return  # the browser comes again
        for step in found:
            told = {"sid": step.sid, "step": step.step, "state": step.state, "at": step.at.isoformat()}
            yield f"id: {step.id}\nevent: step\ndata: {json.dumps(told)}\n\n"
            after = step.id
        yield ":\n\n"  # how it is noticed that the browser has gone
