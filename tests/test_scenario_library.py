"""The library of scenes against what the service claims: each way in which a call can end is played, or said not to be.

That every scene is right is shown by ``make scenarios``; those of the demo, and each protection off, by ``test_demo``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ivr.call.flow import TABLE, State
from ivr.ops.demo.scenes import PREPARATIONS
from ivr.ops.simcarrier.scenario import Scenario, load

REPO = Path(__file__).parents[1]
FILES = sorted((REPO / "fixtures/calls").glob("*.toml"))

#: Ends that no scene plays, and where they are tested instead.
ELSEWHERE = {
    "pay.held": "a bill that is held first: test_payments_holds",
    "pay.later": "a bank that does not answer for a minute: test_call_flow, test_bench_faults",
    "pay.not_allowed": "a policy that changes within the call: test_bill_calls",
    "approval.later": "nobody answers for five minutes: test_approval_calls",
    "approval.expired": "nobody answers for days: test_approval_requests",
    "approver.frozen": "test_approval_ringing; on the page, scene 19",
    "approver.later": "by the table: test_call_flow",
    "approver.over": "answered meanwhile: test_approval_ringing",
    "approver.refused": "test_approval_ringing; on the page, scene 36",
    "rung.over": "paid meanwhile: test_bill_calls",
}


def heard(scenario: Scenario) -> set[str]:
    turns = (*scenario.turns, *scenario.whenever)
    return {*scenario.end.heard, *(turn.expect for turn in turns if turn.expect)}


def test_every_end_of_a_call_is_played_or_tested_elsewhere() -> None:
    ends = {row.say for row in TABLE.values() if row.to in (State.OVER, State.AGENT)}
    played = set().union(*(heard(load(path)) for path in FILES))
    assert ends - played == set(ELSEWHERE)
    for where in ELSEWHERE.values():
        for module in re.findall(r"test_\w+", where):
            assert (REPO / "tests" / f"{module}.py").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scene_has_its_people_and_its_line_in_the_documentation(path: Path) -> None:
    assert path.name[:2] in PREPARATIONS
    scenario = load(path)
    row = f"| {path.name[:2]} | {scenario.name} | {', '.join(scenario.locales)} |"
    assert row in (REPO / "docs/calls.md").read_text(encoding="utf-8")


def test_scenes_have_telephones_of_their_own() -> None:
    shared: dict[str, list[str]] = {}
    for path in FILES:
        shared.setdefault(load(path).caller.from_, []).append(path.name[:2])
    del shared["anonymous"]
    assert [kinds for kinds in shared.values() if len(kinds) > 1] == [["01", "08"], ["11", "12"], ["14", "15"]]
