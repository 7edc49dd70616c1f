"""The index of pending debits, in a real Redis: what each notice finds, and what a lost Redis does to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import redis

from ivr.keys import Keyring
from ivr.payments.pending import CLAIM_MS, Debit, Pending, PendingDebits, Verdict

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)
DEBIT = Debit("City Water", "tok_1", 4210, "USD", "auth_1")
UNNAMED = replace(DEBIT, reference=None)


@pytest.fixture
def index(redis_client: redis.Redis, keyring: Keyring) -> PendingDebits:
    """One debit pending, and everything that is pending known."""
    index = PendingDebits(redis_client, keyring)
    assert index.rebuild([[Pending("pay_1", DEBIT, LATER)]])
    return index


@pytest.mark.parametrize(
    ("notice", "verdict", "payment"),
    [
        (DEBIT, Verdict.FOUND, "pay_1"),
        (UNNAMED, Verdict.FOUND, "pay_1"),
        (replace(DEBIT, amount_minor=4211), Verdict.OTHER_AMOUNT, "pay_1"),
        (replace(UNNAMED, amount_minor=4211), Verdict.OTHER_AMOUNT, None),
        (replace(DEBIT, reference="auth_2"), Verdict.NO_SUCH_PAYMENT, None),
        (replace(DEBIT, currency="EUR"), Verdict.NO_SUCH_PAYMENT, None),
        (replace(DEBIT, merchant="City Gas"), Verdict.NO_SUCH_PAYMENT, None),
        (replace(DEBIT, card_token="tok_2"), Verdict.NO_SUCH_PAYMENT, None),
        (replace(UNNAMED, card_token="tok_2"), Verdict.NO_SUCH_PAYMENT, None),
    ],
)
def test_a_notice_finds_the_debit_that_agrees_in_everything(
    index: PendingDebits, notice: Debit, verdict: Verdict, payment: str | None
) -> None:
    assert index.match("n1", notice, NOW) == (verdict, payment)


@pytest.mark.parametrize("notice", [DEBIT, UNNAMED])
def test_what_was_confirmed_is_not_found_again(index: PendingDebits, notice: Debit) -> None:
    assert index.match("n1", notice, NOW) == (Verdict.FOUND, "pay_1")
    index.confirmed("n1", "auth_1")
    assert index.match("n2", notice, NOW) == (Verdict.ALREADY_CONFIRMED, "pay_1")
    index.put(Pending("pay_1", DEBIT, LATER), NOW)  # by a worker, or a rebuild, that read before
    assert index.match("n3", notice, NOW) == (Verdict.ALREADY_CONFIRMED, "pay_1")
    index.drop(DEBIT)
    assert index.match("n4", notice, NOW) == (Verdict.ALREADY_CONFIRMED, "pay_1")


@pytest.mark.parametrize("notice", [DEBIT, UNNAMED])
def test_what_the_bank_holds_no_longer_is_expired(index: PendingDebits, notice: Debit) -> None:
    assert index.match("n1", notice, LATER) == (Verdict.EXPIRED, "pay_1")
    assert index.match("n2", notice, LATER) == (Verdict.EXPIRED, "pay_1")


def test_what_was_dropped_is_not_found(index: PendingDebits, redis_client: redis.Redis) -> None:
    index.drop(DEBIT)
    index.drop(DEBIT)
    assert index.match("n1", DEBIT, NOW) == (Verdict.NO_SUCH_PAYMENT, None)
    assert len(redis_client.keys()) == 1  # that it is whole


def test_without_a_reference_two_that_agree_are_told_apart_by_nothing(index: PendingDebits) -> None:
    second = replace(DEBIT, reference="auth_2")
    index.put(Pending("pay_2", second, LATER), NOW)
    assert index.match("n1", UNNAMED, NOW) == (Verdict.TWO_CANDIDATES, None)
    assert index.match("n2", second, NOW) == (Verdict.FOUND, "pay_2")
    assert index.match("n3", UNNAMED, NOW) == (Verdict.FOUND, "pay_1")  # the other is being answered
    assert index.match("n3", UNNAMED, NOW) == (Verdict.FOUND, "pay_1")  # and stays this notice's


def test_what_is_over_hides_nothing_however_much_it_is(index: PendingDebits) -> None:
    for i in range(200):
        reference = f"over_{i}"
        index.put(Pending(f"over_{i}", replace(DEBIT, reference=reference), LATER), NOW)
        if i % 2:
            index.match(f"n{i}", replace(DEBIT, reference=reference), NOW)
            index.confirmed(f"n{i}", reference)
        else:
            index.put(Pending(f"over_{i}", replace(DEBIT, reference=reference), NOW), NOW)
    found = {index.match("n", UNNAMED, NOW) for _ in range(3)}  # what expired is put aside on the way
    assert (Verdict.FOUND, "pay_1") in found


def test_a_claim_lapses_but_the_notice_that_has_it_keeps_finding(index: PendingDebits) -> None:
    assert index.match("n1", UNNAMED, NOW) == (Verdict.FOUND, "pay_1")
    # The database decides between two notices of one debit: the process that answered the first may have died.
    assert index.match("n2", UNNAMED, NOW) == (Verdict.FOUND, "pay_1")
    afterwards = NOW + timedelta(milliseconds=CLAIM_MS + 1)
    assert index.match("n2", UNNAMED, afterwards) == (Verdict.FOUND, "pay_1")
    index.put(Pending("pay_2", replace(DEBIT, reference="auth_2"), LATER), NOW)
    assert index.match("n1", UNNAMED, afterwards) == (Verdict.FOUND, "pay_2")


def test_a_posted_part_replaces_the_whole(index: PendingDebits) -> None:
    index.put(Pending("pay_1", replace(DEBIT, amount_minor=1000), LATER), NOW)
    assert index.match("n1", UNNAMED, NOW)[0] is Verdict.OTHER_AMOUNT
    assert index.match("n2", replace(DEBIT, amount_minor=1000), NOW) == (Verdict.FOUND, "pay_1")


@pytest.mark.parametrize("notice", [UNNAMED, replace(DEBIT, reference="auth_2")])
def test_an_index_that_is_not_whole_refuses_nothing_that_may_be_pending(
    index: PendingDebits, redis_client: redis.Redis, notice: Debit
) -> None:
    redis_client.flushall()
    assert not index.is_whole()
    index.put(Pending("pay_1", DEBIT, LATER), NOW)
    assert index.match("n1", notice, NOW) == (Verdict.REBUILDING, None)
    assert index.match("n2", DEBIT, NOW) == (Verdict.FOUND, "pay_1")  # its reference says that it is the one


def test_a_rebuild_that_loses_redis_on_the_way_does_not_count(index: PendingDebits, redis_client: redis.Redis) -> None:
    def pages() -> Iterator[list[Pending]]:
        yield [Pending("pay_1", DEBIT, LATER)]
        redis_client.flushall()
        yield [Pending("pay_2", replace(DEBIT, reference="auth_2"), LATER)]

    assert not index.rebuild(pages())
    assert not index.is_whole()
    assert index.rebuild([[Pending("pay_1", DEBIT, LATER)]])
    assert index.is_whole()


def test_one_process_rebuilds_at_a_time(index: PendingDebits, redis_client: redis.Redis) -> None:
    def pages() -> Iterator[list[Pending]]:
        assert not index.rebuild([])
        yield []

    redis_client.flushall()
    assert index.rebuild(pages())


def test_keys_tell_nothing_and_go_by_themselves(index: PendingDebits, redis_client: redis.Redis) -> None:
    index.match("n1", DEBIT, NOW)
    for key in redis_client.scan_iter():
        assert key.startswith(b"{pending}:")
        if not key.endswith(b":whole"):
            assert 0 < redis_client.ttl(key) < 26 * 3600
        for part in ("tok_1", "City Water", "auth_1"):
            content = redis_client.dump(key)
            assert content is not None
            assert part.encode() not in key + content


def test_twenty_at_once_with_different_notices_find_one_debit(index: PendingDebits) -> None:
    with ThreadPoolExecutor(20) as pool:
        found = set(pool.map(lambda i: index.match(f"n{i}", UNNAMED, NOW), range(20)))
    assert found == {(Verdict.FOUND, "pay_1")}
