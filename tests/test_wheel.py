"""What a merchant installs: the built wheel, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def _run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "ivr.ops.cli", *arguments]
    return subprocess.run(command, cwd=installed.parent, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_carries_models_prompts_and_fixtures(installed: Path) -> None:
    shipped = installed / "ivr" / "_shipped"
    models = ("models/digits/manifest.json", "models/digits-zh/manifest.json", "models/voice/manifest.json")
    for needed in (*models, "fixtures/audio/alice/card.wav"):
        assert (shipped / needed).is_file()
    assert (installed / "ivr" / "call" / "prompts" / "audio" / "en" / "card.ask.ulaw").is_file()
    assert not (installed / "recipes").exists()


def test_outside_the_checkout_it_hears_with_the_shipped_model(installed: Path) -> None:
    card = installed / "ivr" / "_shipped" / "fixtures" / "audio" / "alice" / "card.wav"
    done = _run(installed, "transcribe", "--json", str(card))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == str(card)


def test_the_command_line_of_the_wheel_names_its_commands(installed: Path) -> None:
    listed = _run(installed, "--help").stdout
    for command in ("serve", "worker", "call", "transcribe", "demo", "customer", "card", "bill", "enrol"):
        assert command in listed
