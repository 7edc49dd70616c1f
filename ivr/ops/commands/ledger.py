"""``ivr ledger``: a member's node, the chain it keeps, and proofs of what is on it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import requests
from pydantic import ValidationError

from ivr import log
from ivr.clock import utc_now
from ivr.ledger import chain
from ivr.ledger import snapshot as snapshots
from ivr.ledger.chain import Invalid
from ivr.ledger.crypto import Sodium
from ivr.ledger.node import Identity, Node, Unusable, load_genesis, lock, write_private
from ivr.ledger.outbox import check_receipt, receipt_of, settlement_closed
from ivr.ledger.proof import Checkpoint, Proof, check, check_checkpoint
from ivr.ledger.rules import Memory
from ivr.ledger.store import Store
from ivr.ledger.transport import HttpTransport, Transport
from ivr.ledger.wire import Change, Final, Genesis, Member, Wire
from ivr.ops import desk
from ivr.payments.verify import settlement
from ivr.settings import settings

TIMEOUT_S = 10.0
_T = TypeVar("_T", bound=Wire)
_File = click.Path(exists=True, dir_okay=False, path_type=Path)
_F = Callable[..., None]


def _folder(function: _F) -> _F:
    return click.option(
        "--data",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=lambda: settings().data_dir / "ledger",
        help="The node's folder: member.json, genesis.json, and its store.",
    )(function)


def _database(function: _F) -> _F:
    return click.option("--database", metavar="URL", help="The node's own database; default: SQLite in its folder.")(
        function
    )


@click.group()
def command() -> None:
    """The consortium ledger: keys, genesis, node, membership, proofs. See docs/ledger.md."""


@command.command()
@click.argument("name")
@click.option("--url", required=True, help="Where other members will reach the node, as http(s)://host:port.")
@_folder
def keygen(name: str, url: str, folder: Path) -> None:
    """Make a member's keys; prints its public side, for the genesis file or for joining."""
    identity = Identity.fresh(name)
    member = _or_unusable(lambda: identity.secret.member(url.rstrip("/")))
    _or_unusable(lambda: write_private(folder / "member.json", identity.model_dump_json(indent=1)))
    click.echo(member.model_dump_json())


@command.command()
@click.argument("members", type=_File, nargs=-1, required=True)
@click.option("--consortium", required=True, help="What the members call what they have together.")
def genesis(members: tuple[Path, ...], consortium: str) -> None:
    """Print the genesis file of these members, one file of `keygen` each. All must use the same one."""
    made = _or_unusable(
        lambda: Genesis(consortium=consortium, members=tuple(_read(Member, path) for path in members))
    )
    _or_unusable(lambda: chain.start(made))
    click.echo(made.model_dump_json())


