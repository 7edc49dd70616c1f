"""One fault, from an empty database to the comparison of the books."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import make_url

from bench.faults import processes
from bench.faults.kinds import Fault, Stage
from bench.faults.processes import SECRET, end, fork, free_port, start_endpoint, start_merchant, trusted
from bench.faults.records import Result, compare, nothing_waits, queue_payments
from ivr.customers.models import new_id
from ivr.payments import worker
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings
from ivr.store import redis as store_redis

LEASE = timedelta(seconds=3)
LONGEST_S = 900.0


def run(fault: Fault, server: Any, folder: Path, payments: int, workers: int) -> Result:
    """One fault, from an empty database to the comparison of the books."""
    folder.mkdir()
    name = f"faults_{new_id()}"
    server.psql(f"CREATE DATABASE {name}")
    url = make_url(server.get_uri(database=name)).set(drivername="postgresql+psycopg")
    with ExitStack() as stack:
        told = folder / "told"
        stack.enter_context(trusted(folder / "localhost.pem"))
        merchant, merchant_url = start_merchant(folder / "localhost.pem", told)
        stack.callback(end, merchant)
        endpoint_port = free_port() if fault.confirmed else 0
        bank_process, bank_port = processes.start_bank(folder / "bank", 0, endpoint_port)
        settings = Settings(
            data_dir=folder,
            database_url=url.render_as_string(hide_password=False),
            bank_url=f"http://127.0.0.1:{bank_port}",
            bank_notice_secret=SecretStr(SECRET) if fault.confirmed else None,
            webhooks_to_private=True,
            digit_model_dir=folder,
            voice_model_dir=folder,
            _env_file=None,
        )  # type: ignore[call-arg]
        bank = SandboxBank(settings.bank_url, settings.bank_api_key.get_secret_value())
        stage = Stage(settings, bank, server, bank_port, folder / "bank", bank_process, endpoint_port=endpoint_port)
        stack.callback(lambda: (stage.bank_process.kill(), stage.bank_process.wait()))
        queue_payments(settings, bank, merchant_url, payments)
        if fault.confirmed:
            stack.callback(store_redis.stop, settings)
            stack.callback(lambda: stage.endpoint and end(stage.endpoint))
            stage.endpoint = start_endpoint(settings, endpoint_port)
        stack.callback(lambda: [end(process) for process in stage.workers])
        fault.start(stage)
        result = Result(fault.name, payments)
        started = time.monotonic()
        result.killed = work_off(fault, stage, workers, started)
        result.seconds = round(time.monotonic() - started, 1)
        result.acts = stage.acts
        bank.control()
        compare(settings, bank, told, result)
        return result


def work_off(fault: Fault, stage: Stage, workers: int, started: float) -> int:
    """Keep the workers alive and let the fault strike until nothing waits; how many workers were killed."""
    killed, strikes, next_strike, next_look = 0, 0, started + fault.every_s, started
    while time.monotonic() - started < LONGEST_S:
        dead = [process for process in stage.workers if not process.is_alive()]
        killed += sum(process.exitcode == -signal.SIGKILL for process in dead)
        stage.workers = [process for process in stage.workers if process not in dead]
        while len(stage.workers) < workers:
            process = fork.Process(target=work, args=(stage.settings, fault, time.monotonic_ns()), daemon=True)
            process.start()
            stage.workers.append(process)
        now = time.monotonic()
        if now >= next_look:
            if nothing_waits(stage.settings):
                break
            next_look = now + 0.5
        if fault.outside and strikes < fault.most and now >= next_strike:
            fault.outside(stage)
            strikes, next_strike = strikes + 1, time.monotonic() + fault.every_s
        time.sleep(0.02)
    return killed


def work(settings: Settings, fault: Fault, seed: int) -> None:
    """One worker process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed(seed)
    fault.in_worker()
    worker.run(settings, threading.Event(), channels={}, lease=LEASE)
