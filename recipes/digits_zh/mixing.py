"""Training examples in Mandarin: synthetic words and strings, and real speech that holds none of the words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf

from recipes.digits.clips import SAMPLE_RATE, Clip, Corpus, find_speech
from recipes.digits.graphs import utterance_arcs
from recipes.digits.lexicon import UNKNOWN
from recipes.digits.mixing import WINDOW_S, Example, Mixer
from recipes.digits.synthetic import Utterance
from recipes.heldout import training_rows

from . import synthetic
from .lexicon import OTHER_WORDS

#: Real words that are none of ours: Mandarin and English of 29 people, English of some hundred.
UNKNOWN_WORDS = ("dspspeech20", "speech_commands_words", "speech_commands_voices")
SENTENCES = ("librispeech_resemblyzer", "librispeech_deepspeaker")
#: Of the people who say few words each, so many recordings are enough.
MOST_UNKNOWN = 800


def _samples(speech: Path, folder: str) -> list[np.ndarray]:
    rows = training_rows(speech, folder)
    rows = [r for r in rows if folder != "noise_rir" or r["text"].startswith("noise")]
    return [sf.read(row["file"], dtype="float32")[0] for row in rows[:MOST_UNKNOWN]]


def _whole(samples: np.ndarray) -> Clip:
    return Clip(samples / (np.abs(samples).max() + 1e-6), 0, len(samples))


def load(speech: Path, words: dict[int, list[Utterance]]) -> Corpus:
    """The corpus of a training: machines' words, people's other speech. ``words``: single words by speaker."""
    corpus = Corpus()
    for speaker, said in words.items():
        for samples, (word,) in said:
            if word in OTHER_WORDS:
                corpus.words.append((word, _whole(samples)))
            else:
                corpus.digits[str(speaker)].append((word, _whole(samples)))
    corpus.unknown = [find_speech(x) for folder in UNKNOWN_WORDS for x in _samples(speech, folder)]
    corpus.sentences = [find_speech(x).cut() for folder in SENTENCES for x in _samples(speech, folder)]
    corpus.noises = _samples(speech, "noise_rir")
    return corpus


class MandarinMixer(Mixer):
    """As :class:`Mixer`, with other shares: no number here was read by a person."""

    def example(self, placed: bool = False) -> Example:
        draw = 0.0 if placed else self._rng.random()
        if draw < 0.42:
            clean, words, places = self._joined(others=not placed)
            return Example(self._telephone(clean), utterance_arcs(words), places)
        if draw < 0.78:
            clean, words = self._spoken_by_machine()
        elif draw < 0.96:
            clean, words = self._other_speech(), [UNKNOWN]
        else:
            clean, words = np.zeros(round(SAMPLE_RATE * WINDOW_S), np.float32), []
        return Example(self._telephone(clean), utterance_arcs(words), None if words else [])

    def _other_speech(self) -> np.ndarray:
        """A piece of a sentence, or a few single words of several people in a row."""
        if self._rng.random() < 0.5:
            return self._into_window(self._piece_of_sentence(1, WINDOW_S), 1.2)
        chosen = self._rng.integers(len(self._corpus.unknown), size=self._rng.integers(1, 7))
        words = [self._corpus.unknown[i].cut(400, 400) for i in chosen]
        return self._into_window(np.concatenate(words), 1.3)


def mixer_of(speech: Path, spoken_by_machine: Path, rng: np.random.Generator) -> Mixer:
    """What the training hears."""
    sentences, words = synthetic.load(spoken_by_machine)
    return MandarinMixer(load(speech, words), sentences, rng)
