"""What a chain is, block by block: who may make the next, what may be in it, what follows from it. Pure.

The draw. The maker of block h draws the holder of h + 1: its verifiable random function over the seed of h, which is
fixed by the draws before and by nothing in any block. It seals the proof to the member drawn; that member shows it in
block h + 1. In a later term the holder is the member of the lowest draw over height, term and seed in a quorum's
messages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from ivr.ledger import merkle
from ivr.ledger.crypto import Checks, Secret
from ivr.ledger.wire import (
    MOST_MEMBERS,
    Block,
    Certificate,
    Change,
    Entry,
    Final,
    Genesis,
    Header,
    Member,
    Misconduct,
    Phase,
    Record,
    State,
    TermChange,
    digest,
)

_NOTHING = "0" * 64


class Invalid(Exception):
    """Against the rules; the message says which."""


def quorum(members: int) -> int:
    """How many of so many members must sign. Two quorums share more members than may be faulty."""
    return 2 * members // 3 + 1


def tolerated(members: int) -> int:
    """How many of so many members may be faulty."""
    return (members - 1) // 3


def start(genesis: Genesis) -> State:
    """The state before the first block. Raises Invalid."""
    roster = tuple(sorted(genesis.members, key=lambda member: member.name))
    for n, member in enumerate(roster):
        _check_new(member, roster[:n])
    return State(
        chain=genesis.chain,
        height=0,
        hash=genesis.chain,
        seed=digest("seed", genesis.chain),
        maker=None,
        roster=roster,
        upcoming=roster,
        version=0,
        records=_NOTHING,
    )


# The right to make the next block


def holder(state: State, proof: str, checks: Checks) -> tuple[Member, str]:
    """Who may make the next block in term 0, by the last maker's draw; and the seed from then on. Raises Invalid.

    The first block's holder follows from the genesis file, which everybody can read.
    """
    if state.maker is None:
        drawn = bytes.fromhex(digest("first", state.chain))
    else:
        found = checks.drawn(state.maker, draw_alpha(state.chain, state.height, state.seed), proof)
        if found is None:
            raise Invalid("the draw is not the last maker's")
        drawn = found
    return pick(state.roster, drawn), _next_seed(state, drawn)


def pick(roster: Sequence[Member], drawn: bytes) -> Member:
    """The member that a draw means: 128 random bits, so that no member is favoured by more than 2**-120."""
    return roster[int.from_bytes(drawn[:16], "big") % len(roster)]


def draw_alpha(chain: str, height: int, seed: str) -> str:
    """What the maker of this height draws the next holder over."""
    return digest("draw", chain, height, seed)


def term_alpha(state: State, term: int) -> str:
    """What each member draws its own lot over, when a term of the next height begins."""
    return digest("lot", state.chain, state.height + 1, term, state.seed)


def lot(state: State, change: TermChange, checks: Checks) -> bytes:
    """The lot in a term change that is signed and in place. Raises Invalid."""
    member = state.members.get(change.member)
    if member is None or change.height != state.height + 1:
        raise Invalid("a term change of another height, or of no member")
    if (change.locked_term < 0) != (change.locked == "") or change.locked_term >= change.term:
        raise Invalid("a term change that contradicts itself")
    if not checks.signed(member, change.statement(state.chain), change.signature):
        raise Invalid("a term change with a wrong signature")
    drawn = checks.drawn(member, term_alpha(state, change.term), change.proof)
    if drawn is None:
        raise Invalid("a term change with another's lot")
    return drawn


def winner(state: State, term: int, changes: Sequence[TermChange], checks: Checks) -> tuple[Member, bytes]:
    """Who may propose in a later term, by the changes of a quorum, and its lot: the lowest of them. Raises Invalid."""
    if len({change.member for change in changes}) != len(changes) or len(changes) < quorum(len(state.roster)):
        raise Invalid("the term has no quorum behind it")
    if any(change.term != term for change in changes):
        raise Invalid("a change of another term")
    lots = {lot(state, change, checks): change.member for change in changes}
    lowest = min(lots)
    return state.members[lots[lowest]], lowest


def _next_seed(state: State, drawn: bytes) -> str:
    return digest("seed", state.chain, state.seed, drawn.hex())


def check_right(state: State, header: Header, checks: Checks) -> str:
    """The seed that follows, if the header's maker held the right to make it. Raises Invalid."""
    if header.term == 0:
        if header.terms:
            raise Invalid("term changes in term 0")
        member, seed = holder(state, header.proof, checks)
    else:
        if header.proof or any(change.locked_term >= 0 for change in header.terms):
            raise Invalid("a new block in a term in which some member is locked to another")
        member, drawn = winner(state, header.term, header.terms, checks)
        seed = _next_seed(state, drawn)
    if member.name != header.maker:
        raise Invalid("made by a member that did not hold the right")
    return seed


