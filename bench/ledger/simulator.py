"""A whole consortium under a virtual clock and network, decided by one seed: the same seed gives the same run.

What is run are the rules as the node runs them (``ivr.ledger.rules.Core``), with ideal cryptography in place of the
real one: a signature is a hash that only its owner's object makes. Members crash before, in the middle of or after
storing and sending, restart with their disk or without it, are cut off from each other, and lie
(``bench.ledger.liar``); messages are lost, come twice, late and in another order.

Watched all the time, not only what some member believes: a block could be final if the co-signatures of honest members
and those that liars could add make a quorum. There must be one such block at most at each height, and what is final
stays. Once the faults end, everything submitted becomes final everywhere.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from bench.ledger.liar import Liar
from ivr.ledger import chain
from ivr.ledger.rules import Core, Memory
from ivr.ledger.wire import (
    Certificate,
    Change,
    Entry,
    Final,
    Genesis,
    Member,
    Message,
    State,
    Vote,
)

PATIENCE_S = 1.0
RESUBMIT_S = 3.0
FAULTS_S = 15.0
LIMIT_S = 600.0
MOST_MESSAGES = 1_000_000
"""Of a run: a hundred times what the longest take. Members that answer each other without end are stuck as well."""
HALT_S = 60.0
"""How long a chain that must stand still is watched after the faults."""


class Broken(Exception):
    """The run showed what must not be."""


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class IdealSecret:
    """Hashes under a key that nobody else is given."""

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key = name, key

    def member(self) -> Member:
        public = [_hash("public", use, self.key) for use in ("sign", "vrf", "seal")]
        return Member(name=self.name, sign=public[0], vrf=public[1], seal=public[2], url=f"sim://{self.name}")

    def sign(self, statement: str) -> str:
        return _hash("sign", self.key, statement) * 2

    def prove(self, alpha: str) -> str:
        return _hash("prove", self.key, alpha) * 2 + "0" * 32

    def unseal(self, sealed: str) -> str | None:
        mine = _hash("public", "seal", self.key)[:32]
        return bytes.fromhex(sealed[32:]).decode() if sealed[:32] == mine else None


class IdealChecks:
    """Knows every key; the members only ask it whether a signature is right."""

    def __init__(self, secrets: Collection[IdealSecret]) -> None:
        self._by_public = {}
        for secret in secrets:
            member = secret.member()
            self._by_public |= {member.sign: secret, member.vrf: secret}

    def signed(self, member: Member, statement: str, signature: str) -> bool:
        return self._by_public[member.sign].sign(statement) == signature

    def drawn(self, member: Member, alpha: str, proof: str) -> bytes | None:
        if self._by_public[member.vrf].prove(alpha) != proof:
            return None
        return hashlib.sha256(proof.encode()).digest()

    def seal(self, member: Member, text: str) -> str:
        return member.seal[:32] + text.encode().hex()


class Disk:
    """A member's chain and memory; what was not committed goes with a crash."""

    def __init__(self, genesis: State) -> None:
        self.memory: Memory | None = None
        self._finals: list[Final] = []
        self._states = [genesis]
        self._keys: dict[str, int] = {}
        self._committed = 0

    def known(self, keys: Collection[str]) -> set[str]:
        return {key for key in keys if key in self._keys}

    def finals(self, start: int, most: int) -> list[Final]:
        return self._finals[start - 1 : start - 1 + most]

    def add(self, final: Final, state: State) -> None:
        self._finals.append(final)
        self._states.append(state)
        self._keys |= {record.key: state.height for record in final.block.records}

    @property
    def state(self) -> State:
        return self._states[-1]

    def commit(self, memory: Memory | None) -> list[Final]:
        """What has become durable."""
        new, self.memory, self._committed = self._finals[self._committed :], memory, len(self._finals)
        return new

    def roll_back(self) -> None:
        del self._finals[self._committed :]
        del self._states[self._committed + 1 :]
        self._keys = {key: height for key, height in self._keys.items() if height <= self._committed}


