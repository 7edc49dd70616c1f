"""Agreement: one member's part message by message, and whole consortia under every fault that a seed can bring."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import CHECKS, Chain, certify, entry, secrets_of

from bench.ledger import fairness
from bench.ledger.simulator import Broken, Disk, Plan, Simulation, simulate, too_many_faulty
from ivr.ledger import chain
from ivr.ledger.crypto import SodiumSecret
from ivr.ledger.rules import MOST_WAITING, Core, Full, Memory
from ivr.ledger.wire import (
    Ask,
    Block,
    Blocks,
    Certificate,
    Change,
    Fetch,
    Final,
    Message,
    Misconduct,
    Proposal,
    Records,
    Status,
    TermChange,
    TermMessage,
    Vote,
)


@pytest.fixture
def four() -> Chain:
    return Chain(secrets_of(4))


def core(four: Chain, name: str, memory: Memory | None = None, *, lost_disk: bool = False) -> Core:
    if memory is None and not lost_disk:
        memory = Memory(height=1)
    nonces = iter(f"{n:064x}" for n in range(100))
    disk = Disk(four.state)
    return Core(
        four.secrets[name], CHECKS, four.state, disk, memory, now=0.0, new_nonce=lambda: next(nonces), patience_s=1.0
    )


def sent(member: Core, kind: type) -> list[Message]:  # type: ignore[type-arg]
    found = [message for _, message in member.outbox if isinstance(message, kind)]
    member.outbox.clear()
    return found


def others(four: Chain, *names: str) -> list[SodiumSecret]:
    return [secret for secret in four.secrets.values() if secret.name not in names]


def voter(four: Chain) -> tuple[str, str]:
    """The first holder, and a member that is not."""
    holder = four.right()[0].name
    return holder, others(four, holder)[0].name


def test_the_holder_proposes_what_waits_at_once_and_others_wait(four: Chain) -> None:
    holder, other = voter(four)
    for name in (holder, other):
        member = core(four, name)
        member.submit([entry(four.secrets[name], four.genesis.chain, "p1")], 0.0)
        assert len(sent(member, Proposal)) == (name == holder)


def test_a_member_votes_once_in_a_term_and_remembers_it_across_a_restart(four: Chain) -> None:
    holder, other = voter(four)
    first = four.make()
    second = four.make(entry(four.secrets[holder], four.genesis.chain, "p1"))
    member = core(four, other)
    member.receive(holder, Proposal(term=0, block=first), 0.0)
    [vote] = sent(member, Vote)
    assert isinstance(vote, Vote)
    assert (vote.phase, vote.hash) == ("vote", first.hash)
    member.receive(holder, Proposal(term=0, block=second), 0.1)
    assert sent(member, Vote) == []
    assert member.memory is not None
    again = core(four, other, Memory.model_validate_json(member.memory.model_dump_json()))
    again.receive(holder, Proposal(term=0, block=second), 0.2)
    assert sent(again, Vote) == []
    again.receive(holder, Proposal(term=0, block=first), 0.3)
    assert [v.hash for v in sent(again, Vote)] == [first.hash]  # type: ignore[union-attr]


def test_two_blocks_of_one_right_are_told_to_everybody_as_misconduct(four: Chain) -> None:
    holder, other = voter(four)
    member = core(four, other)
    member.receive(holder, Proposal(term=0, block=four.make()), 0.0)
    member.receive(
        holder, Proposal(term=0, block=four.make(entry(four.secrets[holder], four.genesis.chain, "p1"))), 0.1
    )
    told = [record.kind for message in sent(member, Records) for record in message.records]  # type: ignore[union-attr]
    assert told == ["misconduct"]


def change_term(four: Chain, secret: SodiumSecret, term: int, lock: Certificate | None = None) -> TermChange:
    draft = TermChange(
        height=four.state.height + 1,
        term=term,
        member=secret.name,
        proof=secret.prove(chain.term_alpha(four.state, term)),
        locked_term=lock.term if lock else -1,
        locked=lock.hash if lock else "",
        signature="0" * 128,
    )
    return draft.replaced(signature=secret.sign(draft.statement(four.state.chain)))


def test_a_locked_member_votes_for_another_block_only_when_shown_newer_votes(four: Chain) -> None:
    holder, other = voter(four)
    block = four.make()
    votes = certify(four.state, block, others(four)[:3], "vote")
    member = core(four, other)
    member.receive(holder, Proposal(term=0, block=block), 0.0)
    member.receive(holder, votes, 0.0)
    [_, cosign] = sent(member, Vote)
    assert isinstance(cosign, Vote)
    assert cosign.phase == "cosign"
    assert member.memory is not None
    assert member.memory.lock == votes

    # Term 1 without the locked member's word: a new block. It is valid, but this member is locked.
    changes = tuple(change_term(four, secret, 1) for secret in others(four, other))
    winner = chain.winner(four.state, 1, changes, CHECKS)[0].name
    fresh = chain.make(four.state, four.secrets[winner], CHECKS, [], term=1, terms=changes)
    member.receive(winner, Proposal(term=1, block=fresh), 1.0)
    assert sent(member, Vote) == []
    # A quorum voted for that block all the same. In term 2 those votes are shown: they are newer.
    newer = Certificate(
        phase="vote",
        height=1,
        term=1,
        hash=fresh.hash,
        signatures=tuple(
            (s.name, s.sign(chain.vote_statement(four.state.chain, "vote", 1, 1, fresh.hash)))
            for s in others(four, other)
        ),
    )
    changes = tuple(change_term(four, secret, 2, newer) for secret in others(four, other))
    winner = chain.winner(four.state, 2, changes, CHECKS)[0].name
    bare = Proposal(term=2, block=fresh, terms=changes)
    member.receive(winner, bare, 2.0)
    assert sent(member, Vote) == []
    member.receive(winner, bare.replaced(lock=newer), 2.0)
    assert [v.hash for v in sent(member, Vote)] == [fresh.hash]  # type: ignore[union-attr]


def test_a_member_that_gave_up_on_a_term_signs_nothing_more_in_it(four: Chain) -> None:
    holder, other = voter(four)
    block = four.make()
    member = core(four, other)
    member.submit([entry(four.secrets[other], four.genesis.chain, "p1")], 0.0)
    member.receive(holder, Proposal(term=0, block=block), 0.1)
    member.outbox.clear()
    member.tick(5.0)
    assert [m.change.term for m in sent(member, TermMessage)] == [1]  # type: ignore[union-attr]
    member.receive(holder, certify(four.state, block, others(four)[:3], "vote"), 5.1)
    assert sent(member, Vote) == []
    member.receive(holder, certify(four.state, block, others(four)[:3]), 5.2)  # but what is final is final
    assert member.state.height == 1


def test_a_proposer_cannot_leave_out_a_lower_lot_that_others_know_of(four: Chain) -> None:
    lots = sorted(four.secrets.values(), key=lambda s: chain.lot(four.state, change_term(four, s, 1), CHECKS))
    lowest, usurper, reader = lots[0], lots[1], lots[2]
    changes = tuple(change_term(four, secret, 1) for secret in lots[1:])
    block = chain.make(four.state, usurper, CHECKS, [], term=1, terms=changes)
    for knows in (True, False):
        member = core(four, reader.name)
        if knows:
            member.receive(lowest.name, TermMessage(change=change_term(four, lowest, 1)), 0.0)
        member.receive(usurper.name, Proposal(term=1, block=block), 0.1)
        assert len(sent(member, Vote)) == (not knows)


def test_after_a_lost_disk_a_member_signs_nothing_at_heights_it_may_have_signed_at(four: Chain) -> None:
    final = four.grow()
    holder, other = voter(four)
    known = Chain(secrets_of(4))  # the member begins with the genesis file
    member = core(known, other, lost_disk=True)
    member.receive(holder, Proposal(term=0, block=known.make()), 0.0)
    assert sent(member, Vote) == []
    member.tick(1.0)
    [ask] = sent(member, Ask)
    assert isinstance(ask, Ask)
    told = Status(height=1, nonce=ask.nonce)
    for bad in (told.replaced(nonce="f" * 64), told.replaced(recovering=True), told.replaced(height=9)):
        for secret in others(four, other):
            member.receive(secret.name, bad, 1.1)
    assert member.memory is None
    for secret in others(four, other):
        member.receive(secret.name, told, 1.2)
    assert member.memory is None  # it has not come as far
    member.receive(holder, Blocks(height=1, finals=(final,)), 1.3)
    assert member.memory is not None
    assert member.memory.abstain == 3
    assert not member.may_sign


def test_what_is_not_signed_by_who_sends_it_changes_nothing(four: Chain) -> None:
    holder, other = voter(four)
    member = core(four, other)
    block = four.make()
    votes = certify(four.state, block, others(four), "vote")
    stranger = block.header.replaced(signature="0" * 128)
    before = member.memory
    for message in (
        Proposal(term=0, block=Block(header=stranger, records=())),
        Proposal(term=1, block=block),
        Proposal(term=3, block=block, terms=(change_term(four, others(four)[0], 3),)),
        certify(four.state, block, others(four)[:2]),
        certify(four.state, block, others(four)[:3]).replaced(hash="1" * 64),
        TermMessage(change=change_term(four, four.secrets[holder], 1).replaced(term=2)),
        TermMessage(change=change_term(four, others(four, holder)[0], 1)),
        TermMessage(change=change_term(four, four.secrets[holder], 2, votes.replaced(term=1))),
    ):
        member.receive(holder, message, 0.0)
    member.receive(others(four, holder)[0].name, Proposal(term=0, block=block), 0.0)
    member.receive("nobody", Proposal(term=0, block=block), 0.0)
    assert (member.memory, member.state.height, sent(member, Vote)) == (before, 0, [])


def test_what_waits_is_bounded_and_no_member_takes_the_others_room(four: Chain) -> None:
    _, other = voter(four)
    member = core(four, other)
    one = entry(four.secrets[other], four.genesis.chain, "p0")
    records = [one.replaced(id=f"p{i}") for i in range(MOST_WAITING + 1)]
    with pytest.raises(Full):
        member.submit(records, 0.0)
    member._waiting[other] = MOST_WAITING // 4
    assert member.submit([entry(four.secrets[other], four.genesis.chain, "p1")], 0.0) == ["too many records wait"]
    neighbour = others(four, other)[0]
    assert member.submit([entry(neighbour, four.genesis.chain, "p1")], 0.0) == [""]


def test_a_lock_that_nobody_signed_moves_no_locked_member(four: Chain) -> None:
    holder, other = voter(four)
    block = four.make()
    member = core(four, other)
    member.receive(holder, Proposal(term=0, block=block), 0.0)
    member.receive(holder, certify(four.state, block, others(four)[:3], "vote"), 0.0)
    member.outbox.clear()
    changes = tuple(change_term(four, secret, 1) for secret in others(four, other))
    winner = chain.winner(four.state, 1, changes, CHECKS)[0].name
    fresh = chain.make(four.state, four.secrets[winner], CHECKS, [], term=1, terms=changes)
    forged = certify(four.state, fresh, others(four)[:3], "vote").replaced(term=9)
    member.receive(winner, Proposal(term=1, block=fresh, lock=forged), 1.0)
    assert sent(member, Vote) == []


def test_what_a_member_that_left_handed_in_too_late_is_in_no_block(four: Chain) -> None:
    leaver = four.right()[0].name
    reader = others(four, leaver)[0].name
    leave = Change(version=0, leave=leaver)
    statement = leave.statement(four.genesis.chain)
    leave = leave.replaced(approvals=tuple((s.name, s.sign(statement)) for s in others(four, leaver)))
    member = core(four, reader)
    member.receive(leaver, Blocks(height=2, finals=(four.grow(leave),)), 0.0)
    member.receive(leaver, Records(records=(entry(four.secrets[leaver], four.genesis.chain, "late"),)), 0.1)
    assert len(member.pool) == 1  # it counts until the next block
    member.receive(leaver, Blocks(height=2, finals=(four.grow(),)), 0.2)
    assert member.state.height == 2
    assert member.pool == {}


def test_a_right_that_its_maker_wrote_in_other_letters_does_no_harm(four: Chain) -> None:
    """It is the same number, but not what a header may hold."""
    holder, _ = voter(four)
    block = four.make()
    state = chain.check(four.state, block, CHECKS, lambda _: ())
    alpha = chain.draw_alpha(four.state.chain, 1, state.seed)
    drawn = CHECKS.drawn(four.state.members[holder], alpha, proof := four.secrets[holder].prove(alpha))
    assert drawn is not None
    following = chain.pick(four.state.upcoming, drawn)
    header = block.header.replaced(grant=CHECKS.seal(following, proof.upper()))
    header = header.replaced(signature=four.secrets[holder].sign(header.hash))
    shouted = Block(header=header, records=())
    member = core(four, following.name)
    final = Final(block=shouted, certificate=certify(four.state, shouted, others(four)))
    member.receive(holder, Blocks(height=1, finals=(final,)), 0.0)
    member.submit([entry(four.secrets[following.name], four.genesis.chain, "p1")], 0.1)
    assert sent(member, Proposal) == []


def test_a_member_that_lost_its_disk_believes_no_members_of_long_ago(four: Chain) -> None:
    """All but it have left since; that they say how far they were is no quorum of those who know what it signed."""
    lost = "m0"
    newcomers = [SodiumSecret(f"n{i}", bytes([100 + i]) * 32) for i in range(4)]
    changes = [Change(version=n, join=s.member(f"http://{s.name}.example")) for n, s in enumerate(newcomers)]
    changes += [Change(version=4 + n, leave=name) for n, name in enumerate(("m1", "m2", "m3"))]
    four.secrets |= {secret.name: secret for secret in newcomers}
    for change in changes:
        statement = change.statement(four.genesis.chain)
        signers = [four.secrets[member.name] for member in four.state.upcoming]
        four.grow(change.replaced(approvals=tuple((s.name, s.sign(statement)) for s in signers)))
    for _ in range(3):
        four.grow()
    began = Chain([four.secrets[f"m{i}"] for i in range(4)])
    member = core(began, lost, lost_disk=True)
    member.tick(1.0)
    [ask] = sent(member, Ask)
    assert isinstance(ask, Ask)
    for name in ("m1", "m2", "m3"):
        member.receive(name, Status(height=4, nonce=ask.nonce), 1.1)
    member.receive("m1", Blocks(height=10, finals=tuple(four.finals)), 1.2)
    assert (member.state.height, member.memory) == (10, None)
    for secret in newcomers:
        member.receive(secret.name, Status(height=10, nonce=ask.nonce), 1.3)
    assert member.memory is not None
    assert member.memory.abstain == 12


def test_who_boasts_of_blocks_keeps_nobody_from_those_that_have_them(four: Chain) -> None:
    liar, honest = "m1", "m2"
    member = core(four, "m0")
    asked = set()
    for n in range(400):  # four seconds
        now = n / 100
        member.receive(liar, Status(height=10**6), now)
        if n % 100 == 50:
            member.receive(honest, Status(height=5), now)
        asked |= {to for to, message in member.outbox if isinstance(message, Fetch)}
        member.outbox.clear()
    assert honest in asked


def test_of_a_members_misconduct_one_proof_waits(four: Chain) -> None:
    holder, other = voter(four)
    member = core(four, other)
    header = four.make().header
    proofs = []
    for height in range(5, 10):
        two = [header.replaced(height=height, root=digit * 64) for digit in "12"]
        two = [each.replaced(signature=four.secrets[holder].sign(each.hash)) for each in two]
        proofs.append(Misconduct(first=two[0], second=two[1]))
    member.receive(holder, Records(records=tuple(proofs)), 0.0)
    assert list(member.pool) == [proofs[0].key]


def test_headers_of_terms_that_nobody_came_to_hide_no_misconduct(four: Chain) -> None:
    holder, other = voter(four)
    member = core(four, other)
    first, second = four.make(), four.make(entry(four.secrets[holder], four.genesis.chain, "p1"))
    change = change_term(four, four.secrets[holder], 1)
    for term in range(1, 200):
        made_up = first.header.replaced(term=term)
        made_up = made_up.replaced(signature=four.secrets[holder].sign(made_up.hash))
        member.receive(holder, TermMessage(change=change, voted=made_up), 0.0)
    member.receive(holder, Proposal(term=0, block=first), 0.1)
    member.receive(holder, Proposal(term=0, block=second), 0.1)
    told = [record.kind for message in sent(member, Records) for record in message.records]  # type: ignore[union-attr]
    assert told == ["misconduct"]


@pytest.mark.parametrize("seed", range(40))
def test_no_fault_that_is_tolerated_forks_the_chain_or_stops_it(seed: int) -> None:
    simulate(seed)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(10**6, 10**9),
    plan=st.builds(
        Plan,
        members=st.just(4),
        liars=st.just(1),
        loss=st.floats(0, 0.3),
        twice=st.floats(0, 0.5),
        delay_s=st.floats(0.01, 1.5),
        crashes=st.integers(0, 8),
        partitions=st.integers(0, 4),
        records=st.integers(1, 8),
    ),
)
def test_one_liar_among_four_and_any_network(seed: int, plan: Plan) -> None:
    simulate(seed, plan)


def test_liars_with_rounds_of_other_terms_do_not_answer_each_other_without_end() -> None:
    plan = Plan.drawn(1507)
    plan.records = 6
    simulate(1507, plan)


@pytest.mark.parametrize("seed", [*range(8), 858])  # 858: one catches up while the chain stands still
def test_more_faults_than_are_tolerated_halt_the_chain_and_do_not_fork_it(seed: int) -> None:
    outcome = simulate(seed, too_many_faulty(seed), halts=True)
    assert outcome.final_records < outcome.plan.records


def test_the_same_seed_gives_the_same_run() -> None:
    assert simulate(7) == simulate(7)


def test_the_watch_notices_members_that_forget_what_they_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule switched off that holds it all together: some seed must show a fork, or the watch sees nothing."""

    def forget(self: Core, sender: str, proposal: Proposal) -> bool:
        return True

    monkeypatch.setattr(Core, "_may_vote", forget)
    noticed = 0
    for seed in range(40):
        try:
            Simulation(seed, Plan(members=4, liars=1, loss=0.1, delay_s=1.0, crashes=4)).run()
        except Broken:
            noticed += 1
            break
    assert noticed


def test_every_member_holds_as_often_as_chance_says() -> None:
    held = fairness.draws(members=7, blocks=700, seed=1)
    assert fairness.chi_squared(held) > 0.001


def test_whoever_withholds_blocks_gains_nothing() -> None:
    honest, cheating = (fairness.withholding(members=7, heights=20_000, seed=2, withholds=w) for w in (False, True))
    assert cheating < honest


def test_ideal_and_real_cryptography_agree_on_what_is_drawn_by_whom() -> None:
    chance = random.Random(3)
    roster = [secret.member("http://x") for secret in secrets_of(5)]
    picked = {chain.pick(roster, chance.randbytes(64)).name for _ in range(200)}
    assert picked == {member.name for member in roster}
