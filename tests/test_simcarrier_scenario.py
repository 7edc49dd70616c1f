"""Scenario files: what they may say, and how clearly they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ivr.ops.simcarrier.scenario import Scenario, ScenarioError, load, parse

REPO = Path(__file__).parent.parent


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "call.toml"
    path.write_text(text)
    return path


def test_a_whole_call_is_read(tmp_path: Path) -> None:
    scenario = load(
        write(
            tmp_path,
            """
            name = "A customer pays"
            [caller]
            from = "+14155550101"
            attestation = "TN-Validation-Passed-A"
            voice = "alice"
            [[turn]]
            expect = "card.ask"
            play = "alice/card.wav"
            [[turn]]
            expect = "challenge.ask"
            say = "{digits}"
            repeat_request = {times = 2, delay_s = 1}
            drop_response = true
            [[turn]]
            keys = "{card.alice}#"
            barge = true
            [[turn]]
            silence = 6.0
            noise = "noise/babble.wav"
            [end]
            payment = "paid"
            debits = 1
            heard = ["pay.done"]
            """,
        )
    )
    assert scenario.caller.from_ == "+14155550101"
    assert [turn.expect for turn in scenario.turns] == ["card.ask", "challenge.ask", None, None]
    assert scenario.turns[1].faults.repeat_request is not None
    assert scenario.turns[1].faults.drop_response
    assert scenario.end.debits == 1
    assert scenario.folder == tmp_path


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ('expect = "a"\nsay = "1"\nkeys = "1"', "turn 1: say and keys cannot stand in one turn"),
        ('expect = "a"\nplays = "a.wav"', "turn 1, plays: no such key"),
        ('expect = "a"\nkeys = "12x"', "turn 1, keys: only the keys 0-9"),
        ('expect = "a"\nsilence = -1', "turn 1, silence: "),
        ('expect = "a"\nrepeat_request = {time = 2}', "turn 1, repeat_request, time: no such key"),
        ("barge = true", "turn 1: nothing is expected and nothing done"),
        ('expect = "a"\nnoise = "a.wav"', "turn 1: noise needs silence"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, turn: str, problem: str) -> None:
    path = write(tmp_path, f'name = "x"\n[caller]\nfrom = "+1"\n[[turn]]\n{turn}\n')
    with pytest.raises(ScenarioError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)


def test_a_wrong_key_is_not_quoted(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "x"\n[caller]\nfrom = "+1"\n[[turn]]\nkeys = "4111 1111 1111 1111"\n')
    with pytest.raises(ScenarioError) as error:
        load(path)
    assert "4111" not in str(error.value)


def test_a_missing_caller_and_broken_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="caller: Field required"):
        load(write(tmp_path, 'name = "x"\n'))
    with pytest.raises(ScenarioError, match=r"call\.toml: .*line 1"):
        load(write(tmp_path, "name = \n"))
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.toml")


def test_takes_and_gaps_depend_on_the_name_unless_a_seed_is_given() -> None:
    def seed(name: str, **caller: object) -> int:
        return parse({"name": name, "caller": {"from": "+1", **caller}}, "test").seed

    assert seed("a") == seed("a") != seed("b")
    assert seed("a", seed=7) == seed("b", seed=7) == 7


@pytest.mark.parametrize("path", sorted((REPO / "fixtures/calls").glob("*.toml")), ids=lambda path: path.stem)
def test_the_calls_that_ship_are_scenarios(path: Path) -> None:
    assert isinstance(load(path), Scenario)