# Blocks


def make(
    state: State,
    secret: Secret,
    checks: Checks,
    records: Sequence[Record],
    *,
    term: int = 0,
    proof: str = "",
    terms: tuple[TermChange, ...] = (),
) -> Block:
    """The next block, signed, the next right drawn and sealed into it. Raises Invalid without the right to make it."""
    draft = Header(
        chain=state.chain,
        height=state.height + 1,
        term=term,
        maker=secret.name,
        previous=state.hash,
        state=state.digest,
        root=root(records),
        count=len(records),
        proof=proof,
        terms=terms,
        grant="",
        signature="0" * 128,
    )
    seed = check_right(state, draft, checks)
    alpha = draw_alpha(state.chain, draft.height, seed)
    draw = secret.prove(alpha)
    drawn = checks.drawn(state.members[secret.name], alpha, draw)
    assert drawn is not None, "one's own proof passes"
    header = draft.replaced(grant=checks.seal(pick(state.upcoming, drawn), draw))
    return Block(header=header.replaced(signature=secret.sign(header.hash)), records=tuple(records))


def root(records: Iterable[Record]) -> str:
    return merkle.root([record.model_dump_json().encode() for record in records]).hex()


def check(
    state: State,
    block: Block,
    checks: Checks,
    known: Callable[[Collection[str]], Collection[str]],
    trusted: Callable[[Record], bool] = lambda record: False,
) -> State:
    """The state after a block that keeps every rule. Raises Invalid.

    ``known`` tells which of some keys the chain has; ``trusted``, which records were checked before.
    """
    header = block.header
    if (header.chain, header.height, header.previous) != (state.chain, state.height + 1, state.hash):
        raise Invalid("the block does not follow")
    if header.state != state.digest:
        raise Invalid("the block follows from other records or members")
    maker = state.members.get(header.maker)
    if maker is None or not checks.signed(maker, header.hash, header.signature):
        raise Invalid("the block is not signed by its maker")
    seed = check_right(state, header, checks)
    if header.count != len(block.records) or header.root != merkle.root(block.leaves).hex():
        raise Invalid("the block's records are not those of its header")
    keys = [record.key for record in block.records]
    if len(set(keys)) != len(keys) or known(keys):
        raise Invalid("a record is on the chain twice")
    if sum(not isinstance(record, Entry) for record in block.records) > 1:
        raise Invalid("more than one change of the members in a block")
    for record in block.records:
        if not trusted(record):
            check_record(state, record, checks)
    upcoming, version = members_after(state, block.records)
    return State(
        chain=state.chain,
        height=header.height,
        hash=header.hash,
        seed=seed,
        maker=maker,
        roster=state.upcoming,
        upcoming=upcoming,
        version=version,
        records=digest("records", state.chain, state.records, header.root),
    )


