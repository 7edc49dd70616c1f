"""The ledger's bench counts, judges and replays."""

from __future__ import annotations

import pytest

from bench.ledger import __main__ as bench
from bench.ledger import seeds
from bench.ledger.simulator import Broken, Plan, Simulation


def test_seeds_are_run_and_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--seeds", "10", "--jobs", "1", "--only", "seeds"]) == 0
    printed = capsys.readouterr().out
    assert "PASS seeds_forked_or_stuck 0 0 10" in printed
    assert "PASS seeds_with_too_many_faulty_that_forked_or_went_on 0 0 1" in printed


def test_a_seed_replays(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["seed", "5"]) == 0
    first = capsys.readouterr().out
    assert bench.main(["seed", "5"]) == 0
    assert capsys.readouterr().out == first
    assert "seed=5" in first


def test_the_messages_of_a_block_grow_with_the_members_and_its_delays_do_not() -> None:
    found = [seeds.growth(members) for members in (4, 7, 16)]
    assert [growth.messages for growth in found] == [15, 30, 75]
    assert all(growth.delays == pytest.approx(5) or growth.delays == pytest.approx(6) for growth in found)


def test_two_blocks_that_could_be_final_at_one_height_are_noticed() -> None:
    simulation = Simulation(1, Plan(members=4))
    for name in ("m000", "m001", "m002"):
        simulation._cosign(name, 1, 0, "a" * 64)
    for name in ("m000", "m001"):
        simulation._cosign(name, 1, 1, "b" * 64)
    with pytest.raises(Broken, match="two blocks"):
        simulation._cosign("m003", 1, 1, "b" * 64)