@dataclass
class Machine:
    secret: IdealSecret
    disk: Disk
    core: Core | None = None
    lies: bool = False
    wakes_at: float = -1.0


@dataclass
class Plan:
    """What goes wrong in a run, all of it drawn from the seed unless it is given."""

    members: int
    liars: int = 0
    disks_lost: int = 0
    dead: int = 0  # members that stop for good
    loss: float = 0.0
    twice: float = 0.0
    least_delay_s: float = 0.001
    delay_s: float = 0.05
    crashes: int = 0
    partitions: int = 0
    records: int = 12
    joins: bool = False
    leaves: bool = False
    faults_s: float = FAULTS_S

    @classmethod
    def drawn(cls, seed: int, members: int | None = None) -> Plan:
        """At most as many faulty members as are tolerated."""
        chance = random.Random(f"plan {seed}")
        n = members or chance.choice((1, 2, 3, 4, 4, 4, 5, 6, 7, 7))
        f = chain.tolerated(n)
        liars = chance.randint(0, f)
        lost = chance.randint(0, f - liars)
        dead = chance.choice((0, 0, f - liars - lost))
        return cls(
            members=n,
            liars=liars,
            disks_lost=lost,
            dead=dead,
            loss=chance.choice((0.0, 0.05, 0.2)),
            twice=chance.choice((0.0, 0.1)),
            delay_s=chance.choice((0.02, 0.1, 0.5)),
            crashes=chance.choice((0, 2, 6)),
            partitions=chance.choice((0, 1, 3)),
            joins=n > 1 and chance.random() < 0.15,
            leaves=n > 4 and not liars + lost + dead and chance.random() < 0.3,  # fewer members tolerate fewer faults
        )


@dataclass
class Outcome:
    seed: int
    plan: Plan
    height: int = 0
    final_records: int = 0
    virtual_s: float = 0.0
    messages: Counter[str] = field(default_factory=Counter)
    terms: Counter[int] = field(default_factory=Counter)  # in which blocks became final
    makers: Counter[str] = field(default_factory=Counter)
    suspended: int = 0
    submitted_s: list[float] = field(default_factory=list)
    finals_s: list[float] = field(default_factory=list)  # when each block was final at its last honest member


