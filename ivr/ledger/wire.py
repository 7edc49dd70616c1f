"""What members write and send to each other. Every field has a bound; hashes, keys and signatures are hex.

What is hashed or signed is the JSON of the fields in the order they have here, without spaces, behind a word for what
it is and the chain's id: no signature can be taken for another thing, or for another chain.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

MOST_MEMBERS = 256
MOST_RECORDS = 2000
"""Of a block, and of one message of records."""
BLOCK_RECORDS = 1000
"""Of a block that follows the rules' advice; others are valid up to MOST_RECORDS."""
MOST_BLOCKS = 50
"""Of one answer to a member that catches up."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){0,31}$", max_length=32)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Hash
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Proof = Annotated[str, Field(pattern=r"^([0-9a-f]{160})?$")]
Sealed = Annotated[str, Field(pattern=r"^[0-9a-f]{0,512}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Phase = Literal["vote", "cosign"]


class Wire(BaseModel):
    """Frozen and strict. Errors do not repeat what was sent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    def replaced(self, **changes: object) -> Self:
        """The same with other fields, unchecked; what was computed from the old ones is forgotten."""
        return self.model_construct(**{name: getattr(self, name) for name in type(self).model_fields} | changes)


def digest(what: str, chain: str, *parts: object) -> str:
    """SHA-256, in hex, of a statement: what it is, of which chain, and its parts, separated by newlines."""
    return hashlib.sha256("\n".join((what, chain, *map(str, parts))).encode()).hexdigest()


class Member(Wire):
    """An institution: its public keys (Ed25519, ECVRF, X25519), and where its node is reached."""

    name: Name
    sign: Key
    vrf: Key
    seal: Key
    url: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]


class Genesis(Wire):
    """Where a chain begins; its hash is the chain's id."""

    consortium: Annotated[str, Field(pattern=r"^[ -~]{1,100}$")]
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=MOST_MEMBERS)]

    @cached_property
    def chain(self) -> str:
        return digest("genesis", "", self.model_dump_json())


class Entry(Wire):
    """Something that happened to money. The commitment is opened by whoever holds salt and details."""

    kind: Literal["payment", "refund", "settlement"]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
    commitment: Hash
    member: Name
    signature: Signature

    @cached_property
    def key(self) -> str:
        """What is on the chain once at most."""
        return f"{self.kind}:{self.member}:{self.id}"

    def statement(self, chain: str) -> str:
        return digest("entry", chain, self.kind, self.id, self.commitment, self.member)


class Change(Wire):
    """A member joins or leaves, as a quorum of the members signed. ``version`` counts changes: none is used twice."""

    kind: Literal["membership"] = "membership"
    version: Count
    join: Member | None = None
    leave: Name | None = None
    approvals: Annotated[tuple[tuple[Name, Signature], ...], Field(max_length=MOST_MEMBERS)] = ()

    @cached_property
    def key(self) -> str:
        return f"membership:{self.version}"

    def statement(self, chain: str) -> str:
        return digest("membership", chain, self.model_dump_json(exclude={"approvals"}))


class TermChange(Wire):
    """A member gives up on the terms below ``term`` at a height: its part in the draw of the next holder.

    ``locked_term`` is that of its co-signature of block ``locked`` at this height; -1 and nothing if there is none.
    """

    height: Count
    term: Annotated[int, Field(ge=1, le=10**6)]
    member: Name
    proof: Proof
    locked_term: Annotated[int, Field(ge=-1, le=10**6)] = -1
    locked: Hash | Literal[""] = ""
    signature: Signature

    def statement(self, chain: str) -> str:
        return digest("term", chain, self.model_dump_json(exclude={"signature"}))


class Header(Wire):
    """A block but for its records. ``proof`` or ``terms`` shows that its maker held the right."""

    chain: Hash
    height: Annotated[int, Field(ge=1, le=2**53)]
    term: Annotated[int, Field(ge=0, le=10**6)]
    maker: Name
    previous: Hash
    state: Hash  # of everything before this block: members, seed, what was recorded
    root: Hash
    count: Annotated[int, Field(ge=0, le=MOST_RECORDS)]
    proof: Proof = ""  # in term 0: the draw that the grant of the block before had sealed
    terms: Annotated[tuple[TermChange, ...], Field(max_length=MOST_MEMBERS)] = ()  # in later terms: a quorum's
    grant: Sealed
    signature: Signature

    @cached_property
    def hash(self) -> str:
        return digest("block", self.chain, self.model_dump_json(exclude={"signature"}))


