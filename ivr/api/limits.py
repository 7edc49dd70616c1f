"""How many requests a key may make: so many in each window of time, counted in Redis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import redis

WINDOW_S = 10

# One key, one script: it may be run twice on a broken connection, which then counts one request twice.
_COUNT = """
local n = redis.call('INCRBY', KEYS[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {n, redis.call('PTTL', KEYS[1])}
"""


@dataclass(frozen=True)
class Counted:
    """Requests left in this window, and the seconds until the next one."""

    left: int
    reset_s: int

    @property
    def too_many(self) -> bool:
        return self.left < 0


class RateLimit:
    """Shared by the processes of a service."""

    def __init__(self, client: redis.Redis, per_minute: int) -> None:
        self._count = client.register_script(_COUNT)
        self.most = max(1, per_minute * WINDOW_S // 60)

    def count(self, whose: str, requests: int = 1) -> Counted:
        made, left_ms = self._count(keys=[f"api:rate:{{{whose}}}"], args=[WINDOW_S * 1000, requests])
        return Counted(self.most - int(made), math.ceil(int(left_ms) / 1000))
