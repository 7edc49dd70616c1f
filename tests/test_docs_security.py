"""What the security page names is there: files, headings, tests, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ivr.ops.cli import main

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "security.md").read_text()
TESTS = Path(__file__).parent


@pytest.mark.parametrize("page", ["../README.md", "security.md", "deployment.md", "console.md", "voice.md"])
def test_links_lead_somewhere(page: str) -> None:
    here = DOCS / page
    for target in re.findall(r"\]\(([^)\s]+)\)", here.read_text()):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        there = here.parent / file if file else here
        assert there.exists(), target
        if heading:
            assert heading in [_anchor(line) for line in there.read_text().splitlines() if line.startswith("#")], target


def test_tests_that_are_named_exist() -> None:
    written = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)(\.py)?`", PAGE):
        assert (TESTS / f"{name[0]}.py").exists() if name[1] else f"def {name[0]}(" in written, name[0]


def test_commands_that_are_named_exist() -> None:
    named = set(re.findall(r"`ivr ([^`]+)`", PAGE)) | set(re.findall(r"^ivr (.+)$", PAGE, re.MULTILINE))
    assert len(named) > 20
    for line in named:
        command: click.Command = main
        context = click.Context(main)
        for word in shlex.split(line, comments=True):
            if not isinstance(command, click.Group):
                break
            found = command.get_command(context, word)
            assert found, f"ivr {line}"
            command = found


def _anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")