class Simulation:
    def __init__(self, seed: int, plan: Plan, *, halts: bool = False) -> None:
        """``halts``: more are faulty than is tolerated, and nothing more may become final."""
        self.plan, self.outcome, self.halts = plan, Outcome(seed, plan), halts
        self.chance = random.Random(seed)
        secrets = [IdealSecret(f"m{i:03}", _hash("key", str(seed), str(i))) for i in range(plan.members + 1)]
        self.checks = IdealChecks(secrets)
        self.genesis = Genesis(consortium="sim", members=tuple(s.member() for s in secrets[: plan.members]))
        self.start = chain.start(self.genesis)
        self.machines = {secret.name: Machine(secret, Disk(self.start)) for secret in secrets}
        self.members = [secret.name for secret in secrets[: plan.members]]
        self.joiner = secrets[-1].name
        self.now, self._count = 0.0, 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self.cut: set[str] = set()
        self.faulty = True  # the network, until it is healed
        self.final: dict[int, str] = {}
        self.recorded: dict[str, str] = {}  # key to block
        self._height_of: dict[str, int] = {}
        self._final_at: dict[int, float] = {}
        self._cosigned: defaultdict[tuple[int, int, str], set[str]] = defaultdict(set)
        self._voted: dict[tuple[str, int, int], str] = {}
        self.rosters = {1: len(self.members)}
        self.submitted: dict[str, Entry] = {}
        self._crash_in: dict[str, int] = {}

    # Running

    def run(self) -> Outcome:
        plan, chance = self.plan, self.chance
        shuffled = chance.sample(self.members, len(self.members))
        liars = shuffled[: plan.liars]
        self.losers = shuffled[plan.liars : plan.liars + plan.disks_lost]
        self.dead = shuffled[plan.liars + plan.disks_lost :][: plan.dead]
        self.honest = [name for name in self.members if name not in liars]
        for name in self.members:
            machine = self.machines[name]
            machine.lies = name in liars
            machine.disk.memory = Memory(height=1)
            self._boot(machine)
        for n in range(plan.records):
            self._at(chance.uniform(0, plan.faults_s), lambda n=n: self._submit(n))
        self._plan_faults()
        if plan.joins:
            self._at(chance.uniform(0, plan.faults_s), lambda: self._change(join=True))
        if plan.leaves:
            self._at(chance.uniform(0, plan.faults_s), lambda: self._change(join=False))
        self._at(plan.faults_s, self._heal)
        self._at(RESUBMIT_S, self._resubmit)
        while self._queue and not self._done():
            self.now, _, work = heapq.heappop(self._queue)
            if self.now > (self.plan.faults_s + HALT_S if self.halts else LIMIT_S):
                break
            work()
        return self._judge()

    def _done(self) -> bool:
        if self.faulty or self.halts:
            return False
        height = max(self.final, default=0)
        missing = len(self.submitted) - sum(entry.key in self.recorded for entry in self.submitted.values())
        return not missing and all(
            self.machines[name].disk.state.height == height for name in self.honest if name not in self.dead
        )

    def _judge(self) -> Outcome:
        outcome = self.outcome
        outcome.finals_s = [self._final_at[height] for height in sorted(self._final_at)]
        outcome.virtual_s, outcome.height, outcome.final_records = self.now, len(self.final), len(self.recorded)
        for name in self.honest:
            disk = self.machines[name].disk
            for final in disk.finals(1, disk.state.height):
                if self.final[final.block.header.height] != final.block.hash:
                    raise Broken(f"{name} has another block at height {final.block.header.height}")
            found = {r.key for final in disk.finals(1, disk.state.height) for r in final.block.records}
            expected = {k for k, block in self.recorded.items() if self._height_of[block] <= disk.state.height}
            if expected - found:
                raise Broken(f"{name} lost final records")
        best = max((self.machines[name].disk for name in self.honest), key=lambda disk: disk.state.height)
        for final in best.finals(1, best.state.height):
            outcome.terms[final.block.header.term] += 1
            outcome.makers[final.block.header.maker] += 1
            outcome.suspended += sum(record.kind == "misconduct" for record in final.block.records)
        self._verify(best)
        if not self.halts and not self._done():
            raise Broken(f"no progress: {len(self.recorded)} of {len(self.submitted)} records by {self.now:.0f} s")
        return outcome

    def _verify(self, disk: Disk) -> None:
        """As whoever joins late reads the chain: from genesis, and with nothing believed."""
        state, seen = self.start, set[str]()
        for final in disk.finals(1, disk.state.height):
            try:
                state = chain.check_final(state, final, self.checks, seen.intersection)
            except chain.Invalid as error:
                raise Broken(f"the final block at height {state.height + 1} is wrong: {error}") from None
            seen.update(record.key for record in final.block.records)

    def _at(self, when: float, work: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, work))

    # Members

    def _boot(self, machine: Machine) -> None:
        machine.wakes_at = -1.0
        kind = Liar if machine.lies else Core
        machine.core = kind(
            machine.secret,
            self.checks,
            machine.disk.state,
            machine.disk,
            machine.disk.memory,
            now=self.now,
            new_nonce=lambda: f"{self.chance.getrandbits(256):064x}",
            patience_s=PATIENCE_S,
        )
        if isinstance(machine.core, Liar):
            machine.core.chance = self.chance
        self._after(machine)

    def _after(self, machine: Machine) -> None:
        """Store, then send; or crash anywhere in between."""
        core = machine.core
        assert core is not None
        outbox, core.outbox = core.outbox, []
        fuse = self._crash_in.pop(machine.secret.name, None) if outbox else None
        if fuse == 0:
            self._crash(machine)
            return
        for final in machine.disk.commit(core.memory):
            if not machine.lies:
                self._is_final(final)
        state = core.state
        known = {m.name for m in (*state.roster, *state.upcoming, *self.genesis.members)} - {machine.secret.name}
        names = sorted(known)
        sends = [(to, m) for to_all, m in outbox for to in ([to_all] if to_all else names)]
        for to, message in sends if fuse is None else sends[: fuse - 1]:
            self._watch(machine, message)
            self._post(machine.secret.name, to, message)
        if fuse is not None:
            self._crash(machine)
            return
        if core.wake_at != machine.wakes_at:
            machine.wakes_at = core.wake_at
            self._at(max(core.wake_at, self.now), lambda: self._wake(machine, core))

    def _wake(self, machine: Machine, core: Core) -> None:
        if machine.core is core and core.wake_at <= self.now:
            machine.wakes_at = -1.0
            core.tick(self.now)
            self._after(machine)

    def _post(self, sender: str, to: str, message: Message) -> None:
        self.outcome.messages[message.type] += 1
        if self.outcome.messages.total() > MOST_MESSAGES:
            raise Broken(f"a storm of messages at {self.now:.3f} s")
        for _ in range(2 if self.faulty and self.chance.random() < self.plan.twice else 1):
            if self.faulty and ((sender in self.cut) != (to in self.cut) or self.chance.random() < self.plan.loss):
                continue
            even = self.plan.least_delay_s == self.plan.delay_s
            most_s = self.plan.delay_s if self.faulty or even else 0.05
            delay = self.chance.uniform(self.plan.least_delay_s, most_s)
            self._at(self.now + delay, lambda: self._deliver(sender, to, message))

    def _deliver(self, sender: str, to: str, message: Message) -> None:
        machine = self.machines[to]
        if machine.core is not None:
            machine.core.receive(sender, message, self.now)
            self._after(machine)

    # What is watched

    def _watch(self, machine: Machine, message: Message) -> None:
        """Whatever an honest member signs counts, whether anybody receives it or not."""
        name = machine.secret.name
        if machine.lies:
            return
        if isinstance(message, Vote):
            key = (name, message.height, message.term)
            if message.phase == "vote" and self._voted.setdefault(key, message.hash) != message.hash:
                raise Broken(f"{name} voted twice in term {message.term} of height {message.height}")
            if message.phase == "cosign":
                self._cosign(name, message.height, message.term, message.hash)
        elif isinstance(message, Certificate) and message.phase == "cosign":  # holds the proposer's own
            self._cosign(name, message.height, message.term, message.hash)

    def _cosign(self, name: str, height: int, term: int, block_hash: str) -> None:
        signers = self._cosigned[height, term, block_hash]
        signers.add(name)
        size = self.rosters.get(height, len(self.members))
        liars = sum(machine.lies for machine in self.machines.values())
        if len(signers) >= chain.quorum(size) - liars and self.final.setdefault(height, block_hash) != block_hash:
            raise Broken(f"two blocks could be final at height {height}")

    def _is_final(self, final: Final) -> None:
        header = final.block.header
        if self.final.setdefault(header.height, final.block.hash) != final.block.hash:
            raise Broken(f"two blocks are final at height {header.height}")
        new = header.height not in self._final_at  # else a member that lagged has caught up
        if new and self.halts and self.now > self.plan.faults_s + PATIENCE_S:
            raise Broken("progress though more are faulty than is tolerated")
        self._height_of[final.block.hash] = header.height
        self._final_at[header.height] = self.now
        for record in final.block.records:
            if self.recorded.setdefault(record.key, final.block.hash) != final.block.hash:
                raise Broken(f"{record.key} is on the chain twice")
        if header.height + 1 not in self.rosters:
            disk = next(m.disk for m in self.machines.values() if m.disk.state.height >= header.height)
            self.rosters[header.height + 1] = len(disk._states[header.height].roster)

    # Faults

    def _plan_faults(self) -> None:
        chance, plan = self.chance, self.plan
        for _ in range(plan.crashes):
            name = chance.choice(self.honest)
            at = chance.uniform(0, plan.faults_s)
            self._at(at, lambda name=name: self._crash_in.__setitem__(name, chance.choice((0, 1, 2, 3))))
            self._at(at + chance.uniform(0.1, 4), lambda name=name: self._restart(name))
        for _ in range(plan.partitions):
            at = chance.uniform(0, plan.faults_s)
            side = set(chance.sample(self.members, chance.randint(1, max(1, len(self.members) // 2))))
            self._at(at, lambda side=side: setattr(self, "cut", side))
            self._at(at + chance.uniform(0.5, 5), lambda: setattr(self, "cut", set()))
        for name in self.losers:
            at = plan.faults_s / 2 if self.halts else chance.uniform(0.5, plan.faults_s - 1)
            self._at(at, lambda name=name: self._lose_disk(name))
            self._at(at + chance.uniform(0.1, 3), lambda name=name: self._restart(name))
        for name in self.dead:
            at = plan.faults_s / 2 if self.halts else chance.uniform(0.5, plan.faults_s)
            self._at(at, lambda name=name: self._crash(self.machines[name]))

    def _crash(self, machine: Machine) -> None:
        machine.core = None
        machine.disk.roll_back()

    def _lose_disk(self, name: str) -> None:
        self._crash(self.machines[name])
        self.machines[name].disk = Disk(self.start)

    def _restart(self, name: str) -> None:
        if self.machines[name].core is None and name not in self.dead:
            self._boot(self.machines[name])

    def _heal(self) -> None:
        self.faulty = False
        self.cut = set()
        self._crash_in.clear()
        for name in self.members:
            self._restart(name)

    # Clients

    def _submit(self, n: int) -> None:
        name = self.chance.choice([name for name in self.honest if name not in self.dead] or self.honest)
        secret = self.machines[name].secret
        draft = Entry(kind="payment", id=f"p{n}", commitment=_hash("c", str(n)), member=name, signature="0" * 128)
        entry = draft.replaced(signature=secret.sign(draft.statement(self.start.chain)))
        self.submitted[entry.key] = entry
        self.outcome.submitted_s.append(self.now)
        self._hand_in(name, entry)

    def _hand_in(self, name: str, record: Entry | Change) -> None:
        machine = self.machines[name]
        if machine.core is not None:
            machine.core.submit([record], self.now)
            self._after(machine)

    def _resubmit(self) -> None:
        """As a service's outbox does: what has no receipt yet is submitted again; it may have left the consortium."""
        for entry in self.submitted.values():
            if entry.key not in self.recorded:
                self._hand_in(entry.member, entry)
        self._at(self.now + RESUBMIT_S, self._resubmit)

    def _change(self, *, join: bool) -> None:
        name = self.joiner if join else self.chance.choice(self.honest)
        change = Change(version=0, join=self.machines[name].secret.member()) if join else Change(version=0, leave=name)
        statement = change.statement(self.start.chain)
        approvals = tuple((m, self.machines[m].secret.sign(statement)) for m in self.members)
        change = change.replaced(approvals=approvals)
        if join:
            self.machines[name].disk.memory = Memory(height=1)  # a new key has signed nothing yet
            self._boot(self.machines[name])  # knows the genesis file, and catches up
        else:
            self.honest.remove(name)
            self.submitted = {key: entry for key, entry in self.submitted.items() if entry.member != name}
        for member in self.members:
            self._hand_in(member, change)


def simulate(seed: int, plan: Plan | None = None, *, halts: bool = False) -> Outcome:
    """Run one seed. Raises Broken, with the seed in it."""
    simulation = Simulation(seed, plan or Plan.drawn(seed), halts=halts)
    try:
        return simulation.run()
    except Broken as error:
        raise Broken(f"seed {seed}: {error}") from None


def too_many_faulty(seed: int) -> Plan:
    """One more than tolerated stop for good, or lose their disks at once: the chain must stand still."""
    chance = random.Random(f"halt {seed}")
    n = chance.choice((4, 5, 6, 7))
    f = chain.tolerated(n)
    lost = chance.randint(0, f + 1)
    return Plan(members=n, disks_lost=lost, dead=n - chain.quorum(n) + 1 - lost, loss=0.05, delay_s=0.1, crashes=2)
