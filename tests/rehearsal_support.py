"""The README's rehearsal of a deployment: its commands, and a clone to run them in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.ledger.processes import free_ports

ROOT = Path(__file__).parent.parent
PATIENCE_S = 300  # it takes 40 s on two idle cores
PORTS = ("WEB", "BANK", "REDIS", "HTTPS")


def commands() -> tuple[str, str]:
    """What runs everything, and what ends it, as the README has them."""
    section = (ROOT / "README.md").read_text().split("### Rehearse it on this machine\n")[1]
    section = re.split(r"^#{2,3} ", section, flags=re.MULTILINE)[0]
    run, end = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return run, end


def clone(folder: Path) -> Path:
    """Where the commands find what they name, and write nothing into the repository."""
    if missing := [name for name in ("nginx", "curl", "openssl") if shutil.which(name, path=path()) is None]:
        assert not os.environ.get("CI"), f"{missing} must be installed"
        pytest.skip(f"{missing} not installed: apt-get install nginx-light curl openssl")
    made = folder / "clone"
    made.mkdir()
    for name in ("deploy", "fixtures"):
        (made / name).symlink_to(ROOT / name)
    (made / ".venv").symlink_to(sys.prefix)
    return made


def ports() -> dict[str, str]:
    return {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}


def bash(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit status, and all that was said. In time or not, a trap of the script may end what it started."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("IVR_")}
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**inherited, "PATH": path(), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"  # where Debian has nginx, whoever looks
