"""The call between two requests: its state in Redis, one hash a call, shared by every worker process.

Step n is what we answered n-th. A request that ends step n either moves the call on to step n + 1, once, or finds
that it was moved on already and gets the first answer again; a Lua script decides which.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

import redis
from pydantic import TypeAdapter

from ivr.call.flow import Call, Event, State
from ivr.call.prompts import Line
from ivr.keys import Keyring
from voiceprint.sealing import open_sealed, seal

CALL_TTL_S = 3600
VOICE_TTL_S = 900  # embeddings between turns

# Names of what is kept between turns.
CODE, SPOKEN_FIRST, VOICEPRINT, NEW_PIN = "enrolment-code", "spoken-first", "new-voiceprint", "new-pin"
STRINGS = ("string-1", "string-2", "string-3")
CARD = "card"  # spoken by somebody who enrols
PRINTS = {name: f"{name}-print" for name in (CARD, *STRINGS)}  # fingerprints of what was said
KEPT = (CODE, SPOKEN_FIRST, VOICEPRINT, NEW_PIN, *STRINGS, *PRINTS.values())

# KEYS: the call's hash. ARGV: step expected, new step, call, answer, ttl. 1: moved on; 0: somebody was there before.
_MOVE = """
local at = redis.call('HGET', KEYS[1], 'step')
if (at or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'step', ARGV[2], 'call', ARGV[3], 'answer:' .. ARGV[2], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

# KEYS: a counter. ARGV: limit, window in seconds. 1 while the counter stays within the limit.
_WITHIN = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count <= tonumber(ARGV[1]) and 1 or 0
"""


@dataclass(frozen=True)
class Answer:
    """What we told the carrier at one step, as data: the edge turns it into the carrier's language."""

    step: int
    state: State
    lines: tuple[Line, ...]
    then: str  # "listen", "hold", "transfer", "hang_up"
    locale: str


@dataclass(frozen=True)
class Outcome:
    """What a turn came to, and the call with what was learnt in it."""

    event: Event
    call: Call


_CALL, _ANSWER, _OUTCOME = TypeAdapter(Call), TypeAdapter(Answer), TypeAdapter(Outcome)


class CallStore:
    """Calls in progress."""

    def __init__(self, client: redis.Redis, keyring: Keyring) -> None:
        self._redis = client
        self._keyring = keyring
        self._move = client.register_script(_MOVE)
        self._within = client.register_script(_WITHIN)

    @property
    def redis(self) -> redis.Redis:
        """The connections, for others who count or tell things there."""
        return self._redis

    def load(self, sid: str) -> tuple[int, Call] | None:
        """The step that a call is at, and the call; None when there is none."""
        step, call = self._redis.hmget(_key(sid), "step", "call")
        return (int(step), _CALL.validate_json(call)) if step and call else None

    def answer(self, sid: str, step: int) -> Answer | None:
        """What was answered at a step."""
        answer = self._redis.hget(_key(sid), f"answer:{step}")
        return _ANSWER.validate_json(answer) if answer else None

    def move(self, before: int, call: Call, answer: Answer) -> bool:
        """Move a call from step ``before`` to the answer's step; False when another request did so first."""
        after = (answer.step, _CALL.dump_json(call), _ANSWER.dump_json(answer))
        return bool(self._move(keys=[_key(call.sid)], args=[before, *after, CALL_TTL_S]))

    def put_outcome(self, step: int, outcome: Outcome) -> bool:
        """Keep what a listening turn came to; the first one counts."""
        first = self._redis.hsetnx(_key(outcome.call.sid), f"outcome:{step}", _OUTCOME.dump_json(outcome))
        self._redis.expire(_key(outcome.call.sid), CALL_TTL_S)
        return bool(first)

    def outcome(self, sid: str, step: int) -> Outcome | None:
        """What the listening turn of a step came to."""
        outcome = self._redis.hget(_key(sid), f"outcome:{step}")
        return _OUTCOME.validate_json(outcome) if outcome else None

    def end(self, sid: str) -> None:
        """The call is over: forget the voices heard in it. Its answers stay for late repeats, until they expire."""
        self._redis.delete(*(_kept_key(sid, name) for name in KEPT))

    # One stream a listening turn.

    def stream_token(self, sid: str, step: int) -> str:
        """What the stream of this step must present: nobody who lacks our key can make it."""
        return hmac.new(self._call_key(sid), f"stream:{step}".encode(), hashlib.sha256).hexdigest()

    def open_stream(self, sid: str, step: int, token: str) -> bool:
        """Whether ``token`` opens the stream of the step that the call is at; it does so once."""
        at = self.load(sid)
        if at is None or at[0] != step:
            return False
        if not hmac.compare_digest(token.encode(), self.stream_token(sid, step).encode()):
            return False
        # By name, for on a connection that broke the same is asked again, and then it was this stream that opened it.
        name = secrets.token_bytes(8)
        key, field = _key(sid), f"stream:{step}"
        return bool(self._redis.hsetnx(key, field, name)) or self._redis.hget(key, field) == name

    def stream_opened(self, sid: str, step: int) -> bool:
        """Whether the stream of a step was ever opened."""
        return bool(self._redis.hexists(_key(sid), f"stream:{step}"))

    # What must outlive a turn but nobody may read.

    def keep(self, sid: str, name: str, secret: bytes) -> None:
        """Keep an embedding or a keyed code until a later turn of this call, sealed under this call's key."""
        sealed = seal(self._call_key(sid), "call", secret, f"{sid}:{name}".encode())
        self._redis.set(_kept_key(sid, name), sealed, ex=VOICE_TTL_S)

    def kept(self, sid: str, name: str) -> bytes | None:
        """What :meth:`keep` kept; None when it expired."""
        sealed = self._redis.get(_kept_key(sid, name))
        if not isinstance(sealed, bytes):
            return None
        return open_sealed({"call": self._call_key(sid)}, sealed, f"{sid}:{name}".encode())

    def within(self, name: str, limit: int, window_s: int) -> bool:
        """Count one more ``name``; whether no more than ``limit`` came within ``window_s`` seconds."""
        return bool(self._within(keys=[f"limit:{{{name}}}"], args=[limit, window_s]))

    def _call_key(self, sid: str) -> bytes:
        _, key = self._keyring.active("session")
        return hmac.new(key, sid.encode(), hashlib.sha256).digest()


def _key(sid: str) -> str:
    return f"call:{{{sid}}}"


def _kept_key(sid: str, name: str) -> str:
    return f"call:{{{sid}}}:kept:{name}"
