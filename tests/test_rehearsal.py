"""The README's rehearsal of a deployment, run as it stands there: nginx, TLS, two web processes, PostgreSQL, Redis."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATIENCE_S = 300  # it takes 40 s on two idle cores


def test_a_call_pays_through_the_proxy(short_folder: Path) -> None:
    if missing := [name for name in ("nginx", "curl", "openssl") if shutil.which(name) is None]:
        assert not os.environ.get("CI"), f"{missing} must be installed"
        pytest.skip(f"{missing} not installed: apt-get install nginx-light curl openssl")
    clone = short_folder / "clone"
    clone.mkdir()
    for name in ("deploy", "fixtures"):
        (clone / name).symlink_to(ROOT / name)
    (clone / ".venv").symlink_to(sys.prefix)
    run, end = _bash_blocks("### Rehearse it on this machine")
    commands = f"end() {{ set +e; mkdir ../logs; cp *.log ../logs\n{end}}}\ntrap end EXIT\n{run}"
    ports = dict(zip(("WEB", "BANK", "REDIS", "HTTPS"), _free_ports(4), strict=True))
    status, said = _bash(commands, clone, _environment() | ports)
    logs = {log.name: log.read_text() for log in (clone / "build" / "logs").glob("*.log")}
    assert status == 0, said + "".join(f"\n--- {name}\n{log[-2000:]}" for name, log in logs.items())
    assert "2 of 2 calls as they should be" in said
    assert "records, books and bank agree" in said
    assert "POST /voice/answer 200" in logs["pay-by-voice.log"]
    assert "GET /voice/stream 101" in logs["pay-by-voice.log"], "the websocket went through the proxy"
    assert not (clone / "build" / "rehearsal").exists()


def _bash(commands: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit status, and all that was said; what the commands started is ended by them, in time or not."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
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


def _bash_blocks(heading: str) -> list[str]:
    section = (ROOT / "README.md").read_text().split(f"{heading}\n")[1]
    section = re.split(r"^#{2,3} ", section, flags=re.MULTILINE)[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("IVR_")}
    return inherited | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}


def _free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]
