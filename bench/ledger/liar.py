"""A member that keeps no rule that only it could keep. It cannot sign for others: nobody can."""

from __future__ import annotations

import random

from ivr.ledger import chain
from ivr.ledger.chain import Invalid
from ivr.ledger.rules import Core, Round
from ivr.ledger.wire import Block, Certificate, Message, Proposal, Status, TermChange, Vote


class Liar(Core):
    """It makes two blocks at once, votes and co-signs whatever it sees, forgets its locks, tells some and not others,

    repeats old messages, withholds blocks, seals nonsense, and boasts of heights. What it does when is up to chance.
    """

    chance: random.Random

    def receive(self, sender: str, message: Message, now: float) -> None:
        self._heard = [*getattr(self, "_heard", [])[-30:], message]
        self.chance = getattr(self, "chance", random.Random(0))
        super().receive(sender, message, now)
        if self.chance.random() < 0.05:
            self._send(self._somebody(), self.chance.choice(self._heard))
        if self.chance.random() < 0.02:
            self._send(None, Status(height=self.state.height + self.chance.randint(1, 1000)))

    def _somebody(self) -> str:
        others = [name for name in self.state.members if name != self.secret.name]
        return self.chance.choice(others or [self.secret.name])

    def _send(self, to: str | None, message: Message) -> None:
        chance = getattr(self, "chance", random.Random(0))
        if to is not None or chance.random() < 0.5:
            super()._send(to, message)
            return
        for name in self.state.members:
            if name != self.secret.name and chance.random() < 0.6:
                super()._send(name, message)

    def _make(self, *, term: int = 0, proof: str = "", terms: tuple[TermChange, ...] = ()) -> Block:
        block = super()._make(term=term, proof=proof, terms=terms)
        if self.chance.random() < 0.2:
            header = block.header.replaced(grant="00" * 200)
            header = header.replaced(signature=self.secret.sign(header.hash))
            block = Block(header=header, records=block.records)
        return block

    def _propose(self, proposal: Proposal) -> None:
        if self.chance.random() < 0.2:
            return
        first = proposal.block
        if first.header.maker != self.secret.name or self.chance.random() < 0.3:
            super()._propose(proposal)
            return
        other = chain.make(
            self.state,
            self.secret,
            self.checks,
            first.records[1:],
            term=first.header.term,
            proof=first.header.proof,
            terms=first.header.terms,
        )
        second = proposal.replaced(block=other)
        names = [name for name in self.state.members if name != self.secret.name]
        self.chance.shuffle(names)
        cut = self.chance.randint(0, len(names))
        overlap = self.chance.choice((0, 0, 1))
        for name in names[:cut]:
            self.outbox.append((name, proposal))
        for name in names[max(0, cut - overlap) :]:
            self.outbox.append((name, second))
        self._rounds = [Round(proposal), Round(second)]
        self._round = self._rounds[0]
        for each in (proposal, second):
            try:
                self._keep(each.block)
            except Invalid:
                continue
            for phase in ("vote", "cosign"):
                self._sign(phase, self.secret.name, each.term, each.block.hash)  # type: ignore[arg-type]

    def _on_vote(self, sender: str, vote: Vote) -> None:
        height, latest = self.state.height, self._round
        for gathering in getattr(self, "_rounds", None) or [latest]:
            if self.state.height == height:
                self._round = gathering
                super()._on_vote(sender, vote)
        if self.state.height == height:  # else it would take an old round for its last, and propose without end
            self._round = latest

    def _begin_height(self, last: Block | None = None) -> None:
        self._rounds = []
        super()._begin_height(last)

    def _may_vote(self, sender: str, proposal: Proposal) -> bool:
        return True

    def _on_certificate(self, sender: str, certificate: Certificate) -> None:
        super()._on_certificate(sender, certificate)
        if certificate.height == self.state.height + 1 and sender != self.secret.name:
            self._sign("cosign", sender, certificate.term, certificate.hash)

    def _change_term(self, term: int) -> None:
        if self.memory is not None and self.memory.lock and self.chance.random() < 0.7:
            self._remember(lock=None, locked=None)
        super()._change_term(term)
