"""The chain's rules: what follows, who may make it, what may be in it, and what proves it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from ledger_support import CHECKS, Chain, certify, entry, secrets_of

from ivr.ledger import chain, merkle, proof
from ivr.ledger.chain import Invalid
from ivr.ledger.crypto import SodiumSecret
from ivr.ledger.outbox import commitment
from ivr.ledger.wire import Block, Change, Final, Misconduct, TermChange
from ivr.ops.cli import main


@pytest.fixture
def four() -> Chain:
    return Chain(secrets_of(4))


@pytest.mark.parametrize(
    ("members", "quorum", "tolerated"), [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 3, 1), (5, 4, 1), (7, 5, 2), (16, 11, 5)]
)
def test_how_many_must_sign_and_how_many_may_be_faulty(members: int, quorum: int, tolerated: int) -> None:
    assert (chain.quorum(members), chain.tolerated(members)) == (quorum, tolerated)


@given(st.integers(1, 10_000))
def test_two_quorums_share_an_honest_member_and_the_honest_are_one(members: int) -> None:
    quorum, faulty = chain.quorum(members), chain.tolerated(members)
    assert 2 * quorum - members > faulty
    assert members - faulty >= quorum


@given(leaves=st.lists(st.binary(max_size=40), min_size=1, max_size=40), data=st.data())
def test_a_merkle_path_proves_its_leaf_in_its_place_only(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = merkle.path(leaves, index), merkle.root(leaves)
    assert merkle.verify(leaves[index], index, len(leaves), path, root)
    assert not merkle.verify(leaves[index] + b"x", index, len(leaves), path, root)
    assert not merkle.verify(leaves[index], index, len(leaves), [*path, bytes(32)], root)
    assert not merkle.verify(leaves[index], index + len(leaves), len(leaves), path, root)
    for other in range(len(leaves)):
        if leaves[other] != leaves[index]:
            assert not merkle.verify(leaves[index], other, len(leaves), path, root)


def test_the_root_of_certificate_transparency() -> None:
    """The tree of RFC 6962's reference implementation: eight leaves, and the first seven of them."""
    leaves = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    leaves.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root(leaves[:7]).hex() == "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"
    assert merkle.root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_block_follows_and_names_its_holder(four: Chain) -> None:
    first = four.grow(entry(four.secrets["m0"], four.genesis.chain, "p1"))
    second = four.grow()
    assert second.block.header.previous == first.block.hash
    assert four.state.height == 2


def test_only_the_next_holder_can_open_the_grant_and_its_draw_is_the_makers_only_one(four: Chain) -> None:
    for _ in range(12):
        four.grow()
        header = four.finals[-1].block.header
        opened = [s.name for s in four.secrets.values() if s.unseal(header.grant) is not None]
        holder, shown = four.right()
        assert opened == [holder.name]
        assert chain.holder(four.state, shown, CHECKS)[0].name == holder.name
        for other in four.secrets.values():  # nobody else's proof draws anybody
            if other.name != header.maker:
                alpha = chain.draw_alpha(four.state.chain, four.state.height, four.state.seed)
                with pytest.raises(Invalid):
                    chain.holder(four.state, other.prove(alpha), CHECKS)


def test_what_is_in_a_block_has_no_part_in_the_draw(four: Chain) -> None:
    """Two blocks of the same right draw the same holder, whatever their maker puts into them."""
    four.grow()
    holder, _ = four.right()
    blocks = [four.make(), four.make(entry(holder, four.genesis.chain, "p1"))]
    assert len({block.hash for block in blocks}) == 2
    states = [chain.check(four.state, block, CHECKS, lambda _: ()) for block in blocks]
    assert len({state.seed for state in states}) == 1
    drawn = [[s.unseal(block.header.grant) for s in four.secrets.values()] for block in blocks]
    assert drawn[0] == drawn[1]


