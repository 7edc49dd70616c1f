"""Voice activity: who is speaking, judged from the energy of 20 ms frames. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

import numpy as np

from ivr.speech.audio import FRAME_MS, Pcm

#: A frame is speech when it is this much louder than the background and no quieter than the floor below.
ABOVE_BACKGROUND_DB = 9.0
QUIETEST_SPEECH_DBFS = -52.0
#: What decays below the loudest recent speech by this much is its echo or breath, not the next digit.
BELOW_SPEECH_DB = 30.0

#: Shorter silences lie within words ("eight", "six").
PAUSE_MS = 200

_BACKGROUND_WINDOW = 150  # frames: 3 s, longer than any digit, shorter than a turn
_BACKGROUND_QUANTILE = 0.1
_ASSUMED_BACKGROUND_DBFS = -60.0  # until something was heard
_LOUDEST_DECAY_DB = 0.04  # a frame: 2 dB a second
_SPEECH_FRAMES = 2  # 40 ms: a click is no speech


class Activity:
    """Follows the level of a call frame by frame; times in milliseconds of audio."""

    def __init__(self) -> None:
        self._levels = deque([_ASSUMED_BACKGROUND_DBFS] * 5)
        self._by_level = list(self._levels)  # sorted: a quantile of them all, fifty times a second a call, is cheap
        self._loudest = _ASSUMED_BACKGROUND_DBFS
        self._loud_run = 0
        self.quiet_ms = 0  # since the last frame of speech, or since the beginning
        self.longest_pause_ms = 0  # between two stretches of speech
        self.stretch_ms = 0  # since the last pause that was one
        self.speech_ms = 0
        self.onset_ms: int | None = None  # when speech began
        self._heard_ms = 0

    def add(self, frame: Pcm) -> None:
        """Take in one frame of 20 ms."""
        level = level_dbfs(frame)
        self._heard_ms += FRAME_MS
        self._remember(level)
        threshold = max(self._background() + ABOVE_BACKGROUND_DB, self._loudest - BELOW_SPEECH_DB, QUIETEST_SPEECH_DBFS)
        self._loud_run = self._loud_run + 1 if level > threshold else 0
        if self._loud_run >= _SPEECH_FRAMES:
            if self.speech_ms:
                self.longest_pause_ms = max(self.longest_pause_ms, self.quiet_ms)
            if self.onset_ms is None:
                self.onset_ms = self._heard_ms - FRAME_MS * _SPEECH_FRAMES
            self.quiet_ms = 0
            self.speech_ms += FRAME_MS * (_SPEECH_FRAMES if self._loud_run == _SPEECH_FRAMES else 1)
            self._loudest = max(level, self._loudest)
        else:
            self.quiet_ms += FRAME_MS
        self.stretch_ms = 0 if self.quiet_ms >= PAUSE_MS else self.stretch_ms + FRAME_MS
        self._loudest -= _LOUDEST_DECAY_DB

    def _remember(self, level: float) -> None:
        self._levels.append(level)
        insort(self._by_level, level)
        if len(self._levels) > _BACKGROUND_WINDOW:
            del self._by_level[bisect_left(self._by_level, self._levels.popleft())]

    def _background(self) -> float:
        """The quantile of the levels remembered, between two of them in proportion."""
        place = _BACKGROUND_QUANTILE * (len(self._by_level) - 1)
        below = int(place)
        return self._by_level[below] + (place - below) * (self._by_level[below + 1] - self._by_level[below])


def level_dbfs(frame: Pcm) -> float:
    """Root mean square of a frame without its DC, in dB below full scale; -90 for digital silence."""
    samples = frame.astype(np.float64)
    power = float(samples @ samples) / len(samples) - (float(samples.sum()) / len(samples)) ** 2
    return 10 * math.log10(max(power / 32768**2, 1e-9))
