"""Test strings, and how many of their digits are heard wrongly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ivr.speech.library import vosk
from ivr.speech.numbers import edit_distance

from .augment import SAMPLE_RATE
from .clips import Clip, Corpus
from .features import mfcc
from .graphs import Hmm, hmm
from .lexicon import DIGITS, UNKNOWN
from .lfmmi import best_path
from .network import Network

VALUE = {word: str(i) for i, word in enumerate(DIGITS)} | {"oh": "0"}
GRAMMAR = json.dumps([*VALUE, "double", "triple", UNKNOWN])


@dataclass(frozen=True)
class Spoken:
    """A test utterance: int16 samples at 8 kHz, its digits, whose it is, and how many clips in it came before in it."""

    samples: np.ndarray
    digits: str
    speaker: str
    repeated_clips: int = 0


def mu_law(samples: np.ndarray) -> np.ndarray:
    """Float samples (+-1) through 8-bit mu-law and back, as int16."""
    mu = 255.0
    compressed = np.sign(samples) * np.log1p(mu * np.abs(np.clip(samples, -1, 1))) / np.log1p(mu)
    steps = np.round(compressed * 127) / 127
    return (np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(mu)) / mu * 32767).astype(np.int16)


def join(
    words: Sequence[tuple[str, Clip]], length: int, rng: np.random.Generator, wanted: str = ""
) -> tuple[np.ndarray, str, int]:
    """A string of ``length`` random digits, or the ``wanted`` ones, from clips; no clip twice in a row if there is
    another. Overlaps and natural gaps, a pause after each four.

    Returns float samples (peak 0.5) with half a second of near silence around, the digits, and how many clips were
    used before in the same string.
    """
    by_word = {w: [c for v, c in words if v == w] for w in {w for w, _ in words}}
    names = sorted(by_word)
    pieces, digits, used = [], "", set()
    at, clip = 0, None
    for i in range(len(wanted) or length):
        word = DIGITS[int(wanted[i])] if wanted else names[rng.integers(len(names))]
        others = [c for c in by_word[word] if c is not clip] or by_word[word]
        clip = others[rng.integers(len(others))]
        used.add(id(clip))
        piece = clip.cut(80, 120) / (np.abs(clip.samples).max() + 1e-9) * rng.uniform(0.7, 1.0)
        pieces.append((at, piece))
        gap = rng.uniform(-0.03, 0.15) + (rng.uniform(0.05, 0.4) if i % 4 == 3 else 0)
        at += len(piece) + int(gap * SAMPLE_RATE)
        digits += VALUE[word]
    margin = SAMPLE_RATE // 2
    out = rng.standard_normal(2 * margin + max(a + len(p) for a, p in pieces)).astype(np.float32) * 1e-4
    for start, piece in pieces:
        out[margin + start : margin + start + len(piece)] += 0.5 * piece
    return out, digits, len(digits) - len(used)


def development_set(corpus: Corpus, count: int = 48, seed: int = 3) -> list[Spoken]:
    """Joined 16-digit strings of three development speakers each: few have all digits."""
    rng = np.random.default_rng(seed)
    speakers = sorted(corpus.digits)
    spoken: list[Spoken] = []
    while len(spoken) < count:
        cast = [speakers[i] for i in rng.integers(len(speakers), size=3)]
        samples, digits, _ = join([c for s in cast for c in corpus.digits[s]], 16, rng)
        spoken.append(Spoken(mu_law(samples), digits, "+".join(cast)))
    return spoken


def digits_of(text: str) -> str:
    """Digits of a transcript; double and triple repeat the next digit, other words are dropped."""
    out, times = "", 1
    for word in text.split():
        if word in VALUE:
            out, times = out + VALUE[word] * times, 1
        else:
            times = {"double": 2, "triple": 3}.get(word, 1)
    return out


def hear(model: vosk.Model, samples: np.ndarray, grammar: str = GRAMMAR, rate: int = SAMPLE_RATE) -> str:
    """The text that Vosk hears in int16 samples at ``rate``."""
    recognizer = vosk.KaldiRecognizer(model, rate, grammar)
    recognizer.AcceptWaveform(samples.tobytes())
    return str(json.loads(recognizer.FinalResult())["text"])


def best_words(network: Network, samples: np.ndarray, loop: Hmm) -> str:
    """The words of the best path: what Vosk hears, without its lattices, large while a network is poor."""
    with torch.no_grad():
        scores = network(mfcc(torch.from_numpy(samples.astype(np.float32))[None]))[0].double().numpy()
    _, path = best_path(scores, loop)
    entered = [b for a, b in pairwise([0, *path]) if a != b]
    return " ".join(loop.words[s] for s in entered if loop.words[s])


def digit_errors(network: Network, spoken: Sequence[Spoken]) -> list[int]:
    """Digit errors of each utterance, digits and their repetitions allowed."""
    loop = hmm([(0, 0, w) for w in (*VALUE, "double", "triple", UNKNOWN)])
    return [edit_distance(s.digits, digits_of(best_words(network, s.samples, loop))) for s in spoken]
