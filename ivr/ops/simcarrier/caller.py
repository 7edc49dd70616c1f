"""The person in a scenario: hears prompts by their id; speaks, keys, waits or hangs up in her turn."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ivr.ops.simcarrier.audio import (
    FRAME_S,
    SILENT_FRAME,
    Pcm,
    Voices,
    frames,
    last_speech_frame,
    mixed,
    outline,
    played_again,
)
from ivr.ops.simcarrier.record import WAVE_STEP_S, Answered, CallRecord, KeysLost, Waveform, mask
from ivr.ops.simcarrier.scenario import NO_FAULTS, Faults, Scenario, ScenarioError, Turn

REACTION_S = 0.3  # from the end of a prompt to the answer
BARGE_S = 0.5  # from the start of a prompt to the answer of somebody who does not wait for its end
PATIENCE_S = 2.0  # default of how long a listening service may be silent after a prompt that was not the expected one


class Mismatch(Exception):
    """The service said something else than the scenario expects."""


@dataclass(frozen=True)
class _Speech:
    start_s: float
    frames: list[bytes]
    last_speech: int  # index of the last frame with speech in it

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.frames) * FRAME_S


class Caller:
    """Plays the turns of a scenario. All times are seconds of the call; it never looks at a clock itself."""

    def __init__(
        self,
        scenario: Scenario,
        voices: Voices,
        record: CallRecord,
        values: Mapping[str, str],
        patience_s: float = PATIENCE_S,
        waveforms: bool = False,
    ) -> None:
        self._patience_s = patience_s
        self._waveforms = waveforms
        self._spec = scenario.caller
        self._turns = deque(enumerate(scenario.turns, 1))
        self._whenever = scenario.whenever
        self._voices = voices
        self._record = record
        self._values = dict(values)
        self._rng = random.Random(scenario.seed)
        self._heard: list[str] = []  # since the last answer
        self._keys: deque[tuple[float, str]] = deque()
        self._speech: _Speech | None = None
        self._noise: list[bytes] = []
        self._busy_until_s = 0.0
        self._idle_since_s: float | None = None
        self._faults = NO_FAULTS
        self.hangup_at_s: float | None = None

    # What reaches her.

    def hear(self, prompt: str | None, values: Mapping[str, str], now_s: float) -> None:
        """A prompt begins."""
        self._heard.append(prompt or "?")
        self._values.update(values)
        self._record.told.update(values)
        self._idle_since_s = None
        turn = self._due()
        if turn and turn.barge:
            self._do(turn, now_s, now_s + BARGE_S)

    def prompt_over(self, now_s: float) -> None:
        """A prompt has ended: she may hang up on it, or have only waited for it."""
        while (turn := self._due()) and (turn.only_listens or self._only_hangs_up(turn)):
            self._do(turn, now_s, now_s)

    def invite(self, now_s: float, ears: bool) -> None:
        """Somebody listens and nothing plays. ``ears``: to speech as well as to keys."""
        if now_s < self._busy_until_s:
            return
        turn = self._due()
        if turn and (ears or not turn.speaks):
            self._do(turn, now_s, now_s + REACTION_S)
        elif turn is None and ears:
            self._bewildered(now_s)

    def listening_over(self, now_s: float) -> None:
        """The service stopped listening: she stops speaking or waiting. Keys are typed on."""
        self._speech = None
        self._idle_since_s = None
        self._busy_until_s = max([now_s, *(at for at, _ in self._keys)])

    # What comes from her.

    def key(self, by_s: float) -> tuple[float, str] | None:
        """The next key she types until ``by_s``, and when."""
        return self._keys.popleft() if self._keys and self._keys[0][0] <= by_s else None

    def lose_keys(self, now_s: float) -> None:
        """Nobody listened until now: what she typed before is gone."""
        count = 0
        while self._keys and self._keys[0][0] < now_s:
            self._keys.popleft()
            count += 1
        if count:
            self._record.add(KeysLost(now_s, count))

    def frame(self, now_s: float) -> tuple[bytes, bool]:
        """The 20 ms that the line carries now, and whether they are the last of her speech."""
        index = round(now_s / FRAME_S)
        background = self._noise[index % len(self._noise)] if self._noise else SILENT_FRAME
        speech = self._speech
        if speech is None or now_s < speech.start_s:
            return background, False
        index = int((now_s - speech.start_s) / FRAME_S + 1e-6)
        if index >= len(speech.frames):
            self._speech = None
            return background, False
        return speech.frames[index], index == speech.last_speech

    @property
    def speaking(self) -> bool:
        return self._speech is not None

    @property
    def active(self) -> bool:
        """Whether she speaks or types, or is about to."""
        return self.speaking or bool(self._keys)

    def take_faults(self) -> Faults:
        """What is to happen to the next webhook, once."""
        faults, self._faults = self._faults, NO_FAULTS
        return faults

    def finish(self) -> None:
        """The call is over. Raises Mismatch when she still waited for a prompt."""
        if self._turns:
            raise Mismatch(self._complaint(*self._turns[0]))

    # Her mind.

    def _due(self) -> Turn | None:
        """The next turn, if its prompt was heard since the last answer; else what she does whenever she hears one."""
        if self._turns:
            turn = self._turns[0][1]
            if turn.expect is None or turn.expect in self._heard:
                return turn
        return next((turn for turn in self._whenever if turn.expect in self._heard), None)

    @staticmethod
    def _only_hangs_up(turn: Turn) -> bool:
        return turn.hangup and turn.keys is None and turn.silence is None and not turn.speaks

    def _bewildered(self, now_s: float) -> None:
        if not (self._turns and self._heard):
            return
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s >= self._patience_s:
            raise Mismatch(self._complaint(*self._turns[0]))

    def _complaint(self, number: int, turn: Turn) -> str:
        heard = " then ".join(self._heard) or "nothing"
        return f"turn {number} expects {turn.expect or 'to be listened to'}, heard {heard}"

    def _do(self, turn: Turn, now_s: float, start_s: float) -> None:
        if self._turns and turn is self._turns[0][1]:
            self._turns.popleft()
        if turn.faults != NO_FAULTS:
            self._faults = turn.faults
        if turn.only_listens:
            del self._heard[: self._heard.index(turn.expect or "") + 1]
            return
        self._heard.clear()
        noise = self._voices.recording(turn.noise) if turn.noise else None
        self._noise = frames(noise) if noise is not None else []
        end_s = start_s
        if turn.speaks:
            end_s = self._speak(turn, start_s, noise)
        elif turn.keys:
            end_s = self._type(self.filled(turn.keys).replace(" ", ""), turn.key_gap_ms / 1000, start_s)
        elif turn.silence is not None:
            end_s = now_s + turn.silence
            self._record.add(Answered(now_s, "silence", turn.noise or "", turn.silence))
        self._busy_until_s = end_s
        if turn.hangup:
            self.hangup_at_s = end_s

    def _speak(self, turn: Turn, start_s: float, noise: Pcm | None) -> float:
        if turn.play is not None:
            what, pcm = turn.play, self._voices.recording(turn.play)
        else:
            words = self.filled(turn.say or "")
            what, pcm = f"“{mask(words)}”", self._voices.spoken(words, self._spec.voice, self._rng)
        pcm = played_again(pcm, turn.through, turn.gain_db)
        if not np.any(pcm):
            raise ScenarioError(f"{what} is silent")
        said = mixed(pcm, noise)
        self._speech = _Speech(start_s, frames(said), last_speech_frame(pcm))
        if self._waveforms and self._voices.published:
            self._record.waveforms.append(Waveform(start_s, outline(said, WAVE_STEP_S)))
        self._record.add(Answered(start_s, "speech", what, round(self._speech.end_s - start_s, 2)))
        return self._speech.end_s

    def _type(self, keys: str, gap_s: float, start_s: float) -> float:
        self._keys.extend((start_s + index * gap_s, key) for index, key in enumerate(keys))
        self._record.add(Answered(start_s, "keys", mask(keys), round((len(keys) - 1) * gap_s, 2)))
        return start_s + (len(keys) - 1) * gap_s

    def filled(self, template: str) -> str:
        """``{name}`` replaced by a value heard in a prompt, ``{card.alice}`` by a card of the fixtures."""

        def value(match: re.Match[str]) -> str:
            if match[1] not in self._values:
                raise ScenarioError(
                    f"no prompt so far told a value {{{match[1]}}}; give it by --value {match[1]}=..."
                )
            return self._values[match[1]]

        return re.sub(r"\{([\w.-]+)\}", value, template)
