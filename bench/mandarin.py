"""How well the shipped Mandarin model hears machines that trained nothing of it, and what it makes of other speech.

``python -m bench.mandarin --speech DIR [--spoken FOLDER]``

No recordings of people saying Mandarin digits were at hand: the voices here are espeak-ng's, of the same synthesiser
as in the training, only others. People are heard only where they say none of the words. ``--spoken``: a folder with
a ``manifest.tsv`` (path, speaker, text: the digits; 8 kHz), to measure on recordings of one's own. Needs espeak-ng.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from ivr.speech.library import vosk
from ivr.speech.mandarin import ANSWERS, DIGITS
from ivr.speech.recogniser import Grammar
from recipes.digits.clips import SAMPLE_RATE, find_speech
from recipes.digits.evaluate import Spoken, edit_distance, hear, mu_law
from recipes.digits_zh import synthetic
from recipes.digits_zh.__main__ import strings
from recipes.digits_zh.lexicon import PINYIN
from recipes.heldout import rows

SEED = 11
RESULTS = Path(__file__).with_name("results") / "mandarin.json"
CONDITIONS = {"clean": None, "15 dB": 15.0, "5 dB": 5.0}
CARDS = CHALLENGES = 6 * len(synthetic.HELD_OUT_VOICES)


@dataclass(frozen=True)
class Rates:
    """Of one test in one condition, with 95 % intervals by drawing voices."""

    voices: int
    strings: int
    digit_error_rate: float
    digit_error_interval: tuple[float, float]
    exact: float
    by_voice: dict[str, float]

    def __str__(self) -> str:
        low, high = self.digit_error_interval
        return (
            f"digit errors {self.digit_error_rate:6.2%} ({low:.2%} ... {high:.2%}), exact {self.exact:6.1%}; "
            f"{self.strings} strings of {self.voices} voices"
        )


def digits_of(text: str) -> str:
    return "".join(DIGITS.get(word, "") for word in text.split())


def through(samples: np.ndarray, snr_db: float | None, rng: np.random.Generator) -> np.ndarray:
    """int16 samples through mu-law, after pink noise at ``snr_db`` below the RMS of the speech (None: none)."""
    clean = samples / 32768
    if snr_db is None:
        return mu_law(clean)
    spectrum = np.fft.rfft(rng.standard_normal(len(clean)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 20.0), len(clean))
    active = clean[np.abs(clean) > 0.01]
    return mu_law(clean + noise / noise.std() * np.sqrt((active**2).mean()) * 10 ** (-snr_db / 20))


def measure(spoken: Sequence[Spoken], snr_db: float | None, listen: Callable[[np.ndarray], str]) -> Rates:
    rng = np.random.default_rng(SEED)
    errors: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for s in spoken:
        heard = digits_of(listen(through(s.samples, snr_db, rng)))
        errors[s.speaker].append((edit_distance(s.digits, heard), len(s.digits)))
    voices = sorted(errors)
    draws = [
        _rate([pair for i in rng.integers(len(voices), size=len(voices)) for pair in errors[voices[i]]])
        for _ in range(1000)
    ]
    every = [pair for pairs in errors.values() for pair in pairs]
    return Rates(
        len(voices),
        len(spoken),
        _rate(every),
        (float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))),
        sum(e == 0 for e, _ in every) / len(every),
        {voice: round(_rate(errors[voice]), 4) for voice in voices},
    )


def _rate(pairs: Sequence[tuple[int, int]]) -> float:
    return sum(e for e, _ in pairs) / sum(n for _, n in pairs)


def recorded(folder: Path) -> list[Spoken]:
    """The recordings of a manifest whose text is digits."""
    spoken = []
    with open(folder / "manifest.tsv", newline="", encoding="utf-8") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            samples, rate = sf.read(folder / row["path"], dtype="float32")
            if rate != SAMPLE_RATE:
                raise ValueError(f"{row['path']}: {rate} Hz; 8 kHz are needed")
            if row["text"].isdigit():
                peak = np.abs(samples).max() + 1e-9
                padded = (np.pad(0.5 * samples / peak, 2400) * 32767).astype(np.int16)
                spoken.append(Spoken(padded, row["text"], row["speaker"]))
    return spoken


def other_speech(speech: Path, folders: Sequence[str]) -> list[Spoken]:
    """Held-out people who say none of the words."""
    spoken = []
    for folder in folders:
        for row in [r for r in rows(speech, folder) if r["held_out"]][:100]:
            clip = find_speech(sf.read(row["file"], dtype="float32")[0])
            spoken.append(Spoken(mu_law(np.pad(0.5 * clip.cut()[: 15 * SAMPLE_RATE], 2400)), "", row["speaker"]))
    return spoken


def false_digits(spoken: Sequence[Spoken], listen: Callable[[np.ndarray], str]) -> dict[str, float]:
    """Digits heard where there are none."""
    minutes = sum(len(s.samples) for s in spoken) / SAMPLE_RATE / 60
    heard = sum(len(digits_of(listen(s.samples))) for s in spoken)
    people = len({s.speaker for s in spoken})
    return {"minutes": minutes, "people": people, "digits": heard, "digits_a_minute": heard / minutes}


def answers(listen: Callable[[np.ndarray], str], others: Sequence[Spoken]) -> dict[str, float]:
    """Yes and no by voices that trained nothing: right, the opposite; other speech taken for one of them."""
    rng = random.Random(SEED)
    right, opposite, count = 0, 0, 0
    for voice in synthetic.voices(synthetic.HELD_OUT_VOICES, 2 * len(synthetic.HELD_OUT_VOICES), rng):
        for word, meaning in ANSWERS.items():
            samples = mu_law(np.pad(0.55 * voice.say(PINYIN[word], rng.randint(120, 220)), 2400))
            heard = {ANSWERS[w] for w in listen(samples).split() if w in ANSWERS}
            count, right, opposite = count + 1, right + (heard == {meaning}), opposite + (len(heard - {meaning}) > 0)
    taken = sum(len({ANSWERS[w] for w in listen(s.samples).split() if w in ANSWERS}) == 1 for s in others)
    return {
        "answers": count,
        "right": right / count,
        "opposite": opposite / count,
        "others": len(others),
        "others_taken_for_an_answer": taken / len(others),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mandarin", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--spoken", type=Path, help="recordings of one's own, with a manifest")
    parser.add_argument("--model", type=Path, default=Path("models/digits-zh"))
    args = parser.parse_args()
    vosk.SetLogLevel(-1)
    model = vosk.Model(str(args.model))

    def listener(grammar: Grammar) -> Callable[[np.ndarray], str]:
        words = json.dumps(grammar.words("zh"), ensure_ascii=False)
        return lambda samples: hear(model, samples, words)

    listen = listener(Grammar.DIGITS)
    tests = {
        "16 digits, espeak-ng": strings(synthetic.HELD_OUT_VOICES, CARDS, (16, 16), SEED),
        "4 digits, espeak-ng": strings(synthetic.HELD_OUT_VOICES, CHALLENGES, (4, 4), SEED + 1),
    }
    if args.spoken:
        tests[args.spoken.name] = recorded(args.spoken)
    print("Machines' voices only: no person saying these digits was measured.", flush=True)
    rates: dict[str, dict[str, Rates]] = defaultdict(dict)
    for name, spoken in tests.items():
        for condition, snr_db in CONDITIONS.items():
            rates[name][condition] = measure(spoken, snr_db, listen)
            print(f"{name + ', ' + condition:32s} {rates[name][condition]}", flush=True)
    mandarin = other_speech(args.speech, ["dspspeech20"])
    other = {
        "Mandarin and English words": false_digits(mandarin, listen),
        "English sentences, orders": false_digits(
            other_speech(args.speech, ["librispeech_resemblyzer", "picovoice_barista_oov"]), listen
        ),
    }
    for name, figures in other.items():
        print(f"{name:32s} {figures['digits_a_minute']:.1f} false digits a minute, {figures}")
    yes_no = answers(listener(Grammar.YES_NO), mandarin)
    print(f"yes or no: {yes_no}")
    summary = {
        "model": json.loads((args.model / "manifest.json").read_text())["id"],
        "tests": {name: {c: vars(r) for c, r in of.items()} for name, of in rates.items()},
        "other_speech": other,
        "yes_or_no": yes_no,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
