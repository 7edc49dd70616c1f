"""What members believe of what reaches them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from ledger_support import CHECKS, Chain, NatsServer, secrets_of

from bench.ledger.processes import free_ports
from ivr.ledger import node as nodes
from ivr.ledger.crypto import SodiumSecret
from ivr.ledger.nats import NatsTransport
from ivr.ledger.node import Identity, Node
from ivr.ledger.rules import Memory
from ivr.ledger.store import Store
from ivr.ledger.transport import Busy, HttpTransport, NotAuthentic, NotDelivered, pack, unpack
from ivr.ledger.wire import Genesis, Status


@pytest.fixture
def four() -> Chain:
    return Chain(secrets_of(4))


def said(four: Chain, sealed: bytes) -> str:
    with pytest.raises(NotAuthentic) as refused:
        unpack(sealed, "m0", four.genesis.chain, four.state.members.get, CHECKS)
    return str(refused.value)


def test_nothing_is_read_before_its_signature_was_checked(four: Chain) -> None:
    sealed = pack(four.secrets["m1"], four.genesis.chain, "m0", [b"nothing that could be read"])
    assert "no envelope" in said(four, sealed)
    assert said(four, b"0" * 128 + sealed[128:]) == "not signed by its sender"


def test_an_envelope_has_one_sender_and_one_receiver(four: Chain) -> None:
    good = pack(four.secrets["m1"], four.genesis.chain, "m0", [Status(height=1).model_dump_json().encode()])
    assert unpack(good, "m0", four.genesis.chain, four.state.members.get, CHECKS).sender == "m1"
    as_another = pack(four.secrets["m1"], four.genesis.chain, "m0", [b'],"sender":"m2","messages":['])
    assert said(four, as_another) == "an envelope of two senders"
    assert "not for this one" in said(four, pack(four.secrets["m1"], four.genesis.chain, "m2", []))
    assert said(four, b"") == "no envelope"


@pytest.mark.parametrize("host", ["a..b", "a" * 190, "127.0.0.1:99999", "["])
def test_a_url_that_is_none_is_a_member_that_is_not_reached(four: Chain, host: str) -> None:
    member = four.state.members["m1"].replaced(url=f"http://{host}")

    async def send() -> None:
        transport = HttpTransport()
        await transport.start(deliver=_nothing)
        try:
            await transport.send(member, b"x")
        finally:
            await transport.stop()

    with pytest.raises(NotDelivered):
        asyncio.run(send())


async def _nothing(sealed: bytes) -> bytes:
    return b""


def test_a_member_cannot_send_another_elsewhere(four: Chain) -> None:
    [port] = free_ports(1)
    reached: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        reached.append(request.path)
        raise web.HTTPTemporaryRedirect("/inside")

    async def send() -> None:
        app = web.Application()
        app.add_routes([web.post("/{any:.*}", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        transport = HttpTransport()
        await transport.start(deliver=_nothing)
        try:
            await transport.send(four.state.members["m1"].replaced(url=f"http://127.0.0.1:{port}"), b"x")
        finally:
            await transport.stop()
            await runner.cleanup()

    with pytest.raises(NotDelivered):
        asyncio.run(send())
    assert reached == ["/messages"]


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[tuple[Node, list[SodiumSecret]]]:
    """A node of four whose loop does not run, and the secrets of all."""
    identity = Identity.fresh("m0")
    secrets = [identity.secret, *secrets_of(4)[1:]]
    genesis = Genesis(consortium="test", members=tuple(s.member(f"http://{s.name}.example") for s in secrets))
    store = Store(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", genesis)
    store.commit(Memory(height=1))
    yield Node(identity, genesis, store, HttpTransport(), patience_s=1.0), secrets
    store.close()


def test_who_floods_a_node_leaves_room_for_the_others(idle: tuple[Node, list[SodiumSecret]]) -> None:
    node, (_, flooder, other, _) = idle

    async def flood() -> None:
        body = Status(height=1).model_dump_json().encode()
        sealed = pack(flooder, node.genesis.chain, "m0", [body])
        for _ in range(nodes.MOST_INBOX // 4):
            await node.deliver(sealed)
        with pytest.raises(Busy):
            await node.deliver(sealed)
        assert await node.deliver(pack(other, node.genesis.chain, "m0", [body]))

    asyncio.run(flood())


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop()


async def _sent(transport: NatsTransport, four: Chain, patience_s: float = 60.0) -> bytes:
    """The receipt of m1, once it is reached."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return await transport.send(four.state.members["m1"], b"x")
        except NotDelivered:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def _receipt(sealed: bytes) -> bytes:
    return b"receipt of " + sealed


@pytest.mark.parametrize("with_disk", [True, False])
def test_members_hear_each_other_again_once_nats_was_away(
    four: Chain, nats_server: NatsServer, with_disk: bool
) -> None:
    async def run() -> None:
        first, second = (NatsTransport(nats_server.url, four.genesis.chain, name) for name in ("m0", "m1"))
        for transport in (first, second):
            await transport.start(_receipt)
        try:
            assert await _sent(first, four) == b"receipt of x"
            nats_server.stop()
            if not with_disk:
                shutil.rmtree(nats_server.folder / "kept")
            nats_server.start()
            assert await _sent(first, four) == b"receipt of x"
        finally:
            await first.stop()
            await second.stop()

    asyncio.run(run())


def test_a_member_that_is_not_reached_over_nats_leaves_nothing_behind(four: Chain, nats_server: NatsServer) -> None:
    async def run() -> None:
        transport = NatsTransport(nats_server.url, four.genesis.chain, "m0")
        await transport.start(_receipt)
        assert transport._client is not None
        before = len(transport._client._subs)
        try:
            with pytest.raises(NotDelivered):
                await transport.send(four.state.members["m1"], b"x")
            with pytest.raises(NotDelivered):
                await transport.send(four.state.members["m1"], b"x")
            # But for the one inbox on which the client itself is answered.
            assert len(transport._client._subs) <= before + 1
        finally:
            await transport.stop()

    asyncio.run(run())
