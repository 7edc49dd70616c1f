"""Real nodes, each a process with a store of its own, and the commands of the institutions that run them."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner, Result
from ledger_support import NatsServer
from sqlalchemy import event

from bench.ledger.processes import READY_S, RealMember, begin, found, free_ports, running, until
from ivr.ledger.node import Identity, Node, load_genesis
from ivr.ledger.store import Store
from ivr.ledger.transport import HttpTransport
from ivr.ledger.web import MOST_WAITING, create_app
from ivr.ledger.wire import Final, Genesis
from ivr.ops.cli import main


def ledger(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ledger", *map(str, arguments)])


def entries(*names: str) -> list[dict[str, str]]:
    return [{"kind": "payment", "id": name, "commitment": "ab" * 32} for name in names]


def recorded(member: RealMember) -> set[str]:
    """The ids of the payments on a member's chain."""
    height = member.status()["height"]
    urls = [f"{member.url}/blocks/{h}.json" for h in range(1, height + 1)]
    blocks = [Final.model_validate_json(member.http.get(url, timeout=5).content) for url in urls]
    return {getattr(record, "id", "") for final in blocks for record in final.block.records}


def shown(members: list[RealMember], *names: str) -> None:
    """Wait until these are final at all of these members."""
    for member in members:
        until(f"{names} final at {member.name}", lambda member=member: set(names) <= recorded(member))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RealMember]]:
    members = found(tmp_path_factory.mktemp("ledger"), 4, extra=["--patience", "1"])
    with running(members):
        yield members


def test_what_one_institution_submits_is_final_at_all_and_the_chain_is_right(four: list[RealMember]) -> None:
    assert four[0].submit(entries("a1", "a2"))
    assert four[3].submit(entries("a3"))
    shown(four, "a1", "a2", "a3")
    for member in (four[0], four[2]):
        checked = ledger("verify", "--data", member.folder)
        assert checked.exit_code == 0, checked.output
    assert ledger("verify", "--url", four[1].url, "--data", four[0].folder).exit_code == 0
    assert four[0].submit(entries("a1"))  # again: no second record
    hashes = {member.status()["hash"] for member in four}
    assert len(hashes) == 1


def test_a_killed_member_stops_nobody_and_catches_up(four: list[RealMember]) -> None:
    four[1].kill()
    assert four[0].submit(entries("b1"))
    shown([four[0], four[2], four[3]], "b1")
    four[1].start()
    shown(four, "b1")


def test_all_killed_at_once_lose_nothing_that_was_final(four: list[RealMember]) -> None:
    assert four[0].submit(entries("c1"))
    shown(four, "c1")
    for member in four:
        member.kill()
    for member in four:
        member.start()
    shown(four, "a1", "b1", "c1")
    assert until("taken", lambda: four[2].submit(entries("c2")))
    shown(four, "c2")


def test_a_member_that_lost_its_disk_takes_part_again_only_after_two_more_blocks(four: list[RealMember]) -> None:
    lost = four[3]
    lost.kill()
    for file in lost.folder.glob("ledger.sqlite3*"):
        file.unlink()
    lost.start()
    until("answers", lost.status)
    before = four[0].status()["height"]
    assert four[0].submit(entries("d1"))
    shown(four, "d1")
    assert not lost.status()["takes_part"]
    for n in range(2, 9):
        assert four[0].submit(entries(f"d{n}"))
        shown(four, f"d{n}")
    until("takes part", lambda: lost.status()["takes_part"])
    assert lost.status()["height"] >= before + 3


def test_a_member_that_is_cut_off_lags_and_catches_up(four: list[RealMember]) -> None:
    four[2].signal(signal.SIGSTOP)
    assert four[0].submit(entries("e1"))
    shown([four[0], four[1], four[3]], "e1")
    four[2].signal(signal.SIGCONT)
    shown(four, "e1")


def test_strangers_messages_and_records_without_the_token_are_refused(four: list[RealMember]) -> None:
    url = four[0].url
    assert requests.post(f"{url}/messages", data=b"x" * 200, timeout=5).status_code == 401
    envelope = b'{"sender":"m01","to":"m00","messages":[{"type":"status","height":1}]}'
    assert requests.post(f"{url}/messages", data=b"0" * 128 + envelope, timeout=5).status_code == 401
    assert requests.post(f"{url}/entries", json={"entries": entries("x")}, timeout=5).status_code == 401
    bad = requests.post(
        f"{url}/entries",
        json={"entries": [{"kind": "payment", "id": "4111 1111 1111 1111", "commitment": "ab" * 32}]},
        headers={"Authorization": f"Bearer {four[0].token}"},
        timeout=5,
    )
    assert bad.status_code == 422
    assert "4111" not in bad.text