def test_a_member_without_the_right_cannot_make_a_block(four: Chain) -> None:
    four.grow()
    holder, shown = four.right()
    other = next(s for s in four.secrets.values() if s.name != holder.name)
    with pytest.raises(Invalid):
        chain.make(four.state, other, CHECKS, [], proof=shown)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 3),
        ("previous", "1" * 64),
        ("state", "1" * 64),
        ("root", "1" * 64),
        ("count", 2),
        ("proof", "00" * 80),
        ("chain", "1" * 64),
        ("term", 1),
    ],
)
def test_a_changed_header_is_refused_though_its_maker_signs_it(four: Chain, field: str, value: object) -> None:
    four.grow()
    holder, _ = four.right()
    header = four.make().header.replaced(**{field: value})
    block = Block(header=header.replaced(signature=holder.sign(header.hash)), records=())
    with pytest.raises(Invalid):
        chain.check(four.state, block, CHECKS, lambda _: ())


def test_a_record_of_no_member_or_twice_or_changed_is_refused(four: Chain) -> None:
    good = entry(four.secrets["m0"], four.genesis.chain, "p1")
    stranger = entry(SodiumSecret("m9", bytes([9]) * 32), four.genesis.chain, "p1")
    bad = [
        [good, good],
        [stranger],
        [good.replaced(commitment="cd" * 32)],
        [good.replaced(kind="refund")],
        [good.replaced(member="m1")],
        [entry(four.secrets["m0"], "1" * 64, "p1")],
    ]
    for records in bad:
        with pytest.raises(Invalid):
            chain.check(four.state, four.make(*records), CHECKS, lambda _: ())
    with pytest.raises(Invalid):
        chain.check(four.state, four.make(good), CHECKS, set)  # set(keys): the chain has all of them
    chain.check(four.state, four.make(good), CHECKS, lambda _: ())


def test_a_certificate_needs_a_quorum_of_different_members_on_this_block(four: Chain) -> None:
    block = four.make()
    secrets = list(four.secrets.values())
    full = certify(four.state, block, secrets[:3])
    chain.check_certificate(four.state, full, "cosign", CHECKS)
    stranger = certify(four.state, block, [*secrets[:2], SodiumSecret("m9", bytes([9]) * 32)])
    forged = full.replaced(signatures=(*full.signatures[:2], ("m2", full.signatures[0][1])))
    twice = full.replaced(signatures=(*full.signatures[:2], full.signatures[0]))
    few = certify(four.state, block, secrets[:2])
    for bad in (stranger, forged, twice, few, full.replaced(hash="1" * 64), full.replaced(term=1)):
        with pytest.raises(Invalid):
            chain.check_certificate(four.state, bad, "cosign", CHECKS)
    with pytest.raises(Invalid):
        chain.check_certificate(four.state, certify(four.state, block, secrets, "vote"), "cosign", CHECKS)


def term_changes(four: Chain, term: int, names: str = "0123") -> tuple[TermChange, ...]:
    changes = []
    for n in names:
        secret = four.secrets[f"m{n}"]
        draft = TermChange(
            height=four.state.height + 1,
            term=term,
            member=secret.name,
            proof=secret.prove(chain.term_alpha(four.state, term)),
            signature="0" * 128,
        )
        changes.append(draft.replaced(signature=secret.sign(draft.statement(four.state.chain))))
    return tuple(changes)


def test_in_a_later_term_a_quorums_messages_draw_the_holder(four: Chain) -> None:
    four.grow()
    changes = term_changes(four, 1)
    winner, _ = chain.winner(four.state, 1, changes, CHECKS)
    block = chain.make(four.state, four.secrets[winner.name], CHECKS, [], term=1, terms=changes)
    assert chain.check(four.state, block, CHECKS, lambda _: ()).height == 2
    others = [secret for secret in four.secrets.values() if secret.name != winner.name]
    with pytest.raises(Invalid):
        chain.make(four.state, others[0], CHECKS, [], term=1, terms=changes)
    for bad in (changes[:2], (*changes[:2], changes[0]), term_changes(four, 2)):
        with pytest.raises(Invalid):
            chain.winner(four.state, 1, bad, CHECKS)
    other_lot = changes[0].replaced(proof=changes[1].proof)
    other_lot = other_lot.replaced(signature=four.secrets["m0"].sign(other_lot.statement(four.state.chain)))
    with pytest.raises(Invalid):
        chain.winner(four.state, 1, (other_lot, *changes[1:]), CHECKS)


