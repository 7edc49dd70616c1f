"""The recordings that the training may hear, split by speaker into training and development."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf

from recipes.heldout import DEFAULT_PERCENT, PERCENT, bucket, speaker_id, training_rows

from .lexicon import DIGITS, WORDS

SAMPLE_RATE = 8000
#: Speakers just above the held-out buckets choose between checkpoints; no gradient comes from them.
DEVELOPMENT_BUCKETS = 5


@dataclass(frozen=True)
class Clip:
    """A recording: float32 samples at 8 kHz, peak 1. ``start``/``end`` enclose the speech (samples)."""

    samples: np.ndarray
    start: int
    end: int

    def cut(self, before: int = 0, after: int = 0) -> np.ndarray:
        """The speech with so many samples of its surroundings, as far as there are; negative cuts into it."""
        return self.samples[max(0, self.start - before) : max(0, self.end + after)]


@dataclass
class Corpus:
    """What one side of the split holds."""

    digits: dict[str, list[tuple[str, Clip]]] = field(default_factory=lambda: defaultdict(list))  # by speaker
    words: list[tuple[str, Clip]] = field(default_factory=list)  # yes, no
    unknown: list[Clip] = field(default_factory=list)  # words that are none of ours
    numbers: list[tuple[str, Clip]] = field(default_factory=list)  # digits as "0123", read fluently
    fluent: list[list[tuple[str, Clip]]] = field(default_factory=list)  # words cut out of each of them
    sentences: list[np.ndarray] = field(default_factory=list)  # read speech
    noises: list[np.ndarray] = field(default_factory=list)


def find_speech(samples: np.ndarray) -> Clip:
    """Enclose the loud part of a recording of one word or string; peak-normalise."""
    samples = samples / (np.abs(samples).max() + 1e-6)
    hop = SAMPLE_RATE // 100
    count = len(samples) // hop
    level = np.sqrt((samples[: count * hop].reshape(count, hop) ** 2).mean(1))
    loud = np.flatnonzero(level > max(level.max() * 0.06, np.percentile(level, 20) * 2))
    if not len(loud):
        return Clip(samples, 0, len(samples))
    return Clip(samples, int(loud[0]) * hop, int(loud[-1] + 1) * hop)


def _with_margins(clip: Clip) -> Clip:
    """Fluent strings have few quiet moments to tell silence from consonants: leave 150 ms around."""
    return Clip(clip.samples, max(0, clip.start - 1200), min(len(clip.samples), clip.end + 1200))


def is_development(folder: str, speaker: str) -> bool:
    """Whether a training speaker is set aside to choose between checkpoints."""
    held_out = PERCENT.get(folder, DEFAULT_PERCENT)
    return held_out <= bucket(speaker) < held_out + DEVELOPMENT_BUCKETS


def _clips(speech: Path, folder: str, development: bool) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    for row in training_rows(speech, folder):
        if is_development(folder, speaker_id(row)) == development:
            samples, rate = sf.read(row["file"], dtype="float32")
            if rate != SAMPLE_RATE or samples.ndim != 1:
                raise ValueError(f"{row['file']}: {rate} Hz, {samples.ndim} channels; one channel of 8 kHz is needed")
            yield row, samples


def _add_word(corpus: Corpus, row: dict[str, str], clip: Clip) -> None:
    word = row["text"]
    if not 0.12 < (clip.end - clip.start) / SAMPLE_RATE < 0.97:  # cut off, or only noise
        return
    if word in DIGITS:
        corpus.digits[row["speaker"]].append((word, clip))
    elif word in WORDS:
        corpus.words.append((word, clip))
    else:
        corpus.unknown.append(clip)


def _add_own(corpus: Corpus, row: dict[str, str], clip: Clip) -> None:
    if row["text"].isdigit():
        corpus.numbers.append((row["text"], _with_margins(clip)))
    elif row["text"] in WORDS:
        _add_word(corpus, row, clip)
    else:
        corpus.sentences.append(clip.cut())


def load(speech: Path, development: bool = False, own: Path | None = None) -> Corpus:
    """All recordings of the training speakers, or of the development speakers among them.

    ``own``: a folder with a ``manifest.tsv`` of further recordings (path, speaker, text; 8 kHz; other columns are
    free). A text in figures is a number read fluently, one of our words that word, any other text other speech.
    """
    corpus = Corpus()
    if own:
        for row, samples in _clips(own.parent, own.name, development):
            _add_own(corpus, row, find_speech(samples))
    for folder in ("speech_commands_digits", "speech_commands_voices", "speech_commands_words"):
        for row, samples in _clips(speech, folder, development):
            _add_word(corpus, row, find_speech(samples))
    for row, samples in _clips(speech, "digit_strings_mx", development):
        corpus.numbers.append((row["text"], _with_margins(find_speech(samples))))
    for row, samples in _clips(speech, "phone_numbers", development):
        if "kind=numbers" in row["notes"] and row["text"].isdigit():
            corpus.numbers.append((row["text"], _with_margins(find_speech(samples))))
        elif "kind=names" in row["notes"]:
            corpus.sentences.append(find_speech(samples).cut())
    for folder in ("librispeech_resemblyzer", "librispeech_deepspeaker"):
        corpus.sentences += [find_speech(x).cut() for _, x in _clips(speech, folder, development)]
    corpus.noises += [
        x for row, x in _clips(speech, "noise_rir", development) if row["text"].startswith("noise")
    ]
    return corpus
