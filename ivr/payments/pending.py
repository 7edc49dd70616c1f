"""Pending debits in Redis, found by what a bank's notice carries. An index only: the database confirms.

Each has an entry, a hash under the bank's reference, and a place in the index of its card at its merchant: a sorted
set scored by amount, negative once the debit is confirmed or expired, so that what is over never stands in the way
of what is not. Reference, card and merchant are keyed hashes. All keys share one hash tag, so that one script may
touch them on a Redis Cluster too, and both look-ups stay flat however many debits are pending.

Redis may lose all of it at any time. The key ``whole`` says that everything pending was put in since; while it is
missing, what is not found is not known to be missing, and a worker rebuilds the rest from the database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import redis

from ivr.keys import Keyring

CLAIM_MS = 10_000
"""How long a notice that found its debit keeps others away from it; by then the database knows, or its process died."""
CANDIDATES = 64
"""Of debits of one card, merchant and amount, looked at for a notice without a reference."""
KEPT_EXPIRED = timedelta(days=1)
KEPT_CONFIRMED = timedelta(hours=1)
"""How long the reason of a refusal is known here; afterwards there is no such payment."""
NEVER_EXPIRES = timedelta(days=30)
"""When a debit is forgotten whose bank does not say how long it holds the amount."""
BATCH = 100
"""Debits that one script puts in; notices wait meanwhile."""
BUILDING_MS = 30_000
"""How long a process that rebuilds may be silent before another begins."""

# KEYS: index of the card at the merchant, entry of the reference, whole.
# ARGV: notice, amount, now in ms, claim in ms, prefix of entries, digest of the reference ('' without one), CANDIDATES.
# Gives the verdict, and the payment where there is one. Entries found through the index have the same hash tag.
_MATCH = """
local index, amount, now = KEYS[1], ARGV[2], tonumber(ARGV[3])
local whole = redis.call('EXISTS', KEYS[3]) == 1

local function read(key)
  local f = redis.call('HMGET', key, 'payment', 'index', 'amount', 'expires', 'confirmed', 'notice', 'until')
  if not f[1] then return nil end
  return {key = key, payment = f[1], index = f[2], amount = f[3], expires = tonumber(f[4]),
          confirmed = f[5], notice = f[6], till = tonumber(f[7] or '0')}
end

local function found(entry)
  if not (entry.notice and entry.notice ~= ARGV[1] and entry.till > now) then
    redis.call('HSET', entry.key, 'notice', ARGV[1], 'until', now + tonumber(ARGV[4]))
  end
  return {'found', entry.payment}
end

if ARGV[6] ~= '' then
  local entry = read(KEYS[2])
  if not entry then return {whole and 'no_such_payment' or 'rebuilding'} end
  if entry.index ~= index then return {'no_such_payment'} end
  if entry.amount ~= amount then return {'other_amount', entry.payment} end
  if entry.confirmed then return {'already_confirmed', entry.payment} end
  if entry.expires <= now then return {'expired', entry.payment} end
  return found(entry)
end