def signed_change(four: Chain, change: Change, signers: str) -> Change:
    statement = change.statement(four.genesis.chain)
    return change.replaced(approvals=tuple((f"m{n}", four.secrets[f"m{n}"].sign(statement)) for n in signers))


def test_members_join_and_leave_by_a_quorums_change_which_counts_two_blocks_later(four: Chain) -> None:
    joiner = SodiumSecret("m8", bytes([8]) * 32)
    four.secrets["m8"] = joiner
    joins = Change(version=0, join=joiner.member("http://m8.example"))
    for bad in (
        signed_change(four, joins, "01"),
        signed_change(four, joins.replaced(version=1), "012"),
        signed_change(four, joins, "012").replaced(version=1),
        signed_change(four, joins.replaced(join=four.secrets["m1"].member("http://m1.example")), "012"),
        signed_change(four, joins.replaced(leave="m1"), "012"),
    ):
        with pytest.raises(Invalid):
            chain.check_record(four.state, bad, CHECKS)
    four.grow(signed_change(four, joins, "012"))
    assert "m8" not in four.state.members
    four.grow()
    assert "m8" in four.state.members
    four.grow(signed_change(four, Change(version=1, leave="m0"), "1238"))
    with pytest.raises(Invalid):  # used once
        chain.check_record(four.state, signed_change(four, joins, "012"), CHECKS)
    four.grow()
    assert sorted(four.state.members) == ["m1", "m2", "m3", "m8"]


def test_two_blocks_of_one_right_suspend_their_maker(four: Chain) -> None:
    four.grow()
    holder, _ = four.right()
    first, second = four.make().header, four.make(entry(holder, four.genesis.chain, "p1")).header
    misconduct = Misconduct(first=first, second=second)
    elsewhere = first.replaced(maker="m9")
    for bad in (
        Misconduct(first=first, second=first),
        Misconduct(first=first, second=second.replaced(signature=first.signature)),
        Misconduct(first=first, second=four.finals[0].block.header),
        Misconduct(first=elsewhere, second=second),
    ):
        with pytest.raises(Invalid):
            chain.check_record(four.state, bad, CHECKS)
    four.grow(misconduct)
    four.grow()
    assert holder.name not in four.state.members
    with pytest.raises(Invalid):
        chain.check_record(four.state, misconduct, CHECKS)


def test_a_proof_is_checked_with_the_genesis_file_alone_across_changes_of_members() -> None:
    secrets = secrets_of(4)
    book = Chain(secrets)
    joiner = SodiumSecret("m8", bytes([8]) * 32)
    book.secrets["m8"] = joiner
    change = signed_change(book, Change(version=0, join=joiner.member("http://m8.example")), "012")
    first = book.grow(change)
    leaves = signed_change(book, Change(version=1, leave="m0"), "1238")
    second = book.grow(leaves)
    book.grow()
    records = [entry(joiner, book.genesis.chain, f"p{i}") for i in range(5)]
    final = book.grow(*records)
    trail = (proof.include(first, change.key), proof.include(second, leaves.key))
    good = proof.Proof(inclusion=proof.include(final, records[3].key), changes=trail)
    read = proof.Proof.model_validate_json(good.model_dump_json())
    assert proof.check(read, book.genesis, CHECKS) == records[3]
    inclusion = good.inclusion
    bad_certificate = certify(book.state, final.block, [book.secrets[n] for n in ("m1", "m2")])
    other_genesis = book.genesis.replaced(consortium="other")
    for bad, genesis in (
        (good.replaced(changes=()), book.genesis),
        (good, other_genesis),
        (good.replaced(inclusion=inclusion.replaced(record=records[2])), book.genesis),
        (good.replaced(inclusion=inclusion.replaced(index=2)), book.genesis),
        (good.replaced(inclusion=inclusion.replaced(certificate=bad_certificate)), book.genesis),
        (good.replaced(inclusion=inclusion.replaced(header=inclusion.header.replaced(count=6))), book.genesis),
    ):
        with pytest.raises(Invalid):
            proof.check(bad, genesis, CHECKS)