class Misconduct(Wire):
    """Two blocks that one holder signed for one height and term."""

    kind: Literal["misconduct"] = "misconduct"
    first: Header
    second: Header

    @cached_property
    def key(self) -> str:
        return f"misconduct:{self.first.maker}:{self.first.height}:{self.first.term}"


Record = Annotated[Entry | Change | Misconduct, Field(discriminator="kind")]


class Block(Wire):
    header: Header
    records: Annotated[tuple[Record, ...], Field(max_length=MOST_RECORDS)]

    @property
    def hash(self) -> str:
        return self.header.hash

    @cached_property
    def leaves(self) -> list[bytes]:
        """What the Merkle root is over."""
        return [leaf(record) for record in self.records]


def leaf(record: Record) -> bytes:
    return record.model_dump_json().encode()


class Certificate(Wire):
    """A quorum's signatures on one block in one term: its votes, or the co-signatures that make it final."""

    type: Literal["certificate"] = "certificate"
    phase: Phase
    height: Count
    term: Count
    hash: Hash
    signatures: Annotated[tuple[tuple[Name, Signature], ...], Field(max_length=MOST_MEMBERS)]


class Final(Wire):
    """A block with the co-signatures that made it final."""

    block: Block
    certificate: Certificate


class Records(Wire):
    """Records that wait for a block, told to everybody: nobody knows who will make it."""

    type: Literal["records"] = "records"
    records: Annotated[tuple[Record, ...], Field(max_length=MOST_RECORDS)]


class Proposal(Wire):
    """The holder's block. In a later term a block of an earlier one comes with that term's changes, and its votes."""

    type: Literal["proposal"] = "proposal"
    term: Count
    block: Block
    terms: Annotated[tuple[TermChange, ...], Field(max_length=MOST_MEMBERS)] = ()
    lock: Certificate | None = None


class Vote(Wire):
    type: Literal["vote"] = "vote"
    phase: Phase
    height: Count
    term: Count
    hash: Hash
    signature: Signature


class TermMessage(Wire):
    """A term change with what backs it: the votes of the block it is locked to, that block, and what it voted for."""

    type: Literal["term"] = "term"
    change: TermChange
    lock: Certificate | None = None
    block: Block | None = None
    voted: Header | None = None


class Ask(Wire):
    """How far are you? Answered with the same nonce."""

    type: Literal["ask"] = "ask"
    nonce: Hash


class Status(Wire):
    type: Literal["status"] = "status"
    height: Count
    recovering: bool = False
    nonce: Hash | None = None


class Fetch(Wire):
    """Blocks from this height on, please."""

    type: Literal["fetch"] = "fetch"
    start: Count


class Blocks(Wire):
    type: Literal["blocks"] = "blocks"
    height: Count  # how far the sender is
    finals: Annotated[tuple[Final, ...], Field(max_length=MOST_BLOCKS)]


Message = Annotated[
    Records | Proposal | Vote | Certificate | TermMessage | Ask | Status | Fetch | Blocks, Field(discriminator="type")
]


class State(Wire):
    """What a chain comes to after a block: all that the next block is judged by, besides what was recorded before.

    A change in block k counts from block k + 2 on, so that the members of the next block never depend on this one.
    """

    chain: Hash
    height: Count
    hash: Hash
    seed: Hash  # fixed by draws alone: nobody can choose it
    maker: Member | None  # of this block: whose draw the next one shows
    roster: Annotated[tuple[Member, ...], Field(min_length=1)]  # the members of the next block, by name
    upcoming: Annotated[tuple[Member, ...], Field(min_length=1)]  # of the one after it
    version: Count  # of the membership
    records: Hash  # a hash over the roots of all blocks

    @cached_property
    def digest(self) -> str:
        return digest("state", self.chain, self.model_dump_json())

    @cached_property
    def members(self) -> dict[str, Member]:
        return {member.name: member for member in self.roster}