def test_one_node_at_a_time_uses_a_members_store(four: list[RealMember]) -> None:
    second = ledger("node", "--data", four[0].folder, "--port", free_ports(1)[0])
    assert (second.exit_code, "a node is running" in second.output) == (2, True), second.output


def test_pages_show_members_holders_and_a_blocks_contents(four: list[RealMember]) -> None:
    assert four[0].submit(entries("f1"))
    shown(four, "f1")
    page = requests.get(four[0].url, timeout=5)
    assert page.ok
    for member in four:
        assert member.name in page.text
    heights = range(1, four[0].status()["height"] + 1)
    pages = [requests.get(f"{four[0].url}/blocks/{height}", timeout=5).text for height in heights]
    assert any("f1" in text and "held the right in term" in text for text in pages)
    assert requests.get(f"{four[0].url}/blocks/999999", timeout=5).status_code == 404


def test_blocks_go_on_while_a_crowd_asks_for_pages(four: list[RealMember]) -> None:
    asked, over = four[0], threading.Event()
    answers: list[int] = []

    def ask(path: str) -> None:
        with requests.Session() as http:
            while not over.is_set():
                answers.append(http.get(f"{asked.url}{path}", timeout=READY_S).status_code)

    with ThreadPoolExecutor(8) as crowd:
        asking = [crowd.submit(ask, path) for path in ("/", "/blocks/1", "/blocks/1.json", "/checkpoint") * 2]
        try:
            until("a crowd", lambda: len(answers) > 40)
            for n in range(5):
                assert asked.submit(entries(f"crowd{n}"))
                shown(four[1:], f"crowd{n}")
            height = four[1].status()["height"]
            until("the asked one keeps up", lambda: asked.status()["height"] >= height)
        finally:
            over.set()
    for each in asking:
        each.result()
    assert set(answers) == {200}


def test_who_waits_for_the_store_keeps_no_other_waiting_and_a_crowd_is_told_to_come_later(tmp_path: Path) -> None:
    identity = Identity.fresh("m0")
    genesis = Genesis(consortium="test", members=(identity.secret.member("http://m0.example"),))
    store, go_on = Store(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", genesis), threading.Event()
    node = Node(identity, genesis, store, HttpTransport(), patience_s=1)
    event.listen(store.database.engine, "begin", lambda _: go_on.wait(READY_S) or go_on.set())

    async def ask() -> None:
        async with TestClient(TestServer(create_app(node))) as client:
            pages = [asyncio.create_task(client.get("/")) for _ in range(MOST_WAITING + 1)]
            [refused], waiting = await asyncio.wait(pages, return_when=asyncio.FIRST_COMPLETED)
            assert (refused.result().status, refused.result().headers.get("Retry-After")) == (503, "1")
            own = {"Authorization": f"Bearer {identity.token}"}
            proofs = asyncio.create_task(client.post("/proofs", json={"keys": ["payment:m0:a"]}, headers=own))
            assert (await client.get("/status")).status == 200
            go_on.set()
            assert [(await asked).status for asked in (*waiting, proofs)] == [200] * (MOST_WAITING + 1)

    asyncio.run(ask())
    store.close()


def test_a_member_joins_by_a_change_that_a_quorum_signed_and_catches_up(four: list[RealMember], tmp_path: Path) -> None:
    [port] = free_ports(1)
    joiner = RealMember("m09", port, tmp_path / "m09")
    made = ledger("keygen", "m09", "--url", joiner.url, "--data", joiner.folder)
    assert made.exit_code == 0, made.output
    assert ledger("keygen", "m09", "--url", joiner.url, "--data", joiner.folder).exit_code == 2
    (tmp_path / "public.json").write_text(made.output)
    joiner.token = json.loads((joiner.folder / "member.json").read_text())["token"]
    assert ledger("init", four[0].folder / "genesis.json", "--data", joiner.folder).exit_code == 0
    change = tmp_path / "change.json"
    change.write_text(ledger("member", "propose", "--join", tmp_path / "public.json", "--url", four[0].url).output)
    for member in four[:2]:
        change.write_text(ledger("member", "approve", change, "--data", member.folder).output)
    submit = ("member", "submit", change, "--url", four[0].url, "--data", four[0].folder)
    refused = ledger(*submit)
    assert (refused.exit_code, "quorum" in refused.output) == (1, True)
    change.write_text(ledger("member", "approve", change, "--data", four[2].folder).output)
    assert ledger(*submit).exit_code == 0
    joiner.start()
    try:
        for n in range(3):
            assert four[0].submit(entries(f"g{n}"))
            shown([*four, joiner], f"g{n}")
        until("takes part", lambda: joiner.status()["takes_part"])
        assert joiner.submit(entries("g9"))
        shown(four, "g9")
    finally:
        joiner.kill()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RealMember]:
    [member] = found(tmp_path, 1)
    with running([member]):
        yield member