def check_certificate(state: State, found: Certificate, phase: Phase, checks: Checks) -> None:
    """Whether a quorum of the next block's members signed. Raises Invalid."""
    names = [name for name, _ in found.signatures]
    if (found.phase, found.height) != (phase, state.height + 1):
        raise Invalid("a certificate of another height or phase")
    if len(set(names)) != len(names) or len(names) < quorum(len(state.roster)):
        raise Invalid("no quorum signed")
    statement = vote_statement(state.chain, phase, found.height, found.term, found.hash)
    for name, signature in found.signatures:
        member = state.members.get(name)
        if member is None or not checks.signed(member, statement, signature):
            raise Invalid("a signature of a certificate is wrong")


def check_final(
    state: State, final: Final, checks: Checks, known: Callable[[Collection[str]], Collection[str]]
) -> State:
    """The state after a block that a quorum made final. Raises Invalid."""
    check_certificate(state, final.certificate, "cosign", checks)
    if final.certificate.hash != final.block.hash:
        raise Invalid("the certificate is another block's")
    return check(state, final.block, checks, known)


def vote_statement(chain: str, phase: Phase, height: int, term: int, block_hash: str) -> str:
    """What a member signs when it votes for a block or co-signs it."""
    return digest(phase, chain, height, term, block_hash)


# Records


def check_record(state: State, record: Record, checks: Checks) -> None:
    """Whether a record may be in the next block, but for its being there already. Raises Invalid."""
    members = {member.name: member for member in state.upcoming}
    match record:
        case Entry():
            member = members.get(record.member) or state.members.get(record.member)
            if member is None or not checks.signed(member, record.statement(state.chain), record.signature):
                raise Invalid("the entry is not signed by a member")
        case Change():
            _check_change(state, record, members, checks)
        case Misconduct(first=first, second=second):
            maker = members.get(first.maker)
            if (first.chain, first.height, first.term, first.maker) != (
                second.chain,
                second.height,
                second.term,
                second.maker,
            ) or first.hash == second.hash:
                raise Invalid("the two blocks are no misconduct")
            if maker is None or len(members) == 1 or first.chain != state.chain:
                raise Invalid("there is nobody to suspend")
            if not all(checks.signed(maker, header.hash, header.signature) for header in (first, second)):
                raise Invalid("the two blocks are not both signed by their maker")


def _check_change(state: State, change: Change, members: dict[str, Member], checks: Checks) -> None:
    if change.version != state.version or (change.join is None) == (change.leave is None):
        raise Invalid("the change is not the next one, or not one change")
    if change.join is not None:
        if len(members) == MOST_MEMBERS:
            raise Invalid("the consortium is full")
        _check_new(change.join, tuple(members.values()))
    elif change.leave not in members or len(members) == 1:
        raise Invalid("there is no such member, or no other")
    names = [name for name, _ in change.approvals]
    if len(set(names)) != len(names) or len(names) < quorum(len(members)):
        raise Invalid("no quorum approved the change")
    for name, signature in change.approvals:
        if name not in members or not checks.signed(members[name], change.statement(state.chain), signature):
            raise Invalid("an approval is wrong")


def _check_new(member: Member, others: Sequence[Member]) -> None:
    """Keys and names are one member's only: one institution must not count as two."""
    for other in others:
        if member.name == other.name or {member.sign, member.vrf, member.seal} & {other.sign, other.vrf, other.seal}:
            raise Invalid("a member of this name, or with one of these keys, is there already")


def members_after(state: State, records: Iterable[Record]) -> tuple[tuple[Member, ...], int]:
    """The members once these records count, and how often they have changed."""
    upcoming, version = {member.name: member for member in state.upcoming}, state.version
    for record in records:
        match record:
            case Change(join=Member() as joined):
                upcoming[joined.name] = joined
                version += 1
            case Change(leave=left):
                upcoming.pop(left or "", None)
                version += 1
            case Misconduct(first=first):
                upcoming.pop(first.maker, None)  # suspended: the members can have it join again
    return tuple(sorted(upcoming.values(), key=lambda member: member.name)), version
