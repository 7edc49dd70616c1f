"""``ivr transcribe``: the digits heard in recordings, by the same ear as the call."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from ivr.locales import LOCALES
from ivr.settings import settings
from ivr.speech.audio import SAMPLE_RATE, AudioError, Pcm, read_audio
from ivr.speech.numbers import Hypothesis, hypotheses
from ivr.speech.recogniser import MAX_ALTERNATIVES, DigitModel, DigitModelError, Grammar, Word

SHOWN_ALTERNATIVES = 10
#: A turn of a call is as long at most; a recording may be longer, and is heard piece by piece.
PIECE_SAMPLES = SAMPLE_RATE // 10


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording. Its repr does not tell."""

    file: str
    seconds: float
    words: tuple[Word, ...] = field(repr=False)
    hypotheses: list[Hypothesis] = field(repr=False)
    digit_confidence: list[float] = field(repr=False)  # that each digit of the best string was said

    @property
    def digits(self) -> str:
        return self.hypotheses[0].digits if self.hypotheses else ""

    def as_json(self) -> str:
        alternatives = [{"digits": h.digits, "score": round(h.score, 3)} for h in self.hypotheses]
        confidence = self.hypotheses[0].confidence if self.hypotheses else None
        return json.dumps(
            {
                "file": self.file,
                "digits": self.digits,
                "confidence": None if confidence is None else round(confidence, 3),
                "digit_confidence": [round(c, 3) for c in self.digit_confidence],
                "alternatives": alternatives,
                "seconds": round(self.seconds, 3),
            }
        )

    def as_text(self) -> str:
        best = self.hypotheses[0].score if self.hypotheses else 0.0
        lines = [f"{self.file}  {self.digits or '(no digits)'}  {self.seconds:.1f} s"]
        lines += [f"  {h.score - best:+7.1f}  {h.digits}" for h in self.hypotheses[1:]]
        lines += [f"  {word.start_s:6.2f}-{word.end_s:.2f} s  {word.text}" for word in self.words]
        return "\n".join(lines)


def transcribe(model: DigitModel, file: str) -> Transcript:
    """Hear one WAV or FLAC file. Raises AudioError."""
    pcm = read_audio(file)
    recogniser = model.recogniser(Grammar.CARD)
    for piece in _pieces(pcm):
        recogniser.accept(piece)
    spoken = recogniser.finish(MAX_ALTERNATIVES)
    heard = [h for h in hypotheses((s.texts, s.score) for s in spoken) if h.digits]
    each = model.calibration.of_digits(heard) if model.calibration else []
    if model.calibration:
        heard = model.calibration.with_confidence(heard, whole_cards=False)
    return Transcript(file, len(pcm) / SAMPLE_RATE, spoken[0].words, heard[:SHOWN_ALTERNATIVES], each)


def _pieces(pcm: Pcm) -> Iterator[Pcm]:
    for start in range(0, len(pcm), PIECE_SAMPLES):
        yield pcm[start : start + PIECE_SAMPLES]


@click.command("transcribe")
@click.argument("files", metavar="FILE...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: digits, how sure, alternatives.")
@click.option("--locale", type=click.Choice(LOCALES), default="en", show_default=True, help="What is spoken.")
@click.option("--from", "listed", type=click.Path(), metavar="LIST", help="A file that names one recording a line.")
def command(files: tuple[str, ...], as_json: bool, locale: str, listed: str | None) -> None:
    """The digits heard in recordings (WAV or FLAC, any rate), with alternatives and times.

    A recording that cannot be read is reported and passed over; the exit status is then 1.
    """
    wanted = [*files, *_listed(listed)]
    if not wanted:
        raise click.UsageError("name a recording, or a list of them with --from")
    try:
        folder = settings().digit_model_zh_dir if locale == "zh" else settings().digit_model_dir
        if folder is None:
            raise click.ClickException(f"no digit model for {locale} is configured")
        model = DigitModel(folder, locale)
    except (DigitModelError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    failed = False
    for file in wanted:
        try:
            transcript = transcribe(model, file)
        except AudioError as error:
            failed = True
            click.echo(str(error), err=True)
        else:
            click.echo(transcript.as_json() if as_json else transcript.as_text())
    sys.exit(1 if failed else 0)


def _listed(listed: str | None) -> list[str]:
    if listed is None:
        return []
    try:
        lines = Path(listed).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{listed}: not a readable list of recordings") from error
    return [line.strip() for line in lines if line.strip()]
