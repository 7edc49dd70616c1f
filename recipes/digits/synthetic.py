"""Synthetic speech for the words of which there are no recordings, and for fluent strings of digits.

espeak-ng and flite speak random sentences of the vocabulary in many voices; garbage phrases carry the
label ``[unk]``. Voices of machines are no test of a recogniser: nothing is measured on them.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Callable
from math import gcd
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

from .lexicon import DIGITS, UNKNOWN, WORDS

SAMPLE_RATE = 8000
Utterance = tuple[np.ndarray, list[str]]  # float32 samples at 8 kHz, |x| <= 1; words
Sentence = tuple[str, list[str]]  # text for a synthesiser, and its words as the recogniser shall hear them

TEENS = [w for w in WORDS if w.endswith("teen")] + ["ten", "eleven", "twelve"]
TENS = [w for w in WORDS if w.endswith("ty")]
COMMANDS = ["yes", "no", "start again", "cancel", "agent", "repeat", "again", "start"]
GARBAGE = (
    "my card number is|the number is|um|uh let me see|please hold on|expiry date is|hello|"
    "that is correct|hmm|wait|can you say that please|I do not have my card|okay|thank you very much|"
    "the security code is|hang on a second|it is|sorry|the payment|speak to a person|"
    "what is this about|good morning|just a moment please|I said|where do I find it|"
    "my name is Alice Brown|the amount is|pounds and pence|dollars and cents|next week|account balance|"
    "thousand|please|I don't understand|help me please|goodbye|right|and then|make a payment|sure|what|"
    "hey|the last digits are|maybe|visa|mastercard|it's a bank card|could you tell me|this is wrong|"
    "well|so|and|the|point|dash|space"
)
ESPEAK_ACCENTS = "en-gb|en-us|en-gb-scotland|en-gb-x-gbclan|en-gb-x-rp|en-gb-x-gbcwmd|en-029|en-us-nyc"
ESPEAK_VARIANTS = (
    "f1|f2|f3|f4|f5|m1|m2|m3|m4|m5|m6|m7|m8|linda|steph|belinda|Annie|Alicia|Andrea|aunty|adam|david|"
    "edward|john|max|Michael|paul|robert|rob|quincy|benjamin|caleb|Lee|Denis|boris|Mike|norbert|klatt2|"
    "klatt4|grandma|grandpa|travis|victor|anika|shelby|zac"
)
FLITE_VOICES = ("kal16", "awb", "rms", "slt")


def _digit(rng: random.Random) -> str:
    word = rng.choice(DIGITS)
    return "oh" if word == "zero" and rng.random() < 0.5 or rng.random() < 0.04 else word


def _number_words(rng: random.Random) -> list[str]:
    """What may stand in a spoken number: a digit, a repetition, a ten, a teen, a hundred."""
    kind = rng.random()
    if kind < 0.62:
        return [_digit(rng)]
    if kind < 0.74:
        return [rng.choice(["double", "double", "triple"]), _digit(rng)]
    if kind < 0.82:
        return [rng.choice(TEENS)]
    if kind < 0.95:
        return [rng.choice(TENS), rng.choice(DIGITS[1:])] if rng.random() < 0.6 else [rng.choice(TENS)]
    return [rng.choice(DIGITS[1:]), "hundred"]


def sentence(rng: random.Random) -> Sentence:
    """What a caller may say, and what she says besides."""
    kind = rng.random()
    if kind < 0.12:
        phrases = rng.sample(GARBAGE.split("|"), rng.choice([1, 1, 2]))
        return ", ".join(phrases), [UNKNOWN]
    if kind < 0.24:
        commands = [rng.choice(COMMANDS) for _ in range(rng.choice([1, 2, 3]))]
        return ", ".join(commands), " ".join(commands).split()
    words: list[str] = []
    text = ""
    fluent = rng.random() < 0.55  # only digits, as a card number is mostly read
    for _ in range(rng.randint(2, 9)):
        new = [_digit(rng)] if fluent else _number_words(rng)
        if fluent and words and rng.random() < 0.12:
            new = [words[-1]]
        separator = "" if not words else ", " if rng.random() < 0.15 else " "
        text += separator + " ".join(new)
        words += new
    return text, words


def _speak(rng: random.Random, text: str, wav: Path) -> None:
    if rng.random() < 0.7:
        voice = f"{rng.choice(ESPEAK_ACCENTS.split('|'))}+{rng.choice(ESPEAK_VARIANTS.split('|'))}"
        command = ["espeak-ng", "-v", voice, "-s", str(rng.randint(110, 280))]
        command += ["-p", str(rng.randint(15, 85)), "-w", str(wav), text.replace("oh", "owe")]
    else:
        stretch = f"duration_stretch={rng.uniform(0.65, 1.3):.2f}"
        command = ["flite", "-voice", rng.choice(FLITE_VOICES), "--setf", stretch, "-t", text, "-o", str(wav)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def trim_quiet(samples: np.ndarray, threshold: float = 0.01, margin: int = 240) -> np.ndarray:
    """``samples`` without the digital silence that synthesisers put around them."""
    loud = np.flatnonzero(np.abs(samples) > threshold)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else samples[:0]


def generate(count: int, path: Path, seed: int = 5, make: Callable[[random.Random], Sentence] = sentence) -> None:
    """Speak ``count`` sentences into ``path`` (npz: int16 samples end to end, ends, words as JSON)."""
    rng = random.Random(seed)
    clips: list[np.ndarray] = []
    labels: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        while len(clips) < count:
            text, words = make(rng)
            _speak(rng, text, wav)
            samples, rate = sf.read(wav, dtype="float32")
            divisor = gcd(rate, SAMPLE_RATE)
            samples = resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor).astype(np.float32)
            samples = trim_quiet(samples / (np.abs(samples).max() + 1e-9))
            if len(samples) > SAMPLE_RATE // 10:
                clips.append((samples * 32767 * 0.9).astype(np.int16))
                labels.append(words)
    ends = np.cumsum([len(c) for c in clips])
    np.savez(path, samples=np.concatenate(clips), ends=ends, words=json.dumps(labels))


def load(path: Path) -> list[Utterance]:
    """The sentences that :func:`generate` wrote."""
    with np.load(path) as data:
        clips = np.split(data["samples"], data["ends"][:-1])
        labels = json.loads(str(data["words"]))
    return [(c.astype(np.float32) / 32767, w) for c, w in zip(clips, labels, strict=True)]
