"""Gunicorn's settings: ``gunicorn --config python:ivr.ops.gunicorn 'ivr.app:create_app()'``; its own flags override.

Each call holds a thread while it speaks. A stopping worker takes no new call and lets those that speak end.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger  # type: ignore[import-untyped]
from prometheus_client import multiprocess

from ivr import log

# Its further threads wait in busy loops, on cores that calls need.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

#: glibc gives threads memory of their own, up to eight pools a core, and what one call frees another does not get.
_MEMORY_POOLS, _M_ARENA_MAX = 2, -8
if hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MEMORY_POOLS)


class Logger(GunicornLogger):  # type: ignore[misc]
    """Its lines go the way of all others, those of the process that starts the workers too."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        log.configure()


logger_class = Logger
worker_class = "gthread"
threads = int(os.environ.get("IVR_THREADS", "64"))
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
bind = os.environ.get("IVR_BIND", "127.0.0.1:8400")
timeout = 120
graceful_timeout = 130  # longer than the longest stream (ivr.carrier.stream.LONGEST_STREAM_S)
keepalive = 5
control_socket_disable = True


def post_worker_init(_worker: Any) -> None:
    """What was loaded once is not looked through again for garbage, a tenth of a second each time, while calls wait."""
    gc.collect()
    gc.freeze()


def child_exit(_server: Any, worker: Any) -> None:
    """What a process that ended was busy with is no longer counted."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
