"""How members agree on the next block: a state machine of one member, told of messages and of the time. Pure.

Each height has terms 0, 1, 2, ... In a term one member proposes a block; the members vote for it, to the proposer; a
quorum of votes, sent round, lets each co-sign it and locks it to that block; a quorum of co-signatures makes it final.
A member that sees no final block in time tells everybody that it gives up on the term, and takes part in no lower one
again. docs/ledger.md says why no two blocks can be final at a height.

Whoever runs a ``Core`` hands it messages and the time, then stores ``memory`` and what the book was given, then sends
``outbox``: in this order, since nobody may forget what it signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ivr.ledger import chain
from ivr.ledger.chain import Invalid, quorum, tolerated
from ivr.ledger.crypto import Checks, Secret
from ivr.ledger.wire import (
    BLOCK_RECORDS,
    MOST_BLOCKS,
    Ask,
    Block,
    Blocks,
    Certificate,
    Count,
    Entry,
    Fetch,
    Final,
    Header,
    Message,
    Misconduct,
    Phase,
    Proposal,
    Record,
    Records,
    State,
    Status,
    TermChange,
    TermMessage,
    Vote,
    Wire,
)

MOST_WAITING = 20_000
"""Records that wait for a block. More are refused: whoever submits them keeps them, and tries again."""
MOST_SEEN = 64
"""Headers and blocks of one height that are remembered."""
LONGEST_BACKOFF = 5  # doublings
RECOVERY_HEIGHTS = 2
"""How many heights past the last one that others know of a member may have signed before it lost its disk."""


class Full(Exception):
    """Too many records wait for a block. Try again later."""


class Book(Protocol):
    """The member's own chain."""

    def known(self, keys: Collection[str]) -> set[str]:
        """Which of these records are on it."""

    def finals(self, start: int, most: int) -> list[Final]:
        """Its blocks from this height on: at least one, and not more than a message may hold."""

    def add(self, final: Final, state: State) -> None: ...


class Memory(Wire):
    """What a member has signed at the next height and must not forget."""

    height: Count
    term: Count = 0  # it takes part in no lower one
    voted_term: int = -1
    voted: Header | None = None
    lock: Certificate | None = None  # the votes that let it co-sign last
    locked: Block | None = None
    made: Block | None = None  # its own block, lest it make another in the same term
    abstain: Count = 0  # it lost its disk: it signs nothing at this height or below


@dataclass
class Round:
    """What a proposer gathers."""

    proposal: Proposal
    votes: dict[str, str] = field(default_factory=dict)
    prepared: Certificate | None = None
    cosigns: dict[str, str] = field(default_factory=dict)
    send_again_at: float = 0.0


