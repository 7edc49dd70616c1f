"""A proof that a record is on a chain, which anybody can check with the genesis file alone, offline.

It holds the record's place in its block, the block's header with the co-signatures that made it final, and the same
for each change of the members before it, so that whoever checks knows whose signatures count at that height.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ivr.ledger import chain, merkle
from ivr.ledger.chain import Invalid
from ivr.ledger.crypto import Checks
from ivr.ledger.wire import (
    Block,
    Certificate,
    Count,
    Final,
    Genesis,
    Hash,
    Header,
    Member,
    Record,
    State,
    Wire,
    leaf,
)


class Inclusion(Wire):
    """One record of a final block."""

    record: Record
    index: Count
    path: Annotated[tuple[Hash, ...], Field(max_length=16)]
    header: Header
    certificate: Certificate


class Proof(Wire):
    """A record, and every change of the members up to its block, the first first."""

    inclusion: Inclusion
    changes: Annotated[tuple[Inclusion, ...], Field(max_length=10_000)] = ()


def include(final: Final, key: str) -> Inclusion:
    """The place of a record in a final block. Raises KeyError."""
    block: Block = final.block
    for index, record in enumerate(block.records):
        if record.key == key:
            path = tuple(sibling.hex() for sibling in merkle.path(block.leaves, index))
            return Inclusion(
                record=record, index=index, path=path, header=block.header, certificate=final.certificate
            )
    raise KeyError(key)


def check(proof: Proof, genesis: Genesis, checks: Checks) -> Record:
    """The record that is proved to be on the chain of this genesis file. Raises Invalid.

    What is relied on: of the members at each height, not more than a third lied. Whoever leaves changes out of a proof
    relies on the members before them.
    """
    state, last = chain.start(genesis), 0
    waiting: list[tuple[int, tuple[Member, ...]]] = []  # from which height on who are the members
    for inclusion in (*proof.changes, proof.inclusion):
        height = inclusion.header.height
        if height <= last:
            raise Invalid("the changes of the members are not in their order")
        last = height
        while waiting and waiting[0][0] <= height:
            state = state.replaced(roster=waiting.pop(0)[1])
        _check_inclusion(state, inclusion, checks)
        if inclusion is not proof.inclusion:
            upcoming = waiting[-1][1] if waiting else state.roster
            state_then = state.replaced(upcoming=upcoming)
            chain.check_record(state_then, inclusion.record, checks)
            upcoming, version = chain.members_after(state_then, [inclusion.record])
            state = state.replaced(version=version)
            waiting.append((height + 2, upcoming))
    return proof.inclusion.record


def _check_inclusion(state: State, found: Inclusion, checks: Checks) -> None:
    header = found.header
    if header.chain != state.chain or found.certificate.hash != header.hash:
        raise Invalid("the certificate is of another block, or of another chain")
    chain.check_certificate(state.replaced(height=header.height - 1), found.certificate, "cosign", checks)
    path = [bytes.fromhex(sibling) for sibling in found.path]
    if not merkle.verify(leaf(found.record), found.index, header.count, path, bytes.fromhex(header.root)):
        raise Invalid("the record is not in that block")


class Checkpoint(Wire):
    """How far a chain was, as a quorum of its members signed: what a single institution publishes now and then."""

    chain: Hash
    certificate: Certificate


def check_checkpoint(state: State, checkpoint: Checkpoint, block_hash: str, checks: Checks) -> None:
    """Whether the block at the checkpoint's height is the one it names. ``state`` is before it. Raises Invalid."""
    if checkpoint.chain != state.chain or checkpoint.certificate.hash != block_hash:
        raise Invalid(f"the checkpoint names another block at height {checkpoint.certificate.height}")
    chain.check_certificate(state, checkpoint.certificate, "cosign", checks)
