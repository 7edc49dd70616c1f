"""What a node serves: its fellow members' messages, its own institution's records, and pages for people.

=============================== ====================== ============================================================
``POST /messages``              members                a signed envelope; the signed receipt
``POST /entries``               own service (token)    ``{"entries": [{kind, id, commitment}]}``; why each is refused
``POST /changes``               own operator (token)   a membership change with its approvals
``POST /proofs``                own service (token)    ``{"keys": [...]}``; the proofs of those that are final
``GET /status /checkpoint``     anybody                where the chain stands, and the signatures on it
``GET /blocks/HEIGHT.json``     anybody                a final block
``GET / /blocks/HEIGHT``        anybody                the same as pages
=============================== ====================== ============================================================

Nothing here is personal or secret: ids and commitments. An operator who would rather not show them binds the node to
an address that only members reach.

What reads the store does so on a thread beside the one loop, which has blocks to make: see ``Reader``.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

from aiohttp import web
from jinja2 import Environment, Template
from pydantic import Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.ledger import chain, store
from ivr.ledger.node import NewEntry, Node
from ivr.ledger.proof import Checkpoint
from ivr.ledger.rules import Full
from ivr.ledger.transport import LONGEST_ENVELOPE, Busy, NotAuthentic
from ivr.ledger.wire import MOST_RECORDS, Certificate, Change, Final, Hash, Wire

SHOWN_BLOCKS = 50
MOST_WAITING = 16
"""Requests that one reader has in hand and waiting."""
_T = TypeVar("_T", bound=Wire)
_R = TypeVar("_R")


class Reader:
    """Answers requests from the store one after the other, on a thread of its own.

    One thread, because it takes turns with the loop's at the one interpreter: more would leave the loop less.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reader")
        self._waiting = 0

    async def read(self, work: Callable[[], _R]) -> _R:
        """What ``work`` gives; 503 when too many wait for theirs."""
        if self._waiting == MOST_WAITING:
            raise web.HTTPServiceUnavailable(text="too many requests wait\n", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    async def close(self, _app: web.Application) -> None:
        self._thread.shutdown(cancel_futures=True)


_NODE = web.AppKey("node", Node)
_ANYBODY = web.AppKey("anybody", Reader)
_OWN = web.AppKey("own", Reader)  # apart, so that no crowd keeps an institution from its proofs


class _New(Wire):
    kind: Annotated[str, Field(pattern="^(payment|refund|settlement)$")]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
    commitment: Hash


class _Entries(Wire):
    entries: Annotated[tuple[_New, ...], Field(min_length=1, max_length=MOST_RECORDS // 2)]


class _Keys(Wire):
    keys: Annotated[tuple[Annotated[str, Field(max_length=128)], ...], Field(max_length=MOST_RECORDS)]


def create_app(node: Node) -> web.Application:
    app = web.Application(client_max_size=LONGEST_ENVELOPE + 1024)
    app[_NODE] = node
    for key in (_ANYBODY, _OWN):
        app[key] = Reader()
        app.on_cleanup.append(app[key].close)
    app.add_routes(
        [
            web.post("/messages", messages),
            web.post("/entries", entries),
            web.post("/changes", changes),
            web.post("/proofs", proofs),
            web.get("/status", status),
            web.get("/checkpoint", checkpoint),
            web.get("/blocks/{height:\\d{1,15}}.json", block_json),
            web.get("/blocks/{height:\\d{1,15}}", block_page),
            web.get("/", front_page),
        ]
    )
    return app


async def messages(request: web.Request) -> web.Response:
    try:
        return web.Response(body=await request.app[_NODE].deliver(await request.read()))
    except NotAuthentic as error:
        return _problem(401, str(error))
    except Busy:
        return _problem(503, "too much is waiting")


async def entries(request: web.Request) -> web.Response:
    node = _own(request)
    asked = await _body(request, _Entries)
    try:
        faults = await node.submit([NewEntry(e.kind, e.id, e.commitment) for e in asked.entries])
    except (Full, Busy):
        return _problem(503, "too many records wait for a block; submit them again later")
    refused = {e.id: fault for e, fault in zip(asked.entries, faults, strict=True) if fault}
    return web.json_response({"refused": refused}, status=202)


async def changes(request: web.Request) -> web.Response:
    node = _own(request)
    try:
        [fault] = await node.submit_change(await _body(request, Change))
    except (Full, Busy):
        return _problem(503, "too many records wait for a block; submit it again later")
    return _problem(422, fault) if fault else web.json_response({}, status=202)


async def proofs(request: web.Request) -> web.Response:
    node = _own(request)
    asked = await _body(request, _Keys)

    def read() -> str:
        with node.store.database.snapshot() as session:
            found = store.prove(session, asked.keys)
        return ",".join(f'"{key}":{proof.model_dump_json()}' for key, proof in found.items())

    written = await request.app[_OWN].read(read)
    return web.Response(text=f'{{"proofs":{{{written}}}}}', content_type="application/json")


async def status(request: web.Request) -> web.Response:
    node = request.app[_NODE]
    core, state = node.core, node.core.state
    return web.json_response(
        {
            "member": node.secret.name,
            "consortium": node.genesis.consortium,
            "chain": state.chain,
            "height": state.height,
            "hash": state.hash,
            "term": core.memory.term if core.memory else None,
            "members": [member.name for member in state.upcoming],
            "version": state.version,
            "takes_part": core.may_sign,
            "waiting": len(core.pool),
            "messages_dropped": node.dropped,
        }
    )


async def checkpoint(request: web.Request) -> web.Response:
    node = request.app[_NODE]

    def read() -> web.Response:
        latest = select(store.BlockRow.certificate).order_by(store.BlockRow.height.desc()).limit(1)
        with node.store.database.snapshot() as session:
            certificate = session.scalar(latest)
        if certificate is None:
            return _problem(404, "there is no block yet")
        point = Checkpoint(chain=node.genesis.chain, certificate=Certificate.model_validate_json(certificate))
        return web.Response(text=point.model_dump_json(), content_type="application/json")

    return await request.app[_ANYBODY].read(read)


async def block_json(request: web.Request) -> web.Response:
    return await _block(
        request, lambda final: web.Response(text=final.model_dump_json(), content_type="application/json")
    )


async def front_page(request: web.Request) -> web.Response:
    node = request.app[_NODE]
    state, waiting = node.core.state, len(node.core.pool)  # the loop's, which goes on

    def read() -> web.Response:
        row = store.BlockRow
        shown = select(row.height, row.maker, row.term, row.count, row.at, row.hash)
        with node.store.database.snapshot() as session:
            recent = session.execute(shown.order_by(row.height.desc()).limit(SHOWN_BLOCKS)).all()
            made = _made(session)
        quorum = chain.quorum(len(state.roster))
        return _page(_FRONT, node, state=state, waiting=waiting, recent=recent, made=made, quorum=quorum)

    return await request.app[_ANYBODY].read(read)


async def block_page(request: web.Request) -> web.Response:
    node = request.app[_NODE]
    return await _block(request, lambda final: _page(_BLOCK, node, header=final.block.header, final=final))


async def _block(request: web.Request, shown: Callable[[Final], web.Response]) -> web.Response:
    node, height = request.app[_NODE], int(request.match_info["height"])

    def read() -> web.Response:
        with node.store.database.snapshot() as session:
            final = store.read(session, height)
        return _problem(404, "there is no such block yet") if final is None else shown(final)

    return await request.app[_ANYBODY].read(read)


def _made(session: Session) -> Counter[str]:
    query = select(store.BlockRow.maker).order_by(store.BlockRow.height.desc()).limit(1000)
    return Counter(session.scalars(query))


def _own(request: web.Request) -> Node:
    node = request.app[_NODE]
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), node.identity.token.encode()):
        raise web.HTTPUnauthorized(text="this needs the token of the member's own institution\n")
    return node


async def _body(request: web.Request, kind: type[_T]) -> _T:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
        raise web.HTTPUnprocessableEntity(text=f"{said}\n") from None


def _problem(code: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=code)


def _page(template: Template, node: Node, **values: object) -> web.Response:
    text = template.render(consortium=node.genesis.consortium, name=node.secret.name, **values)
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return web.Response(text=text, content_type="text/html", headers=headers)


def _template(body: str) -> Template:
    return Environment(autoescape=True).from_string(_LAYOUT.replace("BODY", body))


_LAYOUT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Ledger of {{ consortium }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem } th, td { text-align: left; padding: .3rem .6rem }
tr { border-bottom: 1px solid #ddd } code { overflow-wrap: anywhere; font-size: .85em } caption { text-align: left }
</style>
<h1><a href="/">Ledger of {{ consortium }}</a></h1>
BODY
</html>"""

_FRONT = _template("""<p>As {{ name }} has it: height {{ state.height }}, last block <code>{{ state.hash }}</code>,
{{ waiting }} records wait. A block is final with {{ quorum }} of {{ state.roster | length }}
co-signatures. Who holds the right to make the next block is seen only from that block.</p>
<table><caption><h2>Members</h2></caption>
<tr><th>Member</th><th>Of the last 1,000 blocks, made</th><th>Reached at</th></tr>
{% for member in state.upcoming %}
<tr><td>{{ member.name }}</td><td>{{ made[member.name] }}</td><td>{{ member.url }}</td></tr>{% endfor %}</table>
<table><caption><h2>Blocks</h2></caption>
<tr><th>Height</th><th>Held by</th><th>Term</th><th>Records</th><th>Final here</th><th>Hash</th></tr>
{% for row in recent %}
<tr><td><a href="/blocks/{{ row.height }}">{{ row.height }}</a></td><td>{{ row.maker }}</td><td>{{ row.term }}</td>
<td>{{ row.count }}</td><td>{{ row.at.strftime("%Y-%m-%d %H:%M:%S UTC") }}</td><td><code>{{ row.hash[:16] }}</code></td>
</tr>{% endfor %}</table>""")

_BLOCK = _template("""<h2>Block {{ header.height }}</h2>
<table>
<tr><th>Hash</th><td><code>{{ header.hash }}</code></td></tr>
<tr><th>Block before</th><td><code>{{ header.previous }}</code></td></tr>
<tr><th>Made by</th><td>{{ header.maker }}, who held the right in term {{ header.term }}</td></tr>
<tr><th>Merkle root</th><td><code>{{ header.root }}</code></td></tr>
<tr><th>Co-signed by</th><td>{{ final.certificate.signatures | map("first") | join(", ") }}
(term {{ final.certificate.term }})</td></tr></table>
<table><caption><h2>Records</h2></caption>
<tr><th></th><th>Kind</th><th>Member</th><th>Id</th><th>Commitment</th></tr>
{% for record in final.block.records %}<tr><td>{{ loop.index0 }}</td><td>{{ record.kind }}</td>
{% if record.commitment %}<td>{{ record.member }}</td><td>{{ record.id }}</td>
<td><code>{{ record.commitment }}</code></td>
{% else %}<td colspan="3"><code>{{ record.key }}</code></td>{% endif %}</tr>{% endfor %}</table>""")