if not whole then return {'rebuilding'} end
local live, taken = {}, nil
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, amount, amount, 'LIMIT', 0, tonumber(ARGV[7]))) do
  local entry = read(ARGV[5] .. member)
  if not entry then redis.call('ZREM', index, member)
  elseif entry.expires <= now then redis.call('ZADD', index, '-' .. amount, member)
  elseif entry.notice == ARGV[1] then return found(entry)
  elseif entry.notice and entry.till > now then taken = entry
  else live[#live + 1] = entry end
end
if #live == 1 then return found(live[1]) end
if #live > 1 then return {'two_candidates'} end
if taken then return found(taken) end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-' .. amount, '-' .. amount, 'LIMIT', 0, 1)) do
  local entry = read(ARGV[5] .. member)
  if entry then return {entry.confirmed and 'already_confirmed' or 'expired', entry.payment} end
  redis.call('ZREM', index, member)
end
return {redis.call('ZCOUNT', index, 1, '+inf') > 0 and 'other_amount' or 'no_such_payment'}
"""

# KEYS: entry and index of each debit. ARGV: now in ms; then of each debit payment, amount, expiry in ms, when to forget
# it in ms, digest of the reference. Many at once by one script, for a cluster takes no scripts in a pipeline.
_PUT = """
for i = 1, #KEYS / 2 do
  local entry, index = KEYS[2 * i - 1], KEYS[2 * i]
  local payment, amount, expires, forget, member = unpack(ARGV, 5 * i - 3, 5 * i + 1)
  if not redis.call('HGET', entry, 'confirmed') then
    redis.call('HSET', entry, 'payment', payment, 'index', index, 'amount', amount, 'expires', expires)
    redis.call('PEXPIREAT', entry, forget)
    redis.call('ZADD', index, amount, member)
    if redis.call('PTTL', index) < forget - ARGV[1] then redis.call('PEXPIREAT', index, forget) end
  end
end
"""

# KEYS: entry. ARGV: notice, how long to remember in ms, prefix of entries.
_CONFIRMED = """
local index, amount = unpack(redis.call('HMGET', KEYS[1], 'index', 'amount'))
if not index then return 0 end
redis.call('HSET', KEYS[1], 'confirmed', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', index, '-' .. amount, string.sub(KEYS[1], #ARGV[3] + 1))
return 1
"""

# KEYS: entry, index. ARGV: digest of the reference.
_DROP = """
if redis.call('HGET', KEYS[1], 'confirmed') then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""

# KEYS: index. ARGV: amount, prefix of entries, CANDIDATES. Gives the payments.
_CANDIDATES = """
local found = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[1], 'LIMIT', 0, tonumber(ARGV[3]))) do
  local payment = redis.call('HGET', ARGV[2] .. member, 'payment')
  if payment then found[#found + 1] = payment end
end
return found
"""

# KEYS: building, whole. ARGV: who builds. 1: nothing was lost meanwhile.
_BUILT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], '1')
return 1
"""


class Verdict(StrEnum):
    """What the index says to a notice."""

    FOUND = "found"
    NO_SUCH_PAYMENT = "no_such_payment"
    OTHER_AMOUNT = "other_amount"
    ALREADY_CONFIRMED = "already_confirmed"
    EXPIRED = "expired"
    TWO_CANDIDATES = "two_candidates"
    REBUILDING = "rebuilding"


@dataclass(frozen=True)
class Debit:
    """What is to be debited, in the words of the bank."""

    merchant: str
    card_token: str = field(repr=False)
    amount_minor: int
    currency: str
    reference: str | None


@dataclass(frozen=True)
class Pending:
    """A debit that may be confirmed until ``expires_at``."""

    payment_id: str
    debit: Debit
    expires_at: datetime | None


class PendingDebits:
    """The index. Its methods raise redis.RedisError, and bear being called twice."""

    def __init__(self, client: redis.Redis, keyring: Keyring) -> None:
        key_id, key = keyring.active("session")
        self._redis = client
        self._key = hmac.digest(key, b"pending debits", hashlib.sha256)
        self._prefix = f"{{pending}}:{key_id}:"  # a rotated key begins an index of its own
        self._entries = f"{self._prefix}r:"
        self._whole, self._building = f"{self._prefix}whole", f"{self._prefix}building"
        self._match, self._put = client.register_script(_MATCH), client.register_script(_PUT)
        self._confirmed, self._built = client.register_script(_CONFIRMED), client.register_script(_BUILT)
        self._drop, self._candidates = client.register_script(_DROP), client.register_script(_CANDIDATES)

    def match(self, notice_id: str, debit: Debit, now: datetime) -> tuple[Verdict, str | None]:
        """The verdict, and the id of the payment that it is about, if there is one. FOUND claims it for the notice."""
        member = self._member(debit)
        keys = [self._index(debit), self._entries + member, self._whole]
        limits: list[str | int] = [_ms(now), CLAIM_MS, self._entries, member, CANDIDATES]
        verdict, *payment = self._match(keys=keys, args=[notice_id, debit.amount_minor, *limits])
        return Verdict(verdict.decode()), payment[0].decode() if payment else None

    def put(self, pending: Pending, now: datetime) -> None:
        """Let the bank's notices find a debit. One that was confirmed stays so."""
        self._put_all([pending], now)

    def confirmed(self, notice_id: str, reference: str) -> None:
        """A notice's debit was confirmed, and that is in the database."""
        entry = self._entries + self._digest(reference)
        self._confirmed(keys=[entry], args=[notice_id, _duration_ms(KEPT_CONFIRMED), self._entries])

    def drop(self, debit: Debit) -> None:
        """The debit is pending no more: let no notice find it. That it was confirmed is remembered for a while."""
        member = self._member(debit)
        self._drop(keys=[self._entries + member, self._index(debit)], args=[member])

    def candidates(self, debit: Debit) -> list[str]:
        """The payments that a notice of this debit may mean if it names no reference; some may be over by now."""
        keys = [self._index(debit)]
        found = self._candidates(keys=keys, args=[debit.amount_minor, self._entries, CANDIDATES])
        return [payment.decode() for payment in found]

    def is_whole(self) -> bool:
        """Whether everything that is pending was put in since Redis was last empty."""
        return bool(self._redis.exists(self._whole))

    def rebuild(self, pages: Iterable[Sequence[Pending]]) -> bool:
        """Put in everything that is pending; False when another does so already, or Redis lost data meanwhile."""
        who = secrets.token_hex(8)
        if not self._redis.set(self._building, who, nx=True, px=BUILDING_MS):
            return False
        for page in pages:
            for start in range(0, len(page), BATCH):
                self._put_all(page[start : start + BATCH], datetime.now(UTC))
            self._redis.pexpire(self._building, BUILDING_MS)
        return bool(self._built(keys=[self._building, self._whole], args=[who]))

    def _put_all(self, page: Sequence[Pending], now: datetime) -> None:
        keys: list[str] = []
        args: list[str | int] = [_ms(now)]
        for pending in page:
            expires_at, member = pending.expires_at or now + NEVER_EXPIRES, self._member(pending.debit)
            keys += [self._entries + member, self._index(pending.debit)]
            times = [_ms(expires_at), _ms(expires_at + KEPT_EXPIRED)]
            args += [pending.payment_id, pending.debit.amount_minor, *times, member]
        self._put(keys=keys, args=args)

    def _index(self, debit: Debit) -> str:
        return f"{self._prefix}c:{self._digest(debit.merchant, debit.card_token, debit.currency)}"

    def _member(self, debit: Debit) -> str:
        return self._digest(debit.reference) if debit.reference is not None else ""

    def _digest(self, *values: str) -> str:
        return hmac.digest(self._key, json.dumps(values).encode(), hashlib.sha256).hex()[:32]


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _duration_ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
