"""A node's store, on both databases: what is durable when, and what can be proved from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_support import CHECKS, Chain, entry, genesis_of, secrets_of

from ivr.ledger import proof, store
from ivr.ledger.chain import Invalid
from ivr.ledger.rules import Memory
from ivr.ledger.store import Base, Store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
        return
    yield request.getfixturevalue("postgresql_url")
    emptied = Store(request.getfixturevalue("postgresql_url"), genesis_of(secrets_of(4)))
    Base.metadata.drop_all(emptied.database.engine)
    emptied.close()


@pytest.fixture
def book() -> Chain:
    return Chain(secrets_of(4))


def grown(book: Chain, kept: Store, *names: str) -> None:
    final = book.grow(*(entry(book.secrets["m0"], book.genesis.chain, name) for name in names))
    kept.add(final, book.state)


def test_what_was_committed_is_there_again_and_the_rest_is_not(url: str, book: Chain) -> None:
    kept = Store(url, book.genesis)
    assert (kept.memory, kept.state.height) == (None, 0)  # nothing was begun here: a lost disk, for all it knows
    grown(book, kept, "p1", "p2")
    kept.commit(Memory(height=2, term=3))
    grown(book, kept, "p3")
    assert kept.known(["payment:m0:p3", "payment:m0:p9"]) == {"payment:m0:p3"}
    kept.close()
    again = Store(url, book.genesis)
    assert (again.memory, again.state.height) == (Memory(height=2, term=3), 1)
    assert again.known(["payment:m0:p1", "payment:m0:p3"]) == {"payment:m0:p1"}
    assert again.finals(1, 5) == book.finals[:1]
    again.close()


def test_a_store_belongs_to_one_chain(url: str, book: Chain) -> None:
    Store(url, book.genesis).close()
    with pytest.raises(Invalid):
        Store(url, book.genesis.replaced(consortium="other"))


def test_an_answer_to_who_catches_up_holds_no_more_records_than_a_block(
    url: str, book: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BLOCK_RECORDS", 4)
    kept = Store(url, book.genesis)
    for i in range(5):
        grown(book, kept, *(f"p{i}{n}" for n in range(2)))
    kept.commit(None)
    assert [final.block.header.height for final in kept.finals(2, 50)] == [2, 3]
    assert [final.block.header.height for final in kept.finals(2, 1)] == [2]
    kept.close()


def test_records_are_proved_from_the_store(url: str, book: Chain) -> None:
    kept = Store(url, book.genesis)
    grown(book, kept, "p1")
    grown(book, kept, "p2", "p3", "p4")
    kept.commit(None)
    with kept.database.snapshot() as session:
        proofs = store.prove(session, ["payment:m0:p3", "payment:m0:p9"])
        assert store.height(session) == 2
        assert store.read(session, 3) is None
    assert list(proofs) == ["payment:m0:p3"]
    assert proof.check(proofs["payment:m0:p3"], book.genesis, CHECKS).key == "payment:m0:p3"
    kept.close()
