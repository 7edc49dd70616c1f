"""The voices of simulated callers: recordings, digits joined from single clips, noise, 20 ms frames."""

from __future__ import annotations

import io
import random
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from ivr.ops.simcarrier.scenario import ScenarioError
from ivr.speech.audio import FRAME_MS, SAMPLE_RATE, pcm_to_ulaw, read_audio

Pcm = npt.NDArray[np.int16]

FRAME_S = FRAME_MS / 1000
FRAME_SAMPLES = SAMPLE_RATE * FRAME_MS // 1000
SILENT_FRAME = b"\xff" * FRAME_SAMPLES  # mu-law zero: what a line carries while nobody speaks

GAP_S = (0.05, 0.16)  # between two digits
GROUP_GAP_S = (0.25, 0.45)  # after every fourth digit of a long number
_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = {name: str(digit) for digit, name in enumerate(_NAMES)}

SPEECH_DB = -35.0  # a frame this far under the loudest is no speech


class Voices:
    """Finds recordings under several folders (the scenario's own first) and joins them."""

    def __init__(self, *roots: Path) -> None:
        self._roots = roots
        #: Whether all that was read so far is known to hold published test numbers and challenge digits alone: listed
        #: in the MANIFEST.toml of its folder. What is not may be anybody saying anything.
        self.published = True

    def recording(self, name: str) -> Pcm:
        """Samples of shape (n,), int16, 8 kHz. Raises ScenarioError when there are none to read."""
        for root in self._roots:
            if (path := root / name).is_file():
                self.published &= name in _listed(root)
                try:
                    return read_audio(path)
                except Exception as error:
                    raise ScenarioError(f"{path} cannot be read as audio: {type(error).__name__}") from error
        raise ScenarioError(f"no recording {name} in {' or '.join(map(str, self._roots))}")

    def spoken(self, text: str, voice: str | None, rng: random.Random) -> Pcm:
        """``text`` said in a person's clips: digits (or their names) one by one, other words whole.

        ``<voice>/digits/<digit>_<take>.wav`` and ``<voice>/<word>.wav``; takes and gaps come from ``rng``.
        """
        if voice is None:
            raise ScenarioError('say needs the caller\'s voice: [caller] voice = "..."')
        pieces: list[Pcm] = []
        long = sum(character.isdigit() for character in text) > 6
        said = 0
        for word in (WORDS.get(word, word) for word in text.split()):
            if not word.isdigit():
                pieces += [self.recording(f"{voice}/{word}.wav"), _quiet(rng, GROUP_GAP_S)]
                continue
            for digit in word:
                said += 1
                pieces.append(self._digit(voice, digit, rng))
                pieces.append(_quiet(rng, GROUP_GAP_S if long and said % 4 == 0 else GAP_S))
        if not pieces:
            raise ScenarioError("say has nothing to say")
        return np.concatenate(pieces[:-1])

    def _digit(self, voice: str, digit: str, rng: random.Random) -> Pcm:
        for root in self._roots:
            if takes := sorted((root / voice / "digits").glob(f"{digit}_*.wav")):
                return self.recording(str(rng.choice(takes).relative_to(root)))
        raise ScenarioError(f"no clip {voice}/digits/{digit}_*.wav in {' or '.join(map(str, self._roots))}")


MANIFEST = "MANIFEST.toml"


@cache
def _listed(root: Path) -> frozenset[str]:
    """The recordings that a folder's manifest tells the words of."""
    try:
        with open(root / MANIFEST, "rb") as file:
            return frozenset(str(recording["path"]) for recording in tomllib.load(file)["recording"])
    except FileNotFoundError:
        return frozenset()


def outline(pcm: Pcm, step_s: float) -> tuple[float, ...]:
    """The loudest sample of each ``step_s``, from 0 to 1, to two places."""
    step = int(step_s * SAMPLE_RATE)
    peaks = np.abs(np.pad(pcm, (0, -len(pcm) % step)).astype(np.float64)).reshape(-1, step).max(axis=1) / 32768
    return tuple(np.round(peaks, 2).tolist())


def frames(pcm: Pcm) -> list[bytes]:
    """Samples as mu-law frames of 20 ms, the last filled up with silence."""
    padded = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
    ulaw = pcm_to_ulaw(padded)
    return [ulaw[start : start + FRAME_SAMPLES] for start in range(0, len(ulaw), FRAME_SAMPLES)]


def last_speech_frame(pcm: Pcm) -> int:
    """Index of the last frame that still has speech in it; 0 for silence."""
    padded = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES)).astype(np.float64).reshape(-1, FRAME_SAMPLES)
    power = (padded**2).mean(axis=1)
    if not power.size or not power.max():
        return 0
    return int(np.flatnonzero(power > power.max() * 10 ** (SPEECH_DB / 10))[-1])


def mixed(pcm: Pcm, noise: Pcm | None) -> Pcm:
    """``pcm`` with as much of ``noise``, repeated, behind it."""
    if noise is None or not len(noise):
        return pcm
    both = pcm.astype(np.int32) + np.resize(noise, len(pcm))
    return np.clip(both, -32768, 32767).astype(np.int16)


def played_again(pcm: Pcm, codec: str | None, gain_db: float) -> Pcm:
    """``pcm`` as a recording of it sounds over another line: louder or softer, and through its codec."""
    louder = np.clip(pcm * 10 ** (gain_db / 20), -32768, 32767).astype(np.int16) if gain_db else pcm
    if codec is None:
        return louder
    coded = io.BytesIO()
    subtype = {"alaw": "ALAW", "gsm": "GSM610"}[codec]
    soundfile.write(coded, louder, SAMPLE_RATE, format="WAV", subtype=subtype)
    coded.seek(0)
    again: Pcm = soundfile.read(coded, dtype="int16")[0]
    return again


def _quiet(rng: random.Random, bounds_s: tuple[float, float]) -> Pcm:
    return np.zeros(int(rng.uniform(*bounds_s) * SAMPLE_RATE), np.int16)
