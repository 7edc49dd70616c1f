"""Two services on two ports, with one database and one Redis, take turns in one call."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import requests
from rich.console import Console
from urllib3.util import Retry

from bench.ledger.processes import free_ports
from ivr.ops.demo.scenes import play_all
from ivr.ops.demo.stage import stage

SPEED = 16.0

#: Webhooks alternate, and so do streams, each for themselves.
TURN_ABOUT = """
{
	admin off
	auto_https off
}
http://127.0.0.1:%s {
	@stream path /voice/stream
	reverse_proxy @stream %s %s {
		lb_policy round_robin
	}
	reverse_proxy %s %s {
		lb_policy round_robin
	}
}
"""


def test_every_other_request_of_a_call_goes_to_the_other_service(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with stage(services=2, extra={"IVR_PUBLIC_URL": url}) as running, turn_about(port, running.urls, tmp_path):
        (result,) = play_all(running, Console(), SPEED, ("06",), datetime.now(UTC))
        one, other = ({*noted(log)} for log in running.logs.glob("service-*.log"))
    assert result.problems == []
    for event in ("step", "turn"):
        halves = {frozenset(number % 2 for what, number in log if what == event) for log in (one, other)}
        assert halves == {frozenset({0}), frozenset({1})}, "each had every other one, and only those"


@contextmanager
def turn_about(port: int, services: tuple[str, ...], folder: Path) -> Iterator[None]:
    """A proxy that gives its requests to the services in turn."""
    config = folder / "Caddyfile"
    config.write_text(TURN_ABOUT % (port, *services, *services))
    command = [Path(sys.executable).with_name("caddy"), "run", "--adapter", "caddyfile", "--config", config]
    with open(folder / "caddy.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": str(folder)})
    try:
        session = requests.Session()
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=Retry(10, backoff_factor=0.1)))
        session.get(f"http://127.0.0.1:{port}/health", timeout=10).raise_for_status()
        yield
    finally:
        process.terminate()
        process.wait()


def noted(log: Path) -> Iterator[tuple[str, int]]:
    """What the service noted of the call: ``("step", 1)``, ``("turn", 1)``."""
    for line in log.read_text().splitlines():
        if line.startswith("{") and (said := json.loads(line))["event"] in ("step", "turn"):
            yield said["event"], said["step"]
