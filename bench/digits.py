"""How well the shipped digit model hears people whom no training has heard.

``python -m bench.digits --speech DIR``

Reads ``models/digits`` with Vosk as the service does, and pocketsphinx beside it on a part. Prints rates with
95 % intervals by bootstrap over speakers, then a line ``PASS|MISS name value target n`` for each target.
Writes ``bench/results/digits.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import vosk
from scipy.signal import resample_poly

from recipes.digits.clips import Clip, find_speech
from recipes.digits.evaluate import GRAMMAR, VALUE, Spoken, digits_of, edit_distance, hear, join, mu_law
from recipes.heldout import rows

SAMPLE_RATE = 8000
SEED = 11
RESULTS = Path(__file__).with_name("results") / "digits.json"
#: Test, condition, measure, the most (error rates, real-time factor) or least (strings exact) that is wanted.
TARGETS = (
    ("phone_numbers", "clean", "digit_error_rate", 0.02),
    ("phone_numbers", "clean", "exact", 0.85),
    ("fsdd_16", "clean", "digit_error_rate", 0.02),
    ("commands_16", "clean", "digit_error_rate", 0.02),
    ("fsdd_16", "clean", "real_time_factor", 0.03),
)
FALSE_DIGITS_TARGET = 1.0
DIGIT_LOOP_JSGF = "#JSGF V1.0;\ngrammar digits;\npublic <digits> = ( {} )+ ;\n"


@dataclass(frozen=True)
class Heard:
    speaker: str
    digits: int
    errors: int


# --- test sets


def _as_it_is(samples: np.ndarray) -> Clip:
    """A recording that is trimmed already: looking for silence in it would cut off consonants."""
    return Clip(samples / (np.abs(samples).max() + 1e-6), 0, len(samples))


def _held_out(
    speech: Path, folder: str, clip_of: Callable[[np.ndarray], Clip] = find_speech
) -> dict[str, list[tuple[str, Clip]]]:
    """Held-out clips of a folder by speaker: text and recording."""
    clips: dict[str, list[tuple[str, Clip]]] = defaultdict(list)
    for row in rows(speech, folder):
        if row["held_out"]:
            clips[row["speaker"]].append((row["text"], clip_of(sf.read(row["file"], dtype="float32")[0])))
    return clips


def _joined(clips: dict[str, list[tuple[str, Clip]]], per_speaker: int, seed: int) -> list[Spoken]:
    rng = np.random.default_rng(seed)
    spoken = []
    for speaker in sorted(clips):
        for _ in range(per_speaker):
            samples, digits = join(clips[speaker], 16, rng)
            spoken.append(Spoken((samples * 32767).astype(np.int16), digits, speaker))
    return spoken


def _whole(clips: dict[str, list[tuple[str, Clip]]]) -> list[Spoken]:
    """Recordings as they are, half of full scale, with 0.3 s of near silence around."""
    rng = np.random.default_rng(SEED)
    spoken = []
    for speaker, said in clips.items():
        for text, clip in said:
            samples = np.pad(0.5 * clip.samples, 2400) + rng.standard_normal(len(clip.samples) + 4800) * 1e-4
            digits = text if text.isdigit() else VALUE[text]
            spoken.append(Spoken((samples * 32767).astype(np.int16), digits, speaker))
    return spoken


def test_sets(speech: Path) -> dict[str, list[Spoken]]:
    """Every utterance that is measured, before channel and noise."""
    commands = _held_out(speech, "speech_commands_digits")
    many_digits = {s: c for s, c in commands.items() if len({w for w, _ in c}) >= 5}
    numbers = {  # shorter ones are transcripts gone wrong: their recordings are as long as the others
        s: [c for c in said if c[0].isdigit() and len(c[0]) > 6]
        for s, said in _held_out(speech, "phone_numbers").items()
    }
    return {
        "fsdd_16": _joined(_held_out(speech, "fsdd", _as_it_is), 40, SEED),
        "commands_16": _joined(many_digits, 2, SEED + 1),
        "commands_single": _whole(commands),
        "phone_numbers": _whole({s: c for s, c in numbers.items() if c}),
        "digit_strings_mx": _whole(_held_out(speech, "digit_strings_mx")),
    }


def other_speech(speech: Path) -> list[Spoken]:
    """Held-out people who say no digits, or next to none: sentences and orders. At most 15 s each."""
    spoken = []
    for folder in ("librispeech_resemblyzer", "picovoice_barista_oov"):
        for row in [r for r in rows(speech, folder) if r["held_out"]][:40]:
            clip = find_speech(sf.read(row["file"], dtype="float32")[0])
            samples = mu_law(0.5 * clip.samples[: 15 * SAMPLE_RATE])
            spoken.append(Spoken(samples, "", row["speaker"]))
    return spoken


def through(spoken: Spoken, snr_db: float | None, rng: np.random.Generator) -> Spoken:
    """Mu-law, after pink noise at ``snr_db`` below the RMS of the speech (None: none)."""
    samples = spoken.samples / 32768
    if snr_db is not None:
        spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 20.0), len(samples))
        active = samples[np.abs(samples) > 0.01]
        level = np.sqrt((active**2).mean()) if len(active) else 0.1
        samples = samples + noise / noise.std() * level * 10 ** (-snr_db / 20)
    return Spoken(mu_law(samples), spoken.digits, spoken.speaker)


# --- recognisers


def ours(folder: Path) -> Callable[[np.ndarray], str]:
    model = vosk.Model(str(folder))
    return lambda samples: digits_of(hear(model, samples, GRAMMAR))


def pocketsphinx_digits() -> Callable[[np.ndarray], str]:
    """CMU's US English model with a loop of the same digit words, on the same audio at its 16 kHz."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000, lm=None, bestpath=False, loglevel="FATAL")
    decoder.add_jsgf_string("digits", DIGIT_LOOP_JSGF.format(" | ".join(VALUE)))
    decoder.activate_search("digits")

    def listen(samples: np.ndarray) -> str:
        decoder.start_utt()
        wide = np.clip(resample_poly(samples.astype(float), 2, 1), -32768, 32767).astype(np.int16)
        decoder.process_raw(wide.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return digits_of(hypothesis.hypstr) if hypothesis else ""

    return listen


# --- figures


def interval(heard: Sequence[Heard], rate: Callable[[Iterable[Heard]], float]) -> tuple[float, float]:
    """95 % interval of ``rate`` by drawing speakers with replacement."""
    by_speaker: dict[str, list[Heard]] = defaultdict(list)
    for h in heard:
        by_speaker[h.speaker].append(h)
    groups = list(by_speaker.values())
    rng = np.random.default_rng(SEED)
    draws = [
        rate([h for i in rng.integers(len(groups), size=len(groups)) for h in groups[i]]) for _ in range(1000)
    ]
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def digit_error_rate(heard: Iterable[Heard]) -> float:
    heard = list(heard)
    return sum(h.errors for h in heard) / sum(h.digits for h in heard)


def exact_rate(heard: Iterable[Heard]) -> float:
    heard = list(heard)
    return sum(h.errors == 0 for h in heard) / len(heard)


@dataclass(frozen=True)
class Figures:
    """Rates with 95 % intervals, and the real-time factor: processor time over audio time."""

    speakers: int
    strings: int
    digits: int
    digit_error_rate: float
    digit_error_interval: tuple[float, float]
    exact: float
    exact_interval: tuple[float, float]
    real_time_factor: float
    by_speaker: dict[str, float]

    def __str__(self) -> str:
        (low, high), (exact_low, exact_high) = self.digit_error_interval, self.exact_interval
        return (
            f"DER {self.digit_error_rate:6.2%} ({low:.2%} ... {high:.2%})  "
            f"exact {self.exact:6.1%} ({exact_low:.1%} ... {exact_high:.1%})  "
            f"{self.speakers} speakers, {self.strings} strings, RTF {self.real_time_factor:.4f}"
        )


def measure(listen: Callable[[np.ndarray], str], spoken: Sequence[Spoken]) -> Figures:
    """What one recogniser hears in one test. Speakers are listed where they are few."""
    started = time.process_time()
    heard = [Heard(s.speaker, len(s.digits), edit_distance(s.digits, listen(s.samples))) for s in spoken]
    used_s = time.process_time() - started
    speakers = sorted({h.speaker for h in heard})
    each = {s: round(digit_error_rate(h for h in heard if h.speaker == s), 4) for s in speakers}
    return Figures(
        speakers=len(speakers),
        strings=len(spoken),
        digits=sum(h.digits for h in heard),
        digit_error_rate=digit_error_rate(heard),
        digit_error_interval=interval(heard, digit_error_rate),
        exact=exact_rate(heard),
        exact_interval=interval(heard, exact_rate),
        real_time_factor=used_s / sum(len(s.samples) / SAMPLE_RATE for s in spoken),
        by_speaker=each if len(each) <= 12 else {},
    )


def measure_test(
    spoken: Sequence[Spoken],
    listen: Callable[[np.ndarray], str],
    peer: Callable[[np.ndarray], str],
    part: int,
) -> dict[str, Figures]:
    """One test in all conditions; both recognisers on about ``part`` of its clean strings."""
    figures = {}
    for condition, snr_db in (("clean", None), ("15 dB", 15.0), ("5 dB", 5.0)):
        rng = np.random.default_rng(SEED)
        arrived = [through(s, snr_db, rng) for s in spoken]
        figures[condition] = measure(listen, arrived)
        if condition == "clean":
            some = arrived[:: max(1, len(arrived) // part)]
            figures["clean, part, pocketsphinx"] = measure(peer, some)
            figures["clean, part, this model"] = measure(listen, some)
    return figures


def false_digits_a_minute(spoken: Sequence[Spoken], listen: Callable[[np.ndarray], str]) -> float:
    """Digits heard where there are none."""
    minutes = sum(len(s.samples) for s in spoken) / SAMPLE_RATE / 60
    return sum(len(listen(s.samples)) for s in spoken) / minutes


def yes_or_no(speech: Path, folder: Path) -> dict[str, float]:
    """Held-out yes and no among the commands: heard rightly, as the opposite; other words heard as them."""
    model = vosk.Model(str(folder))
    grammar = json.dumps(["yes", "no", "cancel", "agent", "repeat", "start", "again", "[unk]"])
    heard: dict[str, list[str]] = defaultdict(list)
    for clips in _held_out(speech, "speech_commands_voices").values():
        for word, clip in clips:
            text = hear(model, mu_law(np.pad(0.5 * clip.samples, 2400)), grammar)
            heard[word if word in ("yes", "no") else "other"].append(text)
    answers = [(word, text) for word in ("yes", "no") for text in heard[word]]
    opposite = {"yes": "no", "no": "yes"}
    return {
        "answers": len(answers),
        "right": sum(w == t for w, t in answers) / len(answers),
        "opposite": sum(opposite[w] == t for w, t in answers) / len(answers),
        "others": len(heard["other"]),
        "others_taken_for_an_answer": sum(t in opposite for t in heard["other"]) / len(heard["other"]),
    }


def verdict(name: str, value: float, target: float, count: int, at_least: bool = False) -> bool:
    """Print one target's line; whether it is reached."""
    reached = value >= target if at_least else value <= target
    print(f"{'PASS' if reached else 'MISS'} {name} {value:.4f} {target} {count}")
    return reached


def noises(speech: Path) -> list[Spoken]:
    """Held-out noise, twenty seconds a piece, loud and quiet."""
    found = [sf.read(r["file"], dtype="float32")[0] for r in rows(speech, "noise_rir") if r["held_out"]]
    size = 20 * SAMPLE_RATE
    pieces = [x[at : at + size] for x in found for at in range(0, len(x) - size, size)]
    levels = (0.05, 0.5)
    return [Spoken(mu_law(level * x / np.abs(x).max()), "", "") for x in pieces[:20] for level in levels]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digits", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--peer-strings", type=int, default=60, help="of a test, heard by pocketsphinx, too")
    args = parser.parse_args()
    vosk.SetLogLevel(-1)
    listen, peer = ours(args.model), pocketsphinx_digits()
    results: dict[str, dict[str, Figures]] = {}
    for name, spoken in test_sets(args.speech).items():
        results[name] = measure_test(spoken, listen, peer, args.peer_strings)
        for condition, figures in results[name].items():
            print(f"{name + ', ' + condition:44s} {figures}", flush=True)
    other = other_speech(args.speech)
    false_digits = false_digits_a_minute(other, listen)
    answers = yes_or_no(args.speech, args.model)
    print(f"yes or no: {answers}")
    summary = {
        "model": json.loads((args.model / "manifest.json").read_text())["id"],
        "false_digits_per_minute": false_digits,
        "yes_or_no": answers,
        "tests": {name: {c: asdict(f) for c, f in of.items()} for name, of in results.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n")
    quiet = noises(args.speech)
    reached = [
        verdict("other_speech/false_digits_per_minute", false_digits, FALSE_DIGITS_TARGET, len(other)),
        verdict("noise/false_digits_per_minute", false_digits_a_minute(quiet, listen), FALSE_DIGITS_TARGET, len(quiet)),
    ]
    for name, condition, figure, target in TARGETS:
        figures = results[name][condition]
        value = getattr(figures, figure)
        reached.append(verdict(f"{name}/{condition}/{figure}", value, target, figures.strings, figure == "exact"))
    sys.exit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
