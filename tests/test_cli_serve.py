from __future__ import annotations

import subprocess
import sys

from ivr.ops.commands.serve import LONGEST_WAIT_S, Kept, end

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def waits(kept: Kept, now: list[float], times: int) -> list[float]:
    """How long after each end the next process was started."""
    found = []
    for _ in range(times):
        ended = kept.process
        ended.wait()
        kept.tend()
        before = now[0]
        while kept.process is ended:
            now[0] += 0.5
            kept.tend()
        found.append(now[0] - before)
    return found


def test_a_worker_that_ends_at_once_is_started_ever_later() -> None:
    now = [0.0]
    kept = Kept([sys.executable, "-c", ""], clock=lambda: now[0])
    assert waits(kept, now, 9) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    now[0] += LONGEST_WAIT_S + 1  # this one worked for a while
    assert waits(kept, now, 1) == [0.5]
    kept.process.wait()


def test_a_process_that_does_not_end_when_asked_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    end(process, 0.1)
    assert process.returncode == -9
    process.stdout.close()