class Core:
    """One member's part. Times are seconds of any clock that does not run backwards."""

    def __init__(
        self,
        secret: Secret,
        checks: Checks,
        state: State,
        book: Book,
        memory: Memory | None,
        *,
        now: float,
        new_nonce: Callable[[], str],
        patience_s: float = 1.0,
    ) -> None:
        """``memory`` is None when the disk was lost, or never was. ``patience_s`` is that with term 0."""
        self.secret, self.checks, self.state, self.book, self.memory = secret, checks, state, book, memory
        self.now, self._new_nonce, self.patience_s = now, new_nonce, patience_s
        self.outbox: list[tuple[str | None, Message]] = []  # None: to every other member
        self.pool: dict[str, Record] = {}
        self._waiting: Counter[str] = Counter()  # of them, those about each member
        self._nonce = new_nonce()
        self._answers: dict[str, int] = {}  # how far the others are, said with this nonce
        self._status_at, self._fetch_until = now, now
        self._asked_until: dict[str, float] = {}  # whom not to ask again before: others have their turn
        self._round: Round | None = None
        self._deadline: float | None = None  # of the term
        self._ready_at: float | None = None  # when to propose without those whose lot is still missing
        self._begun = 0  # the last term that a quorum came to
        self._terms: dict[str, TermMessage] = {}  # the latest of each member
        self._seen: dict[tuple[int, str], Header] = {}
        self._blocks: dict[str, tuple[Block, State]] = {}  # checked, with the state after each
        self._right: str | None = None
        if memory is not None and memory.height != state.height + 1:
            # A store that was filled from elsewhere. What was signed at a lower height is over; at a higher one, not.
            abstain = memory.height if memory.height > state.height + 1 else 0
            self.memory = Memory(height=state.height + 1, abstain=max(abstain, memory.abstain))
        self._begin_height()

    # What it is told

    def submit(self, records: Sequence[Record], now: float) -> list[str]:
        """Records of one's own institution, to be told to everybody; why each is refused, or "". Raises Full."""
        self.now = now
        if len(self.pool) + len(records) > MOST_WAITING:
            raise Full
        faults = self._collect(records)
        fresh = tuple(record for record, fault in zip(records, faults, strict=True) if not fault)
        if fresh:
            self._send(None, Records(records=fresh))
        self._go_on()
        return faults

    def receive(self, sender: str, message: Message, now: float) -> None:
        """A message of a member, authenticated. What is wrong with it, or too late, is ignored."""
        self.now = now
        if not self._is_member(sender) and not isinstance(message, Fetch | Ask | Status | Blocks):
            return  # one that left, or a member of whom this one has not heard yet: only catching up is possible
        try:
            match message:
                case Records():
                    self._collect(message.records)
                case Proposal():
                    self._on_proposal(sender, message)
                case Vote():
                    self._on_vote(sender, message)
                case Certificate():
                    self._on_certificate(sender, message)
                case TermMessage():
                    self._on_term(sender, message)
                case Status():
                    self._on_status(sender, message)
                case Blocks():
                    self._on_blocks(sender, message)
                case Ask() | Fetch():
                    self._answer(sender, message)
        except Invalid:
            return
        self._go_on()

    def tick(self, now: float) -> None:
        """The time has come to ``wake_at``, or any other time."""
        self.now = now
        if now >= self._status_at:
            self._status_at = now + self.patience_s
            if self.memory is None:
                self._nonce, self._answers = self._new_nonce(), {}
                self._send(None, Ask(nonce=self._nonce))
            else:
                self._send(None, Status(height=self.state.height))
        if self._deadline is not None and now >= self._deadline:
            self._give_up_waiting()
        if self._round is not None and now >= self._round.send_again_at:
            self._send_again(self._round)
        self._go_on()

    @property
    def wake_at(self) -> float:
        """When ``tick`` has something to do."""
        again_at = self._round.send_again_at if self._round else None
        return min(time for time in (self._status_at, self._deadline, self._ready_at, again_at) if time is not None)

    @property
    def may_sign(self) -> bool:
        """Whether this member takes part at the next height."""
        return (
            self.memory is not None
            and self.state.height + 1 > self.memory.abstain
            and self.secret.name in self.state.members
        )

    def _is_member(self, name: str) -> bool:
        return name in self.state.members or any(member.name == name for member in self.state.upcoming)

    # Records that wait

    def _collect(self, records: Sequence[Record]) -> list[str]:
        """Take up what is new and valid. Why each was not; "" also for what is there already."""
        known = self.book.known([record.key for record in records])
        return [self._take_up(record, known) for record in records]

    def _take_up(self, record: Record, known: Collection[str]) -> str:
        if record.key in known or self.pool.get(record.key) == record:
            return ""
        if record.key in self.pool:
            return "another record of this id waits"
        if len(self.pool) >= MOST_WAITING or self._share_is_full(record):
            return "too many records wait"
        try:
            chain.check_record(self.state, record, self.checks)
        except Invalid as error:
            return str(error)
        self.pool[record.key] = record
        self._waiting[_about(record)] += 1
        return ""

    def _share_is_full(self, record: Record) -> bool:
        """No member can fill the room of the others; and one proof of its misconduct is enough to suspend it."""
        most = MOST_WAITING // len(self.state.upcoming) if isinstance(record, Entry) else 1
        return self._waiting[_about(record)] >= most

    def _next_records(self) -> list[Record]:
        """Of those that wait, the oldest; of those that change the members, one."""
        chosen: list[Record] = []
        changes = 0
        for record in self.pool.values():
            changes += not isinstance(record, Entry)
            if len(chosen) == BLOCK_RECORDS:
                break
            if isinstance(record, Entry) or changes == 1:
                chosen.append(record)
        return chosen

    # Proposing

    def _go_on(self) -> None:
        """Whatever can be done now."""
        self._recover()
        height = -1
        while height != self.state.height:  # a single member has many turns in one
            height = self.state.height
            self._propose_if_due()
        due = self.pool or self._seen or len(self._terms) > tolerated(len(self.state.roster))
        if self._deadline is None and due and self.may_sign:
            self._deadline = self.now + self._patience()

    def _propose_if_due(self) -> None:
        memory, ready_at = self.memory, self._ready_at
        self._ready_at = None
        if memory is None or not self.may_sign or (self._round and self._round.proposal.term >= memory.term):
            return
        if memory.term == 0:
            if self._right is not None and (self.pool or memory.made):
                block = memory.made or self._make(proof=self._right)
                self._propose(Proposal(term=0, block=block))
            return
        changes = tuple(
            message.change for _, message in sorted(self._terms.items()) if message.change.term == memory.term
        )
        if len(changes) < quorum(len(self.state.roster)):
            return
        if chain.winner(self.state, memory.term, changes, self.checks)[0].name != self.secret.name:
            return
        if len(changes) < len(self.state.roster):  # one with a lower lot may be under way
            self._ready_at = ready_at or self.now + self.patience_s / 8
            if self.now < self._ready_at:
                return
            self._ready_at = None
        highest = max(changes, key=lambda change: change.locked_term)
        if highest.locked_term < 0:
            made = memory.made if memory.made and memory.made.header.term == memory.term else None
            self._propose(Proposal(term=memory.term, block=made or self._make(term=memory.term, terms=changes)))
            return
        if highest.locked in self._blocks:
            block, _ = self._blocks[highest.locked]
            lock = self._terms[highest.member].lock
            self._propose(Proposal(term=memory.term, block=block, terms=changes, lock=lock))

    def _make(self, *, term: int = 0, proof: str = "", terms: tuple[TermChange, ...] = ()) -> Block:
        return chain.make(
            self.state, self.secret, self.checks, self._next_records(), term=term, proof=proof, terms=terms
        )

    def _propose(self, proposal: Proposal) -> None:
        if proposal.block.header.term == proposal.term:  # its own: not an older one, proposed again
            self._remember(made=proposal.block)
        self._round = Round(proposal, send_again_at=self.now + self.patience_s / 4)
        self._send(None, proposal)
        self._on_proposal(self.secret.name, proposal)

    def _send_again(self, gathering: Round) -> None:
        """To those who have not answered: messages get lost."""
        gathering.send_again_at = self.now + self.patience_s / 4
        for name in self.state.members:
            if name != self.secret.name and name not in gathering.cosigns:
                if name not in gathering.votes:
                    self._send(name, gathering.proposal)
                if gathering.prepared:
                    self._send(name, gathering.prepared)

    def _on_vote(self, sender: str, vote: Vote) -> None:
        gathering = self._round
        if gathering is None or sender not in self.state.members:
            return
        proposal = gathering.proposal
        if (vote.height, vote.term, vote.hash) != (self.state.height + 1, proposal.term, proposal.block.hash):
            return
        votes = gathering.votes if vote.phase == "vote" else gathering.cosigns
        statement = chain.vote_statement(self.state.chain, vote.phase, vote.height, vote.term, vote.hash)
        if sender in votes or not self.checks.signed(self.state.members[sender], statement, vote.signature):
            return
        votes[sender] = vote.signature
        if len(votes) == quorum(len(self.state.roster)):
            certificate = Certificate(
                phase=vote.phase,
                height=vote.height,
                term=vote.term,
                hash=vote.hash,
                signatures=tuple(sorted(votes.items())),
            )
            if vote.phase == "vote":
                gathering.prepared = certificate
            self._send(None, certificate)
            self._on_certificate(self.secret.name, certificate)

    # Signing

    def _on_proposal(self, sender: str, proposal: Proposal) -> None:
        header, memory = proposal.block.header, self.memory
        if header.height != self.state.height + 1:
            self._behind(sender, header.height - 1)
            return
        if memory is None or proposal.term < memory.term:
            return
        self._check_proposer(sender, proposal)
        self._keep(proposal.block)
        self._enter(proposal.term)
        if not self.may_sign or not self._may_vote(sender, proposal):
            return
        if memory.voted_term < proposal.term:
            self._remember(voted_term=proposal.term, voted=header)
        self._sign("vote", sender, proposal.term, header.hash)

    def _check_proposer(self, sender: str, proposal: Proposal) -> None:
        """Whether the sender may propose this block in this term. Raises Invalid."""
        header = proposal.block.header
        if header.term == proposal.term:
            if sender != header.maker or proposal.lock is not None or proposal.terms:
                raise Invalid("a new block by another than its maker, or with what only an old one comes with")
            return  # that its maker held the right is checked with the block
        if chain.winner(self.state, proposal.term, proposal.terms, self.checks)[0].name != sender:
            raise Invalid("proposed by a member that did not hold the right")
        highest = max(change.locked_term for change in proposal.terms)
        lock = proposal.lock
        if lock is None or (lock.term, lock.hash) != (highest, header.hash):
            raise Invalid("an old block without the latest votes")
        chain.check_certificate(self.state, lock, "vote", self.checks)

    def _may_vote(self, sender: str, proposal: Proposal) -> bool:
        memory, block_hash = self.memory, proposal.block.hash
        assert memory is not None
        if memory.voted_term >= proposal.term:
            same = memory.voted is not None and memory.voted.hash == block_hash
            return memory.voted_term == proposal.term and same
        if memory.lock is not None and memory.lock.hash != block_hash:
            return proposal.lock is not None and proposal.lock.term > memory.lock.term
        # A proposer cannot leave out those whose lot is lower, as far as this member knows of them.
        shown = proposal.terms or proposal.block.header.terms
        told = [message.change for message in self._terms.values() if message.change.term == proposal.term]
        lots = {chain.lot(self.state, change, self.checks): change.member for change in (*told, *shown)}
        return not lots or lots[min(lots)] == sender

    def _on_certificate(self, sender: str, certificate: Certificate) -> None:
        if certificate.height != self.state.height + 1:
            self._behind(sender, certificate.height - (certificate.phase == "vote"))
            return
        chain.check_certificate(self.state, certificate, certificate.phase, self.checks)
        if certificate.hash not in self._blocks:
            self._behind(sender, certificate.height - (certificate.phase == "vote"))
            return
        block, state = self._blocks[certificate.hash]
        if certificate.phase == "cosign":
            self._move_to(Final(block=block, certificate=certificate), state)
            return
        memory = self.memory
        if memory is None or certificate.term < memory.term:
            return
        self._enter(certificate.term)
        if self.may_sign:
            if memory.lock is None or memory.lock.term < certificate.term:
                self._remember(lock=certificate, locked=block)
            self._sign("cosign", sender, certificate.term, certificate.hash)

    def _sign(self, phase: Phase, to: str, term: int, block_hash: str) -> None:
        height = self.state.height + 1
        signature = self.secret.sign(chain.vote_statement(self.state.chain, phase, height, term, block_hash))
        vote = Vote(phase=phase, height=height, term=term, hash=block_hash, signature=signature)
        if to == self.secret.name:
            self._on_vote(to, vote)
        else:
            self._send(to, vote)

    # Terms

    def _patience(self) -> float:
        """Doubled with each term, so that in the end it is long enough for any network that works."""
        term = self.memory.term if self.memory else 0
        return self.patience_s * float(1 << min(term, LONGEST_BACKOFF))

    def _enter(self, term: int) -> None:
        """A term that a quorum began, as a proposal or votes show."""
        assert self.memory is not None
        self._begun = max(self._begun, term)
        if term > self.memory.term:
            self._remember(term=term)
            self._deadline, self._ready_at = self.now + self._patience(), None

    def _give_up_waiting(self) -> None:
        """Nothing became final in time: on to the next term, if a quorum came to this one."""
        self._deadline = None
        if not self.may_sign:
            return
        assert self.memory is not None
        term = self.memory.term
        here = sum(message.change.term >= term for message in self._terms.values())
        if term <= self._begun or here >= quorum(len(self.state.roster)):
            self._change_term(term + 1)
        else:
            self._deadline = self.now + self._patience()
            self._send(None, self._terms[self.secret.name])
        if self.pool:  # those who have not heard of these records see no reason for a new holder
            self._send(None, Records(records=tuple(self._next_records())))

    def _change_term(self, term: int) -> None:
        self._remember(term=term)
        memory = self.memory
        assert memory is not None
        change = TermChange(
            height=self.state.height + 1,
            term=term,
            member=self.secret.name,
            proof=self.secret.prove(chain.term_alpha(self.state, term)),
            locked_term=memory.lock.term if memory.lock else -1,
            locked=memory.lock.hash if memory.lock else "",
            signature="0" * 128,
        )
        change = change.replaced(signature=self.secret.sign(change.statement(self.state.chain)))
        message = TermMessage(change=change, lock=memory.lock, block=memory.locked, voted=memory.voted)
        self._terms[self.secret.name] = message
        self._deadline, self._ready_at = self.now + self._patience(), None
        self._send(None, message)

    def _on_term(self, sender: str, message: TermMessage) -> None:
        change = message.change
        if change.height <= self.state.height:
            self._answer(sender, Fetch(start=change.height))
            return
        if change.height != self.state.height + 1:
            self._behind(sender, change.height - 1)
            return
        if message.voted and self.memory and message.voted.term <= self.memory.term:  # of no term made up
            self._watch(message.voted)
        if sender != change.member or sender not in self.state.members:
            raise Invalid("another's term change")
        if sender in self._terms and self._terms[sender].change.term >= change.term:
            return
        chain.lot(self.state, change, self.checks)
        if change.locked_term >= 0:
            lock = message.lock
            if lock is None or (lock.term, lock.hash) != (change.locked_term, change.locked):
                raise Invalid("a lock that is not shown")
            chain.check_certificate(self.state, lock, "vote", self.checks)
            if message.block and message.block.hash == lock.hash:
                self._keep(message.block)
        self._terms[sender] = message
        if self.may_sign:
            assert self.memory is not None
            terms = sorted((message.change.term for message in self._terms.values()), reverse=True)
            enough = tolerated(len(self.state.roster))  # one more than may lie are ahead: an honest one is
            if len(terms) > enough and terms[enough] > self.memory.term:
                self._change_term(terms[enough])

    # Heights

    def _move_to(self, final: Final, state: State) -> None:
        """The block is final: on to the next height. It was checked, and this is the state after it."""
        self._watch(final.block.header)
        self.book.add(final, state)
        members_change = (state.roster, state.upcoming) != (self.state.roster, self.state.upcoming)
        self.state = state
        for record in final.block.records:
            if (waited := self.pool.pop(record.key, None)) is not None:
                self._waiting[_about(waited)] -= 1
        if members_change:
            self._check_pool()
        if self.memory is not None:
            self.memory = Memory(height=state.height + 1, abstain=self.memory.abstain)
        self._begin_height(final.block)

    def _begin_height(self, last: Block | None = None) -> None:
        self._round = self._deadline = self._ready_at = None
        self._terms, self._seen, self._blocks = {}, {}, {}
        self._begun = self.memory.term if self.memory else 0
        self._right = self._find_right(last)
        if self.memory is not None:
            for block in (self.memory.locked, self.memory.made):
                if block is not None:
                    self._keep(block)

    def _find_right(self, last: Block | None) -> str | None:
        """The proof that this member holds the right, if it does: out of the grant in the last block."""
        state = self.state
        if last is None and state.height:
            last = self.book.finals(state.height, 1)[0].block
        proof: str | None = ""
        if last is not None:
            proof = self.secret.unseal(last.header.grant)
        if proof is None:
            return None
        try:
            drawn, _ = chain.holder(state, proof, self.checks)
        except Invalid:
            return None  # sealed to us by a maker that lied
        return proof if drawn.name == self.secret.name else None

    def _check_pool(self) -> None:
        """Of what waits, keep what the members as they are now may still record."""
        waiting, self.pool, self._waiting = self.pool, {}, Counter()
        for record in waiting.values():
            self._take_up(record, ())

    def _behind(self, sender: str, height: int) -> None:
        """Others have blocks that this member lacks: fetch them from one that has."""
        until = max(self._fetch_until, self._asked_until.get(sender, self.now))
        if height > self.state.height and self.now >= until and sender != self.secret.name:
            self._fetch_until = self.now + self.patience_s / 2
            self._asked_until[sender] = self.now + len(self.state.roster) * self.patience_s / 2
            self._send(sender, Fetch(start=self.state.height + 1))

    def _on_blocks(self, sender: str, message: Blocks) -> None:
        if any(final.block.header.height > self.state.height for final in message.finals):
            self._fetch_until = self._asked_until[sender] = self.now
        for final in message.finals:
            if final.block.header.height == self.state.height + 1:
                self._move_to(final, chain.check_final(self.state, final, self.checks, self.book.known))
        self._behind(sender, message.height)

    def _answer(self, sender: str, asked: Fetch | Ask) -> None:
        height = self.state.height
        if isinstance(asked, Fetch):
            if 0 < asked.start <= height and (finals := self.book.finals(asked.start, MOST_BLOCKS)):
                self._send(sender, Blocks(height=height, finals=tuple(finals)))
            return
        recovering = self.memory is None or height < self.memory.abstain
        self._send(sender, Status(height=height, recovering=recovering, nonce=asked.nonce))

    def _on_status(self, sender: str, status: Status) -> None:
        self._behind(sender, status.height)
        if self.memory is None and status.nonce == self._nonce and not status.recovering:
            self._answers[sender] = status.height

    def _recover(self) -> None:
        """The disk was lost: take part again, once it is known at which heights this member may have signed.

        A quorum of the members must have said how far they are, and this one must have come as far: before that it
        does not know who the members are, and a height that is only boasted of it never comes to.
        """
        if self.memory is not None:
            return
        height, members = self.state.height, self.state.upcoming
        told = [self._answers.get(member.name, height + 1) for member in members if member.name != self.secret.name]
        if sum(answer <= height for answer in told) >= quorum(len(members)):
            self.memory = Memory(height=height + 1, abstain=height + RECOVERY_HEIGHTS)
            self._begin_height()

    # Evidence

    def _keep(self, block: Block) -> None:
        """Check a block, for voting, co-signing and proposing again. Raises Invalid."""
        if block.hash in self._blocks:
            return
        state = chain.check(self.state, block, self.checks, self.book.known, lambda r: self.pool.get(r.key) == r)
        self._blocks[block.hash] = block, state
        locked = self.memory.lock.hash if self.memory and self.memory.lock else None
        while len(self._blocks) > MOST_SEEN:
            del self._blocks[next(old for old in self._blocks if old not in (locked, block.hash))]
        self._watch(block.header)

    def _watch(self, header: Header) -> None:
        """Two blocks of one maker, height and term: proof of misconduct, to be recorded."""
        maker = self.state.members.get(header.maker)
        if maker is None or (header.chain, header.height) != (self.state.chain, self.state.height + 1):
            return
        if not self.checks.signed(maker, header.hash, header.signature):
            return
        first = self._seen.get((header.term, header.maker))
        if first is None and len(self._seen) < MOST_SEEN:
            self._seen[header.term, header.maker] = header
        if first is not None and first.hash != header.hash:
            proof = Misconduct(first=first, second=header)
            if not self._take_up(proof, self.book.known([proof.key])):
                self._send(None, Records(records=(proof,)))

    # Effects

    def _remember(self, **signed: object) -> None:
        assert self.memory is not None
        self.memory = self.memory.replaced(**signed)

    def _send(self, to: str | None, message: Message) -> None:
        self.outbox.append((to, message))


def _about(record: Record) -> str:
    """Whose room it takes while it waits."""
    match record:
        case Entry():
            return record.member
        case Misconduct():
            return f"misconduct:{record.first.maker}"
        case _:
            return "membership:"
