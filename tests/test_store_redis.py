from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from ivr.settings import Settings
from ivr.store.redis import RedisUnavailable, connect, stop

CONNECT = """
import sys
from pathlib import Path
from ivr.settings import Settings
from ivr.store.redis import connect
folder = Path(sys.argv[1])
settings = Settings(data_dir=folder, digit_model_dir=folder, voice_model_dir=folder, _env_file=None)
print("ready", flush=True)
sys.stdin.readline()
client = connect(settings)
client.incr("seen")
print(client.info("server")["process_id"])
"""


@pytest.fixture
def own(short_folder: Path) -> Iterator[Settings]:
    """Settings that name no Redis, in an empty folder."""
    with TemporaryDirectory(dir=short_folder) as folder:
        settings = Settings(
            data_dir=Path(folder), digit_model_dir=Path(), voice_model_dir=Path(), _env_file=None
        )
        yield settings
        stop(settings)


def server_pid(client: redis.Redis) -> int:
    return int(client.info("server")["process_id"])


def kill_server(client: redis.Redis) -> None:
    pid = server_pid(client)
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.01)


def test_processes_that_start_at_once_share_one_server_that_outlives_them(own: Settings) -> None:
    command = [sys.executable, "-c", CONNECT, str(own.data_dir)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    pids = {process.communicate()[0].strip() for process in processes}
    client = connect(own)
    assert pids == {str(server_pid(client))}
    assert client.get("seen") == b"3"
    assert (own.data_dir / "redis.log").read_text().count("Redis is starting") == 1


def test_a_killed_server_is_started_again_by_a_client_that_already_was(own: Settings) -> None:
    client = connect(own)
    before = server_pid(client)
    kill_server(client)
    assert client.set("call", "a new one")
    assert server_pid(client) != before


@pytest.mark.parametrize("how", [kill_server, lambda client: client.shutdown()])
def test_nothing_outlives_the_server_on_disk(own: Settings, how: Callable[[redis.Redis], None]) -> None:
    client = connect(own)
    client.set("call", "an embedding")
    how(client)
    assert client.get("call") is None
    assert {path.name for path in own.data_dir.iterdir()} == {"redis.sock", "redis.lock", "redis.log"}


def test_a_server_stopped_by_the_operator_is_started_by_the_next_process(own: Settings) -> None:
    connect(own)
    assert stop(own)
    assert not stop(own)
    assert connect(own).ping()


def test_what_redis_writes_is_for_its_owner_alone(own: Settings) -> None:
    own.data_dir.chmod(0o755)
    connect(own)
    for name in ("redis.log", "redis.sock"):
        assert (own.data_dir / name).stat().st_mode & 0o077 == 0


def test_a_folder_too_deep_for_a_socket_is_said_so(own: Settings) -> None:
    deep = own.model_copy(update={"data_dir": own.data_dir / ("d" * 100)})
    with pytest.raises(RedisUnavailable, match="IVR_DATA_DIR"):
        connect(deep)


def test_an_unreachable_redis_by_url_is_said_so_without_its_password(own: Settings) -> None:
    unreachable = own.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0"})
    with pytest.raises(RedisUnavailable, match="IVR_REDIS_URL") as caught:
        connect(unreachable)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_cannot_start_says_where_its_log_is(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ivr.store.redis.START_TIMEOUT_S", 0.3)
    (own.data_dir / "dump.rdb").write_text("no dump")
    with pytest.raises(RedisUnavailable, match=r"redis\.log"):
        connect(own)
