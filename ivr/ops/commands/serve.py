"""``ivr serve``: the whole service on this machine, web workers and the worker that debits."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import requests

from ivr.payments.banks import connect
from ivr.settings import settings

APP = "ivr.app:create_app()"
GRACEFUL_S = 30  # for calls and jobs in hand when the service is stopped
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # before a worker that ended is started again


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8400, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Web processes.")
def command(host: str, port: int, workers: int) -> None:
    """Serve calls on this machine: gunicorn, and one `ivr worker` beside it."""
    if not settings().auth_token.get_secret_value():
        raise click.UsageError(
            "IVR_AUTH_TOKEN is not set, so no request could be known to be the carrier's. "
            "Take it from the Twilio console (Account > API keys & tokens), or any word for simulated calls."
        )
    connect(settings())  # what is wrong with the bank's settings is said now, not by each process
    arguments = [
        "--config=python:ivr.ops.gunicorn",
        f"--workers={workers}",
        f"--bind={host}:{port}",
        f"--graceful-timeout={GRACEFUL_S}",
        APP,
    ]
    _share_metrics(settings().data_dir / f"metrics-{port}")
    with socket.socket() as probe:  # before a worker runs beside another service's
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(f"{host}:{port} cannot be listened on: {error.strerror}") from None
    stopping: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):  # before there is a process that could be left behind
        signal.signal(signum, lambda number, _: stopping.append(number))
    web = subprocess.Popen([sys.executable, "-m", "gunicorn", *arguments])
    worker = Kept([sys.executable, "-m", "ivr.ops.cli", "worker"])
    ready = False
    while not stopping and web.poll() is None:
        worker.tend()
        if not ready and (ready := _healthy(host, port)):
            click.echo(f"ready for calls at http://{host}:{port}", err=True)
        time.sleep(0.5)
    end(web, GRACEFUL_S + 10)
    end(worker.process, GRACEFUL_S)
    sys.exit(web.returncode if web.returncode >= 0 else 128 - web.returncode)


def _share_metrics(folder: Path) -> None:
    """Have the processes count together, from nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _healthy(host: str, port: int) -> bool:
    try:
        return requests.get(f"http://{host}:{port}/health", timeout=2).ok
    except requests.RequestException:
        return False


class Kept:
    """A process that is started again whenever it ends; ever later while it ends soon after its start."""

    _start_at: float | None  # when to start the next one, once this one has ended

    def __init__(self, command: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._command, self._clock = command, clock
        self._wait_s = FIRST_WAIT_S
        self._start()

    def tend(self) -> None:
        """Look after the process; to be called about twice a second."""
        if self.process.poll() is None:
            return
        now = self._clock()
        if self._start_at is None:
            if now - self._started_at > LONGEST_WAIT_S:
                self._wait_s = FIRST_WAIT_S
            click.echo(
                f"the worker ended with {self.process.returncode}; another in {self._wait_s:g} s", err=True
            )
            self._start_at = now + self._wait_s
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        elif now >= self._start_at:
            self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(self._command)
        self._started_at = self._clock()
        self._start_at = None


def end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Ask the process to end, and kill it if it does not in time."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
