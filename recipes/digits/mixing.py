"""Training examples: strings of words joined from clips, fluent strings, synthetic speech, garbage, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import augment
from .clips import SAMPLE_RATE, Clip, Corpus
from .graphs import WordArc, number_arcs, utterance_arcs
from .lexicon import UNKNOWN
from .synthetic import Utterance

WINDOW_S = 6.4
#: How often a string may be made of digits cut out of one fluent number, against those of one speaker of
#: isolated ones: there are few such numbers.
FLUENT_WEIGHT = 4
_WINDOW = int(WINDOW_S * SAMPLE_RATE)


@dataclass
class Example:
    """``samples`` (WINDOW_S) in the range of int16; what was said; where words lie (samples) if known."""

    samples: np.ndarray
    arcs: list[WordArc]
    places: list[tuple[str, int, int]] | None


#: Cut into the word, cut around it, or with all that the recording holds: what is heard between words is
#: seldom silence.
_MARGINS = (((-320, -480), (120, 160)), ((0, 0), (480, 720)), ((0, 0), (4000, 4000)))


@dataclass
class _Manner:
    """How one person speaks one string: the same throughout, with some variation a word."""

    pitch: float
    tempo: float
    margins: tuple[tuple[int, int], tuple[int, int]]  # fewest and most samples kept before and after a word
    gap: tuple[float, float]  # of the pause after a word, seconds; negative overlaps
    group: int  # a longer pause after so many words; 0: none


def _manner(rng: np.random.Generator) -> _Manner:
    # A third has no gaps at all: fluent speech, faster than isolated words are said.
    style = rng.integers(3)
    gap = ((-0.06, 0.03), (-0.02, 0.12), (0.0, 0.4))[style]
    tempo = (rng.uniform(1.0, 1.7), rng.uniform(0.85, 1.5), rng.uniform(0.7, 1.3))[style]
    if rng.random() < 0.35:
        tempo = 1.0
    margins = _MARGINS[rng.choice(3, p=(0.55, 0.3, 0.15))]
    return _Manner(rng.uniform(0.78, 1.26), tempo, margins, gap, int(rng.choice([0, 0, 3, 4, 4, 5])))


class Mixer:
    """Draws examples at random from a corpus and synthetic speech."""

    def __init__(self, corpus: Corpus, synthetic: Sequence[Utterance], rng: np.random.Generator) -> None:
        self._corpus = corpus
        self._rng = rng
        self._speakers = [clips for clips in corpus.digits.values() if clips]
        self._speakers += FLUENT_WEIGHT * [clips for clips in corpus.fluent if clips]
        lengths = np.array([len(digits) for digits, _ in corpus.numbers], float)
        self._number_weights = lengths**2 / (lengths**2).sum()  # long ones are rarer and more fluent
        self._synthetic = list(synthetic)
        self._single = [(w, x) for x, w in synthetic if len(w) == 1 or w == ["start", "again"]]
        self._noise = augment.NoiseBank(corpus.noises, corpus.sentences, rng)

    def example(self, placed: bool = False) -> Example:
        """One example; ``placed``: of the kind whose word places are known."""
        draw = 0.0 if placed else self._rng.random()
        if draw < 0.57:
            clean, words, places = self._joined(others=not placed)
            arcs = utterance_arcs(words)
        elif draw < 0.68:
            return self.spoken()
        elif draw < 0.84:
            clean, digits = self._fluent()
            arcs, places = number_arcs(digits), None
        elif draw < 0.96:
            clean = self._into_window(self._piece_of_sentence(1, WINDOW_S), 1.2)
            arcs, places = utterance_arcs([UNKNOWN]), None
        else:
            clean, arcs, places = np.zeros(_WINDOW, np.float32), utterance_arcs([]), []
        return Example(self._telephone(clean), arcs, places)

    def spoken(self) -> Example:
        """One example of synthetic speech."""
        clean, words = self._spoken_by_machine()
        return Example(self._telephone(clean), utterance_arcs(words), None)

    def unknown(self) -> Example:
        """One example of somebody who says a word or two, and none of ours."""
        if self._rng.random() < 0.5:
            said = self._piece_of_sentence(0.3, 1.2)
        else:
            clip = self._corpus.unknown[self._rng.integers(len(self._corpus.unknown))]
            margin = int(self._rng.integers(0, 4000))
            said = clip.cut(margin, margin)
        return Example(self._telephone(self._into_window(said, 1.4)), utterance_arcs([UNKNOWN]), None)

    # --- what is said

    def _cast(self) -> list[tuple[str, Clip]]:
        """Digit clips of a few speakers; most speakers have only a few digits."""
        speakers = self._rng.integers(len(self._speakers), size=self._rng.choice([1, 2, 3, 6]))
        return [clip for s in speakers for clip in self._speakers[s]]

    def _word(self, cast: list[tuple[str, Clip]], before: str, repeats: bool) -> tuple[str, Clip]:
        same = [c for c in cast if c[0] == before]
        if repeats and same and self._rng.random() < 0.5:
            return same[self._rng.integers(len(same))]
        wanted = cast[self._rng.integers(len(cast))]
        return wanted

    def _other(self) -> tuple[str, np.ndarray]:
        """What is no real digit: a piece of a sentence, yes or no, a word we do not know, a synthetic word."""
        draw = self._rng.random()
        if draw < 0.15:
            return UNKNOWN, self._piece_of_sentence(0.3, 2.0)
        if draw < 0.4:
            word, clip = self._corpus.words[self._rng.integers(len(self._corpus.words))]
            return word, clip.cut(160, 160)
        if draw < 0.65:
            return UNKNOWN, self._corpus.unknown[self._rng.integers(len(self._corpus.unknown))].cut(160, 160)
        labels, samples = self._single[self._rng.integers(len(self._single))]
        return " ".join(labels), samples

    def _joined(self, others: bool) -> tuple[np.ndarray, list[str], list[tuple[str, int, int]]]:
        rng, manner, cast = self._rng, _manner(self._rng), self._cast()
        repeats, others = rng.random() < 0.35, others and rng.random() < 0.3
        out = np.zeros(_WINDOW, np.float32)
        words: list[str] = []
        places: list[tuple[str, int, int]] = []
        at = int(rng.choice([rng.uniform(0, 0.02), rng.uniform(0, 0.3), rng.uniform(0, 1.2)]) * SAMPLE_RATE)
        limit = _WINDOW - int(rng.choice([0, 0.3, 2.0]) * SAMPLE_RATE)
        while True:
            around = (0, 0)  # samples before and after the word
            if others and rng.random() < 0.25:
                word, cut = self._other()
            else:
                word, clip = self._word(cast, words[-1] if words else "", repeats)
                half = (clip.start - clip.end) // 4  # of the word is left, however short it is
                before, after = np.maximum(rng.integers(*manner.margins), half)
                cut = clip.cut(before, after)
                around = (min(max(0, before), clip.start), min(max(0, after), len(clip.samples) - clip.end))
            piece = self._said(cut, manner)
            if at + len(piece) > limit:
                break
            out[at : at + len(piece)] += piece
            words += word.split()
            stretch = len(piece) / len(cut)
            end = at + len(piece) - int(around[1] * stretch)
            places.append((word, at + int(around[0] * stretch), end))
            pause = rng.uniform(*manner.gap)
            if manner.group and len(words) % manner.group == 0:
                pause += rng.uniform(0.05, 0.8)
            at = max(0, at + len(piece) + int(pause * SAMPLE_RATE))
        return out, words, places

    def _said(self, samples: np.ndarray, manner: _Manner) -> np.ndarray:
        """A word in the voice and at tempo of its string; edges faded or, when cut tightly, abrupt."""
        rng = self._rng
        samples = augment.resample(samples, manner.pitch * rng.uniform(0.97, 1.03))
        samples = augment.change_tempo(samples, manner.tempo * rng.uniform(0.92, 1.08))
        samples = samples * np.float32(rng.uniform(0.5, 1.0))
        if manner.margins != _MARGINS[0] or rng.random() < 0.6:
            ramp = np.linspace(0, 1, 24, dtype=np.float32)
            samples[:24] *= ramp
            samples[-24:] *= ramp[::-1]
        return samples

    def _into_window(self, samples: np.ndarray, fastest: float) -> np.ndarray:
        """Another voice and tempo, somewhere in the window; fast enough to fit."""
        rng = self._rng
        samples = augment.resample(samples, rng.uniform(0.88, 1.16))
        needed = len(samples) / (_WINDOW - 800)
        tempo = max(needed * 1.001, rng.uniform(0.8, fastest) if rng.random() < 0.7 else 1.0)
        samples = augment.change_tempo(samples, tempo)[:_WINDOW]
        out = np.zeros(_WINDOW, np.float32)
        at = int(rng.uniform(0, _WINDOW - len(samples)))
        out[at : at + len(samples)] = samples
        return out

    def _spoken_by_machine(self) -> tuple[np.ndarray, list[str]]:
        samples, words = self._synthetic[self._rng.integers(len(self._synthetic))]
        if len(samples) > 2 * _WINDOW:
            return self._spoken_by_machine()
        return self._into_window(samples, 1.4), words

    def _fluent(self) -> tuple[np.ndarray, str]:
        """A number as somebody read it."""
        numbers = self._corpus.numbers
        digits, clip = numbers[self._rng.choice(len(numbers), p=self._number_weights)]
        margin = int(self._rng.integers(0, 800))
        if clip.end - clip.start > 1.7 * _WINDOW:
            return self._fluent()
        return self._into_window(clip.cut(margin, margin), 1.6), digits

    def _piece_of_sentence(self, shortest_s: float, longest_s: float) -> np.ndarray:
        samples = self._corpus.sentences[self._rng.integers(len(self._corpus.sentences))]
        length = min(len(samples), int(self._rng.uniform(shortest_s, longest_s) * SAMPLE_RATE))
        start = int(self._rng.integers(len(samples) - length + 1))
        return samples[start : start + length]

    # --- how it arrives

    def _telephone(self, clean: np.ndarray) -> np.ndarray:
        rng = self._rng
        speech = clean
        if rng.random() < 0.25:
            speech = augment.reverberate(speech, rng)
        loudness = np.sqrt((speech**2).sum() / max(1, np.count_nonzero(np.abs(speech) > 1e-3)))
        if rng.random() < 0.8:
            snr_db = rng.uniform(5, 35) if rng.random() < 0.7 else rng.uniform(35, 65)
            level = loudness * 10 ** (-snr_db / 20) if loudness > 0 else 10 ** (-rng.uniform(1, 3))
            speech = speech + self._noise.cut(_WINDOW) * np.float32(level)
        if rng.random() < 0.5:
            speech = augment.band_limit(speech, rng)
        # From a whisper far from the microphone to clipping.
        gain_db = rng.uniform(2, 12) if rng.random() < 0.08 else -rng.uniform(0, 40)
        if loudness > 0:
            speech = speech / (np.abs(speech).max() + 1e-9)
        coded = augment.code(speech * np.float32(10 ** (gain_db / 20)), rng)
        if rng.random() < 0.12:
            coded = augment.lose_packets(coded, rng)
        return np.round(coded * 32767).astype(np.float32)
