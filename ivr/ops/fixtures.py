"""New recordings for scenarios: what to say, whether exactly that was said, and where it is kept.

Asked for are published test card numbers and digits made up here, never anything else; and only where the recogniser
hears exactly these, and nothing between them, is anything kept: the stretch from the first digit to the last. What
else was heard stays in memory, and is gone with it.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

import soundfile

from ivr.customers.errors import InvalidInput
from ivr.ops.simcarrier.audio import MANIFEST
from ivr.speech.audio import SAMPLE_RATE, Pcm
from ivr.speech.numbers import DIGIT_OF
from ivr.speech.recogniser import DigitModel, Grammar, Word

CHALLENGE_DIGITS = 8
MARGIN_S = 0.12  # before the first digit and after the last one: weak consonants lie there
PIECE_SAMPLES = SAMPLE_RATE // 10
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}(/[a-z0-9][a-z0-9_-]{0,39})?")


class Kind(StrEnum):
    CARD = "card"  # one of the test numbers, in one go
    DIGITS = "digits"  # eight digits, as in a challenge or an enrolment
    CLIPS = "clips"  # each digit once, with pauses: challenges are joined from them


class NotAsAsked(Exception):
    """What was heard is not exactly what was asked for. Tells nothing of it."""


@dataclass(frozen=True)
class Asked:
    """What somebody is asked to say."""

    name: str
    kind: Kind
    digits: str

    @property
    def grouped(self) -> str:
        """As it is printed and read out."""
        size = 1 if self.kind is Kind.CLIPS else 4
        return " ".join(self.digits[start : start + size] for start in range(0, len(self.digits), size))

    @property
    def paths(self) -> list[str]:
        """Where it is kept, below a folder: in one piece, or a digit each."""
        if self.kind is not Kind.CLIPS:
            return [f"{self.name}.wav"]
        speaker, take = self.name.split("/")[0], self.name.split("/")[-1]
        return [str(PurePosixPath(speaker, "digits", f"{digit}_{take}.wav")) for digit in self.digits]


@dataclass(frozen=True)
class Recording:
    """Something to keep: its path below the folder, and what is said in it."""

    path: str
    says: str
    digits: str
    pcm: Pcm = field(repr=False)


def asked(name: str, kind: Kind, card: str, cards: Mapping[str, str]) -> Asked:
    """What to say for a recording of this name: the same whenever it is asked. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("name it after the speaker and what it is, in small letters: ann/card")
    draw = random.Random(zlib.crc32(f"{name} {kind}".encode()))
    if kind is Kind.CARD:
        if card not in cards:
            raise InvalidInput(f"--card is one of the published test numbers: {', '.join(sorted(cards))}")
        return Asked(name, kind, cards[card])
    if kind is Kind.CLIPS:
        return Asked(name, kind, "".join(draw.sample("0123456789", k=10)))
    return Asked(name, kind, "".join(draw.choices("0123456789", k=CHALLENGE_DIGITS)))


def heard(model: DigitModel, pcm: Pcm, wanted: Asked) -> list[Recording]:
    """What is to be kept of a recording in which exactly the wanted digits are said. Raises NotAsAsked."""
    words = _words(model, pcm)
    spoken = [n for n, word in enumerate(words) if word.text in DIGIT_OF]
    said = words[spoken[0] : spoken[-1] + 1] if spoken else ()
    if "".join(DIGIT_OF.get(word.text, "?") for word in said) != wanted.digits:
        raise NotAsAsked("that was not exactly what was asked for, or not heard so: nothing was kept")
    if wanted.kind is Kind.CLIPS:
        return [_clip(wanted, said, n, pcm) for n in range(len(said))]
    text = " ".join(word.text for word in said)
    return [Recording(wanted.paths[0], text, wanted.digits, _cut(pcm, said[0].start_s, said[-1].end_s))]


def keep(folder: Path, recordings: list[Recording]) -> list[Path]:
    """Write them, as the fixtures are: 8 kHz mono mu-law WAV, and a line each in the manifest."""
    paths = [folder / recording.path for recording in recordings]
    manifest = folder / MANIFEST
    lines = manifest.read_text(encoding="utf-8") if manifest.exists() else "# What is said in each recording.\n"
    for path, recording in zip(paths, recordings, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, recording.pcm, SAMPLE_RATE, subtype="ULAW")
        if f'path = "{recording.path}"' not in lines:
            lines += f'\n[[recording]]\npath = "{recording.path}"\nsays = "{recording.says}"\n'
            lines += f'digits = "{recording.digits}"\n'
    manifest.write_text(lines, encoding="utf-8")
    return paths


def _words(model: DigitModel, pcm: Pcm) -> tuple[Word, ...]:
    recogniser = model.recogniser(Grammar.DIGITS)
    for start in range(0, len(pcm), PIECE_SAMPLES):
        recogniser.accept(pcm[start : start + PIECE_SAMPLES])
    return recogniser.finish(1)[0].words


def _clip(wanted: Asked, said: tuple[Word, ...], n: int, pcm: Pcm) -> Recording:
    """One digit, to the middle of the pauses beside it at most."""
    word = said[n]
    earliest_s = (said[n - 1].end_s + word.start_s) / 2 if n else 0.0
    latest_s = (word.end_s + said[n + 1].start_s) / 2 if n + 1 < len(said) else len(pcm) / SAMPLE_RATE
    start_s, end_s = max(earliest_s, word.start_s - MARGIN_S), min(latest_s, word.end_s + MARGIN_S)
    return Recording(wanted.paths[n], word.text, wanted.digits[n], _cut(pcm, start_s, end_s, margin_s=0.0))


def _cut(pcm: Pcm, start_s: float, end_s: float, margin_s: float = MARGIN_S) -> Pcm:
    first, last = int((start_s - margin_s) * SAMPLE_RATE), int((end_s + margin_s) * SAMPLE_RATE)
    return pcm[max(0, first) : last]
