"""A chain in a file, to start another store from without asking the members for every block.

One line of JSON each: the genesis file, then the final blocks. It is believed as little as any member: every block is
checked as it goes in.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from ivr.ledger import chain
from ivr.ledger.chain import Invalid
from ivr.ledger.crypto import Sodium
from ivr.ledger.store import Store
from ivr.ledger.wire import Final, Genesis


def write(path: Path, genesis: Genesis, finals: Iterable[Final]) -> int:
    """How many blocks were written."""
    height = 0
    new = path.with_suffix(".new")
    with gzip.open(new, "wt", encoding="ascii") as file:
        file.write(f"{genesis.model_dump_json()}\n")
        for final in finals:
            file.write(f"{final.model_dump_json()}\n")
            height = final.block.header.height
    new.replace(path)
    return height


def read(path: Path, genesis: Genesis, store: Store) -> int:
    """The height that the store is at then; blocks that it has are passed over. Raises Invalid."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            if Genesis.model_validate_json(file.readline()) != genesis:
                raise Invalid("the snapshot is of another chain")
            for line in file:
                final = Final.model_validate_json(line)
                if final.block.header.height > store.state.height:
                    store.add(final, chain.check_final(store.state, final, Sodium(), store.known))
                    store.commit(store.memory)
    except (OSError, EOFError, ValueError) as error:
        faults = f"{error.error_count()} faults" if isinstance(error, ValidationError) else type(error).__name__
        raise Invalid(f"{path} is no snapshot of a chain ({faults})") from None
    return store.state.height
