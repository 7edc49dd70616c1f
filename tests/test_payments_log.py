from __future__ import annotations

import base64
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from ivr import log


@pytest.mark.parametrize(
    "secret",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2",
        "four two four two four two four two",
        "forty two forty two forty two forty two",
        "four, two, double four, two",
        "四二四二四二四二",
        "四 二 四 二",
    ],
)
def test_a_number_that_could_be_a_card_is_masked(secret: str) -> None:
    assert log.scrub(f"heard {secret} today") == f"heard {log.MASK} today"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_audio_as_the_carrier_sends_it_is_masked(encode: Callable[[bytes], bytes]) -> None:
    frame = encode(bytes(range(160))).decode()  # 20 ms
    assert log.scrub(f"heard {frame} today") == f"heard {log.MASK} today"


@pytest.mark.parametrize(
    "harmless",
    ["2026-11-23T12:00:00.123456Z", "one or two bills", "CA0f3e", "+14155550123", "took 0.123 s", "1234"],
)
def test_other_text_stays(harmless: str) -> None:
    assert log.scrub(harmless) == harmless


def test_values_are_masked_at_any_depth() -> None:
    pan = "4242424242424242"
    said = log.scrub_value({"a": [{"b": pan}, int(pan)], pan: b"audio", "score": 0.1234567890123456, "ok": True})
    assert said == {
        "a": [{"b": log.MASK}, log.MASK],
        log.MASK: "<5 bytes>",
        "score": 0.1234567890123456,
        "ok": True,
    }


def test_lines_of_structlog_and_of_libraries_and_tracebacks_are_scrubbed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log.configure()
        structlog.get_logger("ours").info("heard", digits="4242 4242 4242 4242")
        logging.getLogger("theirs").warning("heard %s", "4242424242424242")
        try:
            raise ValueError("bad card 4242424242424242")
        except ValueError:
            structlog.get_logger("ours").exception("failed")
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["logger"] for line in lines] == ["ours", "theirs", "ours"]
    assert "4242" not in written
    assert "ValueError: bad card [masked]" in lines[2]["exception"]


_FAILS = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    raise ValueError("bad card 4242 4242 4242 4242")
"""


def test_lines_of_the_web_server_are_scrubbed(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(_FAILS)
    where, written = tmp_path / "web.sock", tmp_path / "log"
    command = [
        sys.executable, "-m", "gunicorn", "--config=python:ivr.ops.gunicorn", f"--bind=unix:{where}",
        f"--pythonpath={tmp_path}", "--access-logfile=-", "fails:application",
    ]  # fmt: skip
    token = "0123456789abcdef" * 3
    with open(written, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        _until(where.exists)
        for line in (f"GET /my/l/{token}?token=4242424242424242 HTTP/1.0", f"GET /pay/purchase/{token} HTTP/none"):
            with socket.socket(socket.AF_UNIX) as web:
                web.connect(str(where))
                web.sendall(f"{line}\r\n\r\n".encode())
                while web.recv(4096):
                    pass
        _until(lambda: all(said in written.read_text() for said in ("ValueError", "Invalid request")))
    finally:
        process.terminate()
        process.wait(60)
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert {"gunicorn.error", "gunicorn.access"} == {line["logger"] for line in lines}
    assert {"Starting gunicorn", "Error handling"} <= {" ".join(line["event"].split()[:2]) for line in lines}
    assert "ValueError: bad card [masked]" in written.read_text()
    for secret in (token, "4242"):
        assert secret not in written.read_text()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
