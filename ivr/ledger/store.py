"""A node's own store: its chain, and what it has signed. Any database that SQLAlchemy knows; SQLite by default."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Integer, String, Text, func, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ivr.clock import utc_now
from ivr.ledger import chain
from ivr.ledger.proof import Inclusion, Proof, include
from ivr.ledger.rules import Memory
from ivr.ledger.wire import BLOCK_RECORDS, Block, Certificate, Entry, Final, Genesis, State
from ivr.store.db import Database, UTCDateTime

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Apart from the service's tables: a node has a database of its own."""

    type_annotation_map = {datetime: UTCDateTime()}


class BlockRow(Base):
    __tablename__ = "ledger_blocks"

    height: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    term: Mapped[int]
    maker: Mapped[str] = mapped_column(String(64))
    count: Mapped[int]
    changes: Mapped[bool] = mapped_column(index=True)  # the members change
    block: Mapped[str] = mapped_column(Text)
    certificate: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]  # when it came to be final here; no part of the chain


class RecordRow(Base):
    __tablename__ = "ledger_records"

    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    height: Mapped[int] = mapped_column(_NUMBER, index=True)


class Standing(Base):
    """The one row of what the node is at: the state after its last block, and its memory."""

    __tablename__ = "ledger_standing"

    id: Mapped[int] = mapped_column(primary_key=True)
    genesis: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    memory: Mapped[str | None] = mapped_column(Text)


class Store:
    """The ``Book`` of the rules. What is added is durable after ``commit``; one writer at a time."""

    def __init__(self, url: str, genesis: Genesis) -> None:
        """Raises chain.Invalid when the store is another chain's."""
        self.database = Database(url)
        Base.metadata.create_all(self.database.engine)
        self._connection: Connection | None = None  # in the transaction since the last commit
        self._last: Final | None = None
        self._grown = False
        with self.database.transaction() as session:
            row = session.get(Standing, 1)
            if row is None:
                state = chain.start(genesis)
                row = Standing(id=1, genesis=genesis.model_dump_json(), state=state.model_dump_json(), memory=None)
                session.add(row)
            if row.genesis != genesis.model_dump_json():
                raise chain.Invalid("this store holds the chain of another genesis file")
            self.state = State.model_validate_json(row.state)
            self.memory = Memory.model_validate_json(row.memory) if row.memory else None

    def known(self, keys: Collection[str]) -> set[str]:
        if not keys:
            return set()
        return set(self._open().scalars(select(RecordRow.key).where(RecordRow.key.in_(keys))))

    def finals(self, start: int, most: int) -> list[Final]:
        if self._last is not None and self._last.block.header.height == start:
            return [self._last]
        query = select(BlockRow.count, BlockRow.block, BlockRow.certificate).where(BlockRow.height >= start)
        found: list[Final] = []
        records = 0
        for count, block, certificate in self._open().execute(query.order_by(BlockRow.height).limit(most)):
            records += count
            if found and records > BLOCK_RECORDS:
                break
            found.append(_final(block, certificate))
        return found

    def add(self, final: Final, state: State) -> None:
        """The next block, and the state after it."""
        block, header, connection = final.block, final.block.header, self._open()
        connection.execute(
            insert(BlockRow).values(
                height=header.height,
                hash=header.hash,
                term=header.term,
                maker=header.maker,
                count=header.count,
                changes=any(not isinstance(record, Entry) for record in block.records),
                block=block.model_dump_json(),
                certificate=final.certificate.model_dump_json(),
                at=utc_now(),
            )
        )
        if block.records:
            rows = [{"key": record.key, "height": header.height} for record in block.records]
            connection.execute(insert(RecordRow), rows)
        self._last, self.state, self._grown = final, state, True

    def commit(self, memory: Memory | None) -> None:
        """All that was added, and the memory, become durable; nothing may be sent before."""
        changed: dict[str, str | None] = {}
        if memory is not self.memory:
            changed["memory"] = memory.model_dump_json() if memory else None
        if self._grown:
            changed["state"] = self.state.model_dump_json()
        if changed:
            self._open().execute(update(Standing).values(changed))
        if self._connection is not None:
            self._connection.commit()
            self._connection.close()
        self._connection, self.memory, self._grown = None, memory, False

    def close(self) -> None:
        """What was not committed is lost."""
        if self._connection is not None:
            self._connection.close()
        self.database.engine.dispose()

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self.database.engine.connect()
        return self._connection


def read(session: Session, height: int) -> Final | None:
    """The block at a height."""
    row = session.get(BlockRow, height)
    return _final(row.block, row.certificate) if row else None


def height(session: Session) -> int:
    return session.scalar(select(func.max(BlockRow.height))) or 0


def prove(session: Session, keys: Collection[str]) -> dict[str, Proof]:
    """Proofs of those of these records that are final."""
    proofs: dict[str, Proof] = {}
    finals: dict[int, Final] = {}
    found = session.execute(select(RecordRow.key, RecordRow.height).where(RecordRow.key.in_(keys))).all()
    changes = _changes(session, max((height for _, height in found), default=0))
    for key, height in found:
        if height not in finals:
            row = session.get_one(BlockRow, height)
            finals[height] = _final(row.block, row.certificate)
        before = tuple(change for change in changes if change.header.height < height)
        proofs[key] = Proof(inclusion=include(finals[height], key), changes=before)
    return proofs


def _changes(session: Session, before: int) -> list[Inclusion]:
    rows = session.scalars(
        select(BlockRow).where(BlockRow.changes, BlockRow.height < before).order_by(BlockRow.height)
    )
    return [
        include(final, record.key)
        for final in (_final(row.block, row.certificate) for row in rows)
        for record in final.block.records
        if not isinstance(record, Entry)
    ]


def _final(block: str, certificate: str) -> Final:
    return Final(block=Block.model_validate_json(block), certificate=Certificate.model_validate_json(certificate))
