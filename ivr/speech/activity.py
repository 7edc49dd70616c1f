"""Voice activity: who is speaking, judged from the energy of 20 ms frames. Pure."""

from __future__ import annotations

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
_BACKGROUND_PERCENTILE = 10
_ASSUMED_BACKGROUND_DBFS = -60.0  # until something was heard
_LOUDEST_DECAY_DB = 0.04  # a frame: 2 dB a second
_SPEECH_FRAMES = 2  # 40 ms: a click is no speech


class Activity:
    """Follows the level of a call frame by frame; times in milliseconds of audio."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque([_ASSUMED_BACKGROUND_DBFS] * 5, maxlen=_BACKGROUND_WINDOW)
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
        self._levels.append(level)
        background = float(np.percentile(self._levels, _BACKGROUND_PERCENTILE))
        threshold = max(background + ABOVE_BACKGROUND_DB, self._loudest - BELOW_SPEECH_DB, QUIETEST_SPEECH_DBFS)
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


def level_dbfs(frame: Pcm) -> float:
    """Root mean square of a frame without its DC, in dB below full scale; -90 for digital silence."""
    samples = frame.astype(np.float64)
    power = samples.var() / 32768**2
    return 10 * float(np.log10(max(power, 1e-9)))
