"""The clock of a simulated call, which may run faster than the one on the wall."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

CATCH_UP_S = 0.1  # wall seconds that a pause may be shortened by after the machine was late


class Clock:
    """Seconds of the call since it rang.

    What the *caller and the line* do (speak, listen, wait) takes ``1 / speed`` of its time. What the
    *service* does is not scaled: a webhook that takes 50 ms takes 50 ms of the call at any speed, so that
    keys typed meanwhile are lost as often as on a real line.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self.speed = speed
        self.now_s = 0.0
        self._due = time.perf_counter()

    def sleep(self, seconds: float, natural: bool = False) -> None:
        """Let ``seconds`` of the call pass; ``natural``: at speed 1, for what the service needs.

        Late frames are caught up a little, as a line's jitter buffer does.
        """
        self.now_s += seconds
        wall_s = seconds if natural else seconds / self.speed
        self._due = max(self._due, time.perf_counter() - CATCH_UP_S) + wall_s
        if (delay := self._due - time.perf_counter()) > 0:
            time.sleep(delay)

    def skip(self, seconds: float) -> None:
        """Let ``seconds`` of the call pass in no time."""
        self.now_s += seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The line waits for the service inside this block: the call's clock follows the wall's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._due = time.perf_counter()
            self.now_s += self._due - started