@command.command()
@click.argument("genesis_file", type=_File)
@_folder
@_database
def init(genesis_file: Path, folder: Path, database: str | None) -> None:
    """Begin with a key that has signed nothing yet. Never again with the same key: see "A lost disk"."""
    begun = _or_unusable(lambda: load_genesis(genesis_file))
    _or_unusable(lambda: Identity.load(folder))
    _or_unusable(lambda: write_private(folder / "genesis.json", begun.model_dump_json()))
    store = _or_unusable(lambda: Store(_url(folder, database), begun))
    if store.memory is None and store.state.height == 0:
        store.commit(Memory(height=1))
    store.close()
    click.echo(f"chain {begun.chain}")


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8410, show_default=True)
@click.option("--patience", "patience_s", default=1.0, show_default=True, help="Seconds before a holder is replaced.")
@click.option("--nats", metavar="URL", help="Reach members over this NATS JetStream, in place of HTTP.")
@_folder
@_database
def node(host: str, port: int, patience_s: float, nats: str | None, folder: Path, database: str | None) -> None:
    """Run this member's node. SIGTERM ends it; nothing is lost however it ends."""
    from aiohttp import web

    from ivr.ledger.web import create_app

    log.configure()
    identity = _or_unusable(lambda: Identity.load(folder))
    begun = _or_unusable(lambda: load_genesis(folder / "genesis.json"))
    held = _or_unusable(lambda: lock(folder))  # before the store is read: what it remembers is then the latest
    store = _or_unusable(lambda: Store(_url(folder, database), begun))
    if store.memory is None:
        click.echo("this store remembers nothing: the node signs nothing before it has caught up", err=True)

    async def serve() -> None:
        runs = Node(identity, begun, store, _transport(nats, begun, identity.name), patience_s=patience_s)
        runner = web.AppRunner(create_app(runs), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        click.echo(f"ledger node {identity.name} at http://{host}:{port}", err=True)
        running = asyncio.create_task(runs.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        with suppress(asyncio.CancelledError):
            await running
        await runner.cleanup()
        store.close()

    with held:
        asyncio.run(serve())


def _transport(nats: str | None, begun: Genesis, name: str) -> Transport:
    if nats is None:
        return HttpTransport()
    from ivr.ledger.nats import NatsTransport

    return NatsTransport(nats, begun.chain, name)


@command.command()
@click.option("--url", default="http://127.0.0.1:8410", show_default=True, help="Any member's node.")
def status(url: str) -> None:
    """Where the chain stands, as a node has it."""
    click.echo(json.dumps(_ask(f"{url}/status").json(), indent=1))


@command.command()
@click.option("--url", default="http://127.0.0.1:8410", show_default=True, help="Any member's node.")
def checkpoint(url: str) -> None:
    """Print how far the chain is, as a quorum signed: to be published where nobody can take it back."""
    click.echo(_ask(f"{url}/checkpoint").text)


@command.command()
@click.option("--url", help="Read the chain from this node; default: this node's own store.")
@click.option("--genesis", "genesis_file", type=_File, help="Default: the one in the node's folder.")
@click.option("--checkpoint", "checkpoints", type=_File, multiple=True, help="Published before: must be on the chain.")
@_folder
@_database
def verify(
    url: str | None, genesis_file: Path | None, checkpoints: tuple[Path, ...], folder: Path, database: str | None
) -> None:
    """Check a whole chain from genesis: every hash, signature, draw, record and quorum."""
    begun = _or_unusable(lambda: load_genesis(genesis_file or folder / "genesis.json"))
    checks, state = Sodium(), _or_unusable(lambda: chain.start(begun))
    published: dict[int, list[Checkpoint]] = {}
    for point in (_read(Checkpoint, path) for path in checkpoints):
        published.setdefault(point.certificate.height, []).append(point)
    seen: set[str] = set()
    records = 0
    for final in _from_node(url) if url else _from_store(_url(folder, database)):
        try:
            for given in published.pop(state.height + 1, ()):
                check_checkpoint(state, given, final.block.hash, checks)
            state = chain.check_final(state, final, checks, seen.intersection)
        except Invalid as error:
            raise click.ClickException(f"block {state.height + 1} is wrong: {error}") from None
        seen.update(record.key for record in final.block.records)
        records += len(final.block.records)
    if published:
        raise click.ClickException(f"the chain ends before the checkpoint at height {min(published)}")
    members = ", ".join(member.name for member in state.upcoming)
    click.echo(f"{state.height} blocks with {records} records are right; members now: {members}; last {state.hash}")


@command.command()
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
def settle(day: datetime) -> None:
    """Put the settlement of DAY (UTC), which must be over, on the ledger: a commitment to all its lines."""
    if day.date() >= utc_now().date():
        raise click.UsageError("that day is not over")
    with desk.transaction() as session:
        entry = settlement_closed(session, day.date(), settlement(session, day.date()), utc_now())
    click.echo(f"settlement of {entry.subject}: {entry.details['lines']} lines, sha256 {entry.details['sha256']}")


@command.command()
@click.argument("subject", metavar="PAYMENT|DAY")
def prove(subject: str) -> None:
    """Print the proof that a payment, or a day's settlement, is on the ledger, and what opens its commitments."""
    with desk.snapshot() as session:
        found = receipt_of(session, subject)
    if not found:
        raise click.ClickException(f"{subject!r} has no receipt of the ledger (yet)")
    click.echo(json.dumps(found, indent=1))


@command.command(name="check")
@click.argument("proof_file", type=_File)
@click.option("--genesis", "genesis_file", type=_File, required=True, help="The consortium's genesis file.")
def check_(proof_file: Path, genesis_file: Path) -> None:
    """Check a proof of `prove`, offline: nothing but the genesis file is believed."""
    begun = _or_unusable(lambda: load_genesis(genesis_file))
    try:
        receipts = json.loads(proof_file.read_text())
        for each in receipts:
            record = check(Proof.model_validate_json(json.dumps(each["proof"])), begun, Sodium())
            check_receipt(each, record)
            header = each["proof"]["inclusion"]["header"]
            told = json.dumps(each["details"])  # in one line, whatever is in it
            click.echo(f"{record.key} is in block {header['height']}: {told}")
    except (Invalid, ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        unreadable = f"not a proof of `ivr ledger prove`: {type(error).__name__}"
        raise click.ClickException(str(error) if isinstance(error, Invalid) else unreadable) from None
    if not receipts:
        raise click.ClickException("there is nothing in it")


@command.group()
def member() -> None:
    """Members join and leave by a change that a quorum of the members signs."""


@member.command(name="propose")
@click.option("--join", "joining", type=_File, help="The public side that the new member's `keygen` printed.")
@click.option("--leave", help="The member that leaves.")
@click.option("--url", default="http://127.0.0.1:8410", show_default=True, help="Any member's node.")
def propose(joining: Path | None, leave: str | None, url: str) -> None:
    """Print a change, to be signed by the members."""
    version = _ask(f"{url}/status").json()["version"]
    join = _read(Member, joining) if joining else None
    click.echo(_or_unusable(lambda: Change(version=version, join=join, leave=leave)).model_dump_json())


@member.command()
@click.argument("change_file", type=_File)
@_folder
def approve(change_file: Path, folder: Path) -> None:
    """Print the change with this member's signature added."""
    change, secret = _read(Change, change_file), _or_unusable(lambda: Identity.load(folder)).secret
    begun = _or_unusable(lambda: load_genesis(folder / "genesis.json"))
    signed = dict(change.approvals) | {secret.name: secret.sign(change.statement(begun.chain))}
    click.echo(change.replaced(approvals=tuple(sorted(signed.items()))).model_dump_json())


@member.command(name="submit")
@click.argument("change_files", type=_File, nargs=-1, required=True)
@click.option("--url", default="http://127.0.0.1:8410", show_default=True, help="This member's node.")
@_folder
def submit(change_files: tuple[Path, ...], url: str, folder: Path) -> None:
    """Hand in a change once enough have signed; copies signed apart are put together."""
    copies = [_read(Change, path) for path in change_files]
    if len({copy.model_dump_json(exclude={"approvals"}) for copy in copies}) != 1:
        raise click.UsageError("these are different changes")
    signed = {name: signature for copy in copies for name, signature in copy.approvals}
    change = copies[0].replaced(approvals=tuple(sorted(signed.items())))
    token = _or_unusable(lambda: Identity.load(folder)).token
    _ask(f"{url}/changes", body=change.model_dump_json(), token=token)
    click.echo(f"change {change.version} handed in; it counts from the second block after its own")


@command.command()
@click.argument("snapshot_file", type=click.Path(dir_okay=False, path_type=Path))
@_folder
@_database
def snapshot(snapshot_file: Path, folder: Path, database: str | None) -> None:
    """Write the chain of this node's store, to start another from."""
    begun = _or_unusable(lambda: load_genesis(folder / "genesis.json"))
    height = snapshots.write(snapshot_file, begun, _from_store(_url(folder, database)))
    click.echo(f"{height} blocks")


@command.command()
@click.argument("snapshot_file", type=_File)
@_folder
@_database
def restore(snapshot_file: Path, folder: Path, database: str | None) -> None:
    """Fill an empty store from a snapshot; every block is checked. What the member had signed stays forgotten."""
    begun = _or_unusable(lambda: load_genesis(folder / "genesis.json"))
    held = _or_unusable(lambda: lock(folder))
    store = _or_unusable(lambda: Store(_url(folder, database), begun))
    try:
        height = snapshots.read(snapshot_file, begun, store)
    except Invalid as error:
        raise click.ClickException(str(error)) from None
    finally:
        store.close()
        held.close()
    click.echo(f"{height} blocks are right and in the store")


def _url(folder: Path, database: str | None) -> str:
    return database or f"sqlite:///{(folder / 'ledger.sqlite3').resolve()}"


def _from_store(url: str) -> Iterator[Final]:
    from ivr.ledger import store as stores
    from ivr.store.db import Database

    database, height = Database(url), 1
    while True:
        with database.snapshot() as session:
            final = stores.read(session, height)
        if final is None:
            break
        yield final
        height += 1
    database.engine.dispose()


def _from_node(url: str) -> Iterator[Final]:
    for height in range(1, _ask(f"{url}/status").json()["height"] + 1):
        try:
            yield Final.model_validate_json(_ask(f"{url}/blocks/{height}.json").content)
        except ValidationError:
            raise click.ClickException(f"{url} gave no block at height {height}") from None


def _ask(url: str, *, body: str | None = None, token: str = "") -> requests.Response:
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.request("POST" if body else "GET", url, data=body, headers=headers, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise click.ClickException(f"{url} cannot be reached ({type(error).__name__})") from None
    if not answer.ok:
        raise click.ClickException(f"{url} answered {answer.status_code}: {answer.text.strip()[:300]}")
    return answer


def _read(kind: type[_T], path: Path) -> _T:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        sys.exit(_say(f"{path} is no {kind.__name__.lower()} file: {error.error_count()} faults"))


def _or_unusable(work: Callable[[], Any]) -> Any:
    """The result; what cannot be used is said in one line, exit code 2."""
    try:
        return work()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        sys.exit(_say(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
    except (Unusable, Invalid) as error:
        sys.exit(_say(str(error)))


def _say(message: str) -> int:
    click.echo(f"Error: {message}", err=True)
    return 2
