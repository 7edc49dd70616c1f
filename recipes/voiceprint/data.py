"""The recordings of the training speakers, trimmed, and crops joined from them.

Speakers are pooled by id over all corpora, held-out speakers are never read (``recipes.heldout``), and the
training speakers are split once more by the same hash: buckets 12..17 make the development set, which no
gradient sees and from which thresholds come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from recipes.heldout import bucket, speaker_id, training_rows
from voiceprint.audio import activity

SAMPLE_RATE = 8000
DIGITS = "speech_commands_digits"
CORPORA = (
    DIGITS,
    "speech_commands_voices",
    "speech_commands_words",
    "librispeech_resemblyzer",
    "librispeech_deepspeaker",
    "phone_numbers",
    "digit_strings_mx",
    "dspspeech20",
)
DEVELOPMENT_BUCKETS = range(12, 18)
#: Speaking rate and pitch change together, so a resampled voice counts as another speaker: (up, down).
SPEEDS = ((1, 1), (10, 9), (10, 11))
#: Clips of about a second; the others are long recordings of which a part is taken.
SHORT_CLIP_S = 3.0

Clip = NDArray[np.int16]


@dataclass
class Speaker:
    """One voice: its trimmed clips (int16, 8 kHz) and, for the digits, what each says."""

    id: str
    clips: list[Clip] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(len(clip) for clip in self.clips) / SAMPLE_RATE


def read_trimmed(path: Path) -> Clip:
    """A recording without the silence at its ends; empty if nobody speaks."""
    pcm, rate = soundfile.read(path, dtype="int16")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{path} has {rate} Hz; the recordings must have {SAMPLE_RATE}")
    speech = np.flatnonzero(activity(pcm.astype(np.float32) / 32768, rate).mask)
    return pcm[speech[0] : speech[-1] + 1] if len(speech) else pcm[:0]


def load_speakers(speech_dir: Path, corpora: tuple[str, ...] = CORPORA) -> tuple[list[Speaker], list[Speaker]]:
    """All training speakers as (for gradients, development), each sorted by id."""
    speakers: dict[str, Speaker] = {}
    for corpus in corpora:
        for row in training_rows(speech_dir, corpus):
            clip = read_trimmed(row["file"])
            if len(clip) < 0.1 * SAMPLE_RATE:
                continue
            speaker = speakers.setdefault(row["speaker"], Speaker(row["speaker"]))
            speaker.clips.append(clip)
            speaker.words.append(row["text"] if corpus == DIGITS else "")
    everyone = [speakers[key] for key in sorted(speakers)]
    development = [s for s in everyone if bucket(s.id) in DEVELOPMENT_BUCKETS]
    return [s for s in everyone if bucket(s.id) not in DEVELOPMENT_BUCKETS], development


def load_noises(speech_dir: Path) -> list[Clip]:
    """Background noises that training may use."""
    rows = training_rows(speech_dir, "noise_rir")
    return [soundfile.read(r["file"], dtype="int16")[0] for r in rows if speaker_id(r) and "rir/" not in r["path"]]


class CropSampler:
    """Crops of equal length, drawn over classes; a class is a speaker at one speed."""

    def __init__(self, speakers: list[Speaker], least_seconds: float = 1.0) -> None:
        self.speakers = [s for s in speakers if s.seconds >= least_seconds]
        #: A speaker with little material is seen less often, lest its clips be learnt by heart.
        weight = np.array([min(1.5, 0.3 + s.seconds / 4) for s in self.speakers])
        self._cumulative = np.cumsum(np.concatenate([weight * share for share in (2.0, 1.0, 1.0)]))

    @property
    def classes(self) -> int:
        return len(SPEEDS) * len(self.speakers)

    def draw(self, rng: np.random.Generator) -> int:
        """A class, by weight."""
        return int(np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1]))

    def crop(self, label: int, samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """``samples`` samples of speech of class ``label``, its clips joined in random order."""
        speed, speaker = divmod(label, len(self.speakers))
        up, down = SPEEDS[speed]
        joined = join(self.speakers[speaker].clips, samples * down // up + 16, rng)
        if up != down:
            joined = resample_poly(joined, up, down).astype(np.float32)
        return joined[:samples]


def join(clips: list[Clip], samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Clips in random order, with short gaps, cut to ``samples``; long clips are entered anywhere."""
    parts: list[NDArray[np.int16]] = []
    total = 0
    order: list[int] = []
    while total < samples:
        order = order or list(rng.permutation(len(clips)))
        clip = clips[order.pop()]
        if len(clip) > SHORT_CLIP_S * SAMPLE_RATE:
            clip = clip[int(rng.integers(0, len(clip) - SAMPLE_RATE)) :]
        gap = np.zeros(int(rng.integers(0, 1200)) if rng.random() < 0.5 else 0, np.int16)
        parts += [clip, gap]
        total += len(clip) + len(gap)
    joined = np.concatenate(parts)
    start = int(rng.integers(0, total - samples + 1))
    return joined[start : start + samples].astype(np.float32) / 32768