def test_a_change_of_members_counts_once_in_a_proof(four: Chain) -> None:
    """Else a few liars could leave out those who were suspended once, and are members again."""
    four.grow()
    holder, _ = four.right()
    wrong = Misconduct(first=four.make().header, second=four.make(entry(holder, four.genesis.chain, "p1")).header)
    suspended = four.grow(wrong)
    others = "".join(name[1:] for name in four.secrets if name != holder.name)
    joins = signed_change(four, Change(version=0, join=holder.member("http://again.example")), others)
    again = four.grow(joins)
    four.grow()
    record, state = entry(holder, four.genesis.chain, "p2"), four.state
    final = four.grow(record)
    few = certify(state, final.block, [secret for secret in four.secrets.values() if secret is not holder])
    inclusion = proof.include(Final(block=final.block, certificate=few), record.key)
    out, back = proof.include(suspended, wrong.key), proof.include(again, joins.key)
    assert proof.check(proof.Proof(inclusion=inclusion, changes=(out, back)), four.genesis, CHECKS) == record
    with pytest.raises(Invalid):
        proof.check(proof.Proof(inclusion=inclusion, changes=(out, back, out)), four.genesis, CHECKS)


def test_a_checkpoint_names_the_block_of_its_height(four: Chain) -> None:
    before = four.state
    final = four.grow()
    point = proof.Checkpoint(chain=before.chain, certificate=final.certificate)
    proof.check_checkpoint(before, point, final.block.hash, CHECKS)
    with pytest.raises(Invalid):
        proof.check_checkpoint(before, point, "1" * 64, CHECKS)
    unsigned = point.replaced(certificate=final.certificate.replaced(signatures=()))
    with pytest.raises(Invalid):
        proof.check_checkpoint(before, unsigned, final.block.hash, CHECKS)


def test_what_a_proof_shows_stays_on_its_own_line(four: Chain, tmp_path: Path) -> None:
    secret, details = four.secrets["m0"], {"payment": "p1", "merchant": "A\npayment:m1:p9 is in block 1: paid\x9b"}
    draft = entry(secret, four.genesis.chain, "p1").replaced(commitment=commitment("00" * 32, details))
    record = draft.replaced(signature=secret.sign(draft.statement(four.genesis.chain)))
    shown = proof.Proof(inclusion=proof.include(four.grow(record), record.key)).model_dump(mode="json")
    receipt = {"kind": "payment", "subject": "p1", "details": details, "salt": "00" * 32, "proof": shown}
    (tmp_path / "proof.json").write_text(json.dumps([receipt]))
    (tmp_path / "genesis.json").write_text(four.genesis.model_dump_json())
    arguments = ["ledger", "check", f"{tmp_path}/proof.json", "--genesis", f"{tmp_path}/genesis.json"]
    checked = CliRunner().invoke(main, arguments)
    assert checked.exit_code == 0, checked.output
    assert [line[:14] for line in checked.output.splitlines()] == ["payment:m0:p1 "]
    assert checked.output.isascii()


def test_errors_and_reprs_repeat_no_key() -> None:
    secret = SodiumSecret("m1", bytes([7]) * 32)
    assert repr(secret) == "SodiumSecret(m1)"
    with pytest.raises(ValueError, match="Entry") as caught:
        entry(secret, "0" * 64, "4111111111111111 with spaces")
    assert "4111111111111111" not in str(caught.value)


def test_one_member_keeps_the_same_chain_alone() -> None:
    alone = Chain(secrets_of(1))
    for i in range(3):
        final: Final = alone.grow(entry(alone.secrets["m0"], alone.genesis.chain, f"p{i}"))
        assert len(final.certificate.signatures) == 1


def test_a_member_whose_key_nothing_can_be_sealed_to_stops_no_maker() -> None:
    member = SodiumSecret("m1", bytes(32)).member("http://m1.example").replaced(seal="00" * 32)
    assert CHECKS.seal(member, "proof") == ""


def test_keys_of_records_fit_a_nodes_store() -> None:
    with pytest.raises(ValueError, match="name"):
        SodiumSecret("a-" * 20 + "a", bytes(32)).member("http://m1.example")
    longest = entry(SodiumSecret("m" * 32, bytes(32)), "0" * 64, "p" * 64, "settlement")
    assert len(longest.key) <= 128