def test_one_institution_keeps_the_chain_alone_with_checkpoints(alone: RealMember, tmp_path: Path) -> None:
    assert alone.submit(entries("a"))
    shown([alone], "a")
    point = tmp_path / "checkpoint.json"
    point.write_text(ledger("checkpoint", "--url", alone.url).output)
    assert alone.submit(entries("b"))
    shown([alone], "b")
    good = ledger("verify", "--data", alone.folder, "--checkpoint", point)
    assert good.exit_code == 0, good.output

    signatures = json.loads(point.read_text())["certificate"]["signatures"]
    fake = tmp_path / "fake.json"
    fake.write_text(point.read_text().replace(signatures[0][1], "0" * 128))
    for both in ((point, fake), (fake, point)):  # each that is given counts, though both are of one height
        arguments = [argument for path in both for argument in ("--checkpoint", path)]
        assert ledger("verify", "--data", alone.folder, *arguments).exit_code == 1

    # It writes its book anew, with another record: its own signatures are right, the published checkpoint is not.
    genesis: Genesis = load_genesis(alone.folder / "genesis.json")
    alone.kill()
    for file in alone.folder.glob("ledger.sqlite3*"):
        file.unlink()
    begin(alone.folder, genesis)
    alone.start()
    until("answers", alone.status)
    assert alone.submit(entries("other"))
    shown([alone], "other")
    assert ledger("verify", "--data", alone.folder).exit_code == 0
    caught = ledger("verify", "--data", alone.folder, "--checkpoint", point)
    assert (caught.exit_code, "checkpoint" in caught.output) == (1, True)


@pytest.mark.parametrize(
    "tamper",
    [
        'UPDATE ledger_blocks SET block = replace(block, \'"id":"b"\', \'"id":"z"\')',
        "UPDATE ledger_blocks SET block = replace(block, 'abab', 'acab')",
        "UPDATE ledger_blocks SET certificate = replace(certificate, '\"term\":0', '\"term\":1')",
        "DELETE FROM ledger_blocks WHERE height = 1; UPDATE ledger_blocks SET height = 1 WHERE height = 2",
    ],
)
def test_verify_finds_what_was_altered_in_the_store(alone: RealMember, tamper: str) -> None:
    for name in ("a", "b"):
        assert alone.submit(entries(name))
        shown([alone], name)
    alone.kill()
    connection = sqlite3.connect(alone.folder / "ledger.sqlite3")
    connection.executescript(tamper)
    connection.close()
    caught = ledger("verify", "--data", alone.folder)
    assert (caught.exit_code, "is wrong" in caught.output) == (1, True), caught.output


def test_a_snapshot_fills_an_empty_store_after_checking_it(alone: RealMember, tmp_path: Path) -> None:
    assert alone.submit(entries("a", "b"))
    shown([alone], "a", "b")
    file = tmp_path / "chain.gz"
    assert ledger("snapshot", file, "--data", alone.folder).exit_code == 0
    other = tmp_path / "other"
    other.mkdir()
    for name in ("member.json", "genesis.json"):
        (other / name).write_bytes((alone.folder / name).read_bytes())
    filled = ledger("restore", file, "--data", other)
    assert filled.exit_code == 0, filled.output
    assert ledger("verify", "--data", other).exit_code == 0
    file.write_bytes(file.read_bytes()[:-20])
    assert ledger("restore", file, "--data", tmp_path / "nowhere").exit_code == 2
    broken = ledger("restore", file, "--data", other)
    assert (broken.exit_code, "snapshot" in broken.output) == (1, True)


@pytest.fixture
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


def test_members_reach_each_other_over_nats(nats_server: NatsServer, tmp_path: Path) -> None:
    members = found(tmp_path, 4, extra=["--nats", nats_server.url])
    with running(members):
        assert members[0].submit(entries("n1"))
        shown(members, "n1")
        members[1].kill()
        assert members[2].submit(entries("n2"))
        shown([members[0], members[2], members[3]], "n2")
        members[1].start()
        shown(members, "n2")
