"""``ivr serve``: the whole service on this machine, web workers and the worker that debits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import click

from ivr.settings import settings

APP = "ivr.app:create_app()"
THREADS = 64  # each call holds one while it speaks


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
    arguments = [
        "--worker-class=gthread",
        f"--threads={THREADS}",
        f"--workers={workers}",
        f"--bind={host}:{port}",
        "--timeout=120",
        "--graceful-timeout=30",
        APP,
    ]
    web = subprocess.Popen([sys.executable, "-m", "gunicorn", *arguments])
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: web.terminate())
    worker = _start_worker()
    while web.poll() is None:
        if worker.poll() is not None:
            click.echo(f"the worker ended with {worker.returncode}; starting another", err=True)
            worker = _start_worker()
        time.sleep(0.5)
    worker.terminate()
    worker.wait()
    sys.exit(web.returncode if web.returncode >= 0 else 128 - web.returncode)


def _start_worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "ivr.ops.cli", "worker"])
