"""Replayed recordings, splices and synthetic voices against the liveness checks, on people whom nothing was chosen on.

    python -m bench.liveness --speech ../shared/speech [--development]

Every customer has fifty fingerprints of earlier utterances, half of them of sixteen digits and half of four, each over
its own telephone channel; of two of the sixteen digits one begins late and one is said slowly, for longer than 12 s.
Live: she says digits anew, in takes that no earlier utterance holds. Replayed: one of the
earlier ones as it was received, cut at both ends, through a narrower band, with noise, louder or softer, through one
or two more codecs, and at last over mu-law. Spliced: digits cut out of earlier takes and joined as asked for.
Synthetic: espeak-ng and flite say a card number and a challenge to real people's voiceprints.
``--development`` measures the other Speech Commands speakers, on whom the threshold was chosen.
Prints one line a figure and writes ``bench/results/liveness.json``; exits 1 if a bar was missed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track
from scipy.signal import resample

from fixtures.tts import Voice, synthesise
from recipes import heldout
from recipes.voiceprint.calibrate import over_one_line
from recipes.voiceprint.data import SAMPLE_RATE, Clip, read_trimmed
from voiceprint import Encoder, Outcome, Scorer, Voiceprint, enrol
from voiceprint.replay import SECRET_BYTES, Sound

RESULTS = Path(__file__).with_name("results") / "liveness.json"
EARLIER = 50
CARD, CHALLENGE = 16, 4
LATE_S = 5.0  # of silence before the first digit
SLOW_GAP_S = (0.5, 1.2)  # between digits
CODECS = {"alaw": ("ALAW",), "ulaw": ("ULAW",), "gsm": ("GSM610",), "gsm+gsm": ("GSM610", "GSM610")}
SPEEDS = (0.98, 0.99, 1.01, 1.02)
LEAST_WORDS = 2  # that a speaker said twice
MOST_SPEAKERS = 70
DRAWS = 2000
ROUNDS = 3  # with a new secret each: how like one's own earlier speech one sounds differs from secret to secret
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = {
    "espeak-ng": [Voice("espeak-ng", f"{accent}+{who}") for accent in ("en-us", "en-gb") for who in ("m1", "m3", "f2")],
    "flite": [Voice("flite", name) for name in ("awb", "rms", "slt", "kal16")],
}
Pcm = NDArray[np.float32]
Takes = dict[str, list[Clip]]


@dataclass
class Person:
    """Somebody's clips by word: those of the earlier utterances, and those that only live ones hold."""

    name: str
    earlier: Takes
    live: Takes


def people(speech: Path, corpus: str, held_out: bool) -> list[Person]:
    """Speakers of a corpus who said some words more than once; half of the takes are for earlier utterances."""
    clips: dict[str, Takes] = defaultdict(lambda: defaultdict(list))
    for row in heldout.rows(speech, corpus):
        if row["held_out"] == held_out and len(clip := read_trimmed(row["file"])) > 0.1 * SAMPLE_RATE:
            clips[row["speaker"]][row["text"]].append(clip)
    found = []
    for name, words in sorted(clips.items(), key=lambda item: heldout.bucket("bench" + item[0])):
        twice = {word: takes for word, takes in words.items() if len(takes) > 1}
        if len(twice) >= LEAST_WORDS:
            earlier = {word: takes[: len(takes) // 2] for word, takes in twice.items()}
            found.append(Person(name, earlier, {word: takes[len(takes) // 2 :] for word, takes in twice.items()}))
    return found[:MOST_SPEAKERS]


def say(
    takes: Takes,
    words: int,
    rng: np.random.Generator,
    before_s: float = 0.0,
    gap_s: tuple[float, float] = (0, 0.25),
) -> Pcm:
    """Random words of these takes with gaps, natural ones or others, over a telephone channel of its own."""
    parts = [np.zeros(int(before_s * SAMPLE_RATE), np.float32)]
    for word in rng.choice(sorted(takes), words):
        clip = takes[word][int(rng.integers(len(takes[word])))]
        parts += [clip.astype(np.float32) / 32768, np.zeros(int(rng.uniform(*gap_s) * SAMPLE_RATE), np.float32)]
    return over_one_line([np.concatenate(parts)], False, [], rng)[0]


def coded(speech: Pcm, subtype: str) -> Pcm:
    """Through a codec and back."""
    file = io.BytesIO()
    soundfile.write(file, speech, SAMPLE_RATE, format="WAV", subtype=subtype)
    file.seek(0)
    decoded: Pcm = soundfile.read(file, dtype="float32")[0]
    return decoded


def played(speech: Pcm, codecs: tuple[str, ...], rng: np.random.Generator, speed: float = 1.0) -> Pcm:
    """A recording as it arrives when it is played into another call."""
    cut = rng.integers(0, SAMPLE_RATE // 4, 2)
    speech = speech[cut[0] : len(speech) - cut[1]]
    speech = resample(speech, int(len(speech) / speed)) if speed != 1 else speech
    hz = np.maximum(np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE), 1)
    low, high = rng.uniform(200, 400), rng.uniform(2900, 3500)
    band = 1 / np.sqrt(1 + (low / hz) ** 8) / np.sqrt(1 + (hz / high) ** 20)
    line = np.fft.irfft(np.fft.rfft(speech) * band, len(speech))
    noise_db = -rng.uniform(18, 30)
    line = line + rng.standard_normal(len(line)) * np.sqrt((line**2).mean()) * 10 ** (noise_db / 20)
    line = np.clip(line * 10 ** (rng.uniform(-12, 6) / 20), -1, 1).astype(np.float32)
    for codec in codecs:
        line = coded(line, codec)
    return coded(line, "ULAW")


def trials(person: Person, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """(kind, likeness) of what is said live and of what is played, for one customer."""
    secret = rng.bytes(SECRET_BYTES)
    before = [say(person.earlier, (CARD, CHALLENGE)[i % 2], rng) for i in range(EARLIER)]
    late = before[0] = say(person.earlier, CARD, rng, before_s=LATE_S)
    slow = before[2] = say(person.earlier, CARD, rng, gap_s=SLOW_GAP_S)
    kept = [Sound(pcm).fingerprint(secret) for pcm in before]

    def likeness(pcm: Pcm) -> float:
        found = Sound(pcm).likeness(secret, kept)
        return 0.0 if found is None else found

    for _ in range(6):
        yield "live challenge", likeness(say(person.live, CHALLENGE, rng))
    for _ in range(2):
        yield "live card", likeness(say(person.live, CARD, rng))
    yield "live late card", likeness(say(person.live, CARD, rng, before_s=LATE_S))
    yield "live slow card", likeness(say(person.live, CARD, rng, gap_s=SLOW_GAP_S))
    for name in ("ulaw", "gsm"):
        yield f"replayed late card {name}", likeness(played(late, CODECS[name], rng))
        yield f"replayed slow card {name}", likeness(played(slow, CODECS[name], rng))
    for name, codecs in CODECS.items():
        for kind in (0, 1):
            again = before[2 * int(rng.integers(EARLIER // 2)) + kind]
            yield f"replayed {name}", likeness(played(again, codecs, rng))
    again = before[int(rng.integers(EARLIER))]
    yield "replayed faster or slower", likeness(played(again, CODECS["gsm"], rng, float(rng.choice(SPEEDS))))
    for name in ("ulaw", "gsm"):
        yield f"spliced {name}", likeness(played(say(person.earlier, CHALLENGE, rng), CODECS[name], rng))


@dataclass(frozen=True)
class Share:
    """What share of trials was hit, with a 95 % interval by drawing people: trials of one person resemble each other.

    Where none or all were hit, the rule of three over people: it bounds the share of people to whom it happens.
    """

    #: Hits and trials of every person, shape (people, 2).
    by_person: NDArray[np.int64]

    @property
    def n(self) -> int:
        return int(self.by_person[:, 1].sum())

    @property
    def value(self) -> float:
        return float(self.by_person[:, 0].sum()) / max(1, self.n)

    @property
    def interval(self) -> tuple[float, float]:
        people = len(self.by_person)
        if self.value == 0:
            return 0.0, 1 - 0.05 ** (1 / people)
        if self.value == 1:
            return 0.05 ** (1 / people), 1.0
        drawn = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), DRAWS) @ self.by_person
        low, high = np.quantile(drawn[:, 0] / np.maximum(1, drawn[:, 1]), [0.025, 0.975])
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}-{100 * high:.1f}] n={self.n}"


class Report:
    """Prints figures and bars as they come, and remembers them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.missed = 0

    def bar(self, name: str, share: Share, target: float, speakers: int, *, least: bool) -> None:
        passed = share.value >= target if least else share.value <= target
        self.missed += not passed
        sign = ">=" if least else "<="
        print(f"{'PASS' if passed else 'MISS'} {name} {share} {sign}{100 * target:g} % speakers={speakers}", flush=True)
        self._keep(name, share, speakers, target)

    def tell(self, name: str, share: Share, speakers: int) -> None:
        print(f"     {name} {share} speakers={speakers}", flush=True)
        self._keep(name, share, speakers, None)

    def milliseconds(self, name: str, value: float, most: float) -> None:
        self.missed += value > most
        print(f"{'PASS' if value <= most else 'MISS'} {name} {value:.1f} ms <={most:g} ms", flush=True)
        self.rows.append({"name": name, "value": value, "target": most})

    def _keep(self, name: str, share: Share, speakers: int, target: float | None) -> None:
        row = {"name": name, "value": share.value, "interval": share.interval, "n": share.n}
        self.rows.append(row | {"speakers": speakers, "target": target})


def replays(report: Report, corpus: str, persons: list[Person], seed: int, *, bars: bool) -> None:
    """How often live speech is taken for a recording, and how often recordings are known, of one corpus."""
    rng = np.random.default_rng(seed)
    found: list[tuple[int, str, float]] = []
    for i, person in enumerate(track(persons * ROUNDS, f"replays, {corpus}", disable=not sys.stderr.isatty())):
        found += [(i % len(persons), kind, likeness) for kind, likeness in trials(person, rng)]
    speakers = len(persons)
    live = _caught(found, lambda kind: kind.startswith("live"))
    replayed = _caught(found, lambda kind: kind.startswith("replayed") and "faster" not in kind)
    likenesses = [likeness for _, kind, likeness in found if kind.startswith("live")]
    print(f"     {corpus}: live likeness, 99th percentile {np.quantile(likenesses, 0.99):.3f}, 1 is refused")
    alarmed = len({person for person, kind, likeness in found if kind.startswith("live") and likeness >= 1})
    print(f"     {corpus}: the live speech taken for a recording was that of {alarmed} of {speakers} speakers")
    if bars:
        report.bar(f"liveness-false-alarms {corpus}", live, 0.01, speakers, least=False)
        report.bar(f"liveness-replays-refused {corpus}", replayed, 0.95, speakers, least=True)
    else:
        report.tell(f"liveness-false-alarms {corpus}", live, speakers)
        report.tell(f"liveness-replays-refused {corpus}", replayed, speakers)
    for kind in dict.fromkeys(kind for _, kind, _ in found):
        report.tell(f"  {corpus}: refused as a recording, {kind}", _caught(found, kind.__eq__), speakers)


def _caught(found: list[tuple[int, str, float]], which: Callable[[str], bool]) -> Share:
    """Of (person, kind, likeness) how many were taken for a recording."""
    by_person = np.zeros((1 + max(person for person, _, _ in found), 2), np.int64)
    for person, kind, likeness in found:
        if which(kind):
            by_person[person] += (likeness >= 1, 1)
    return Share(by_person)


def synthetic(report: Report, speech: Path, model: Path) -> None:
    """Machines say a card number and a challenge to the voiceprints of real people."""
    encoder, scorer = Encoder.load(model), Scorer.load(model)
    rng = np.random.default_rng(7)
    prints: list[Voiceprint] = []
    for person in people(speech, "fsdd", True):
        strings = over_one_line([_joined(person.earlier, 8, rng) for _ in range(3)], False, [], rng)
        prints.append(enrol([encoder.embed(s) for s in strings], scorer.enrolment_limits, scorer.llr))
    for engine, voices in VOICES.items():
        if not shutil.which(engine):
            print(f"     {engine} is not installed: not measured")
            continue
        by_voice = []  # who tries is drawn, and of voices there are no more than of people tried on
        for voice in track(voices, engine, disable=not sys.stderr.isatty()):
            card, challenge = (
                synthesise(voice, " ".join(rng.choice(WORDS, n))).astype(np.float32)
                for n in (CARD, CHALLENGE)
            )
            heard = [encoder.embed(s) for s in over_one_line([card, challenge], False, [], rng)]
            by_voice.append((sum(scorer.score(p, heard).outcome is Outcome.MATCH for p in prints), len(prints)))
        report.tell(f"liveness-synthetic-voice-matched {engine}", Share(np.array(by_voice)), len(voices))


def comparing_ms() -> float:
    """Processor time of fingerprinting a card number and comparing it with fifty others; median of nine."""
    rng = np.random.default_rng(0)
    secret = rng.bytes(SECRET_BYTES)

    def sound(seconds: float) -> Sound:
        return Sound(rng.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32) * 0.1)

    kept = [sound((8.0, 2.5)[i % 2]).fingerprint(secret) for i in range(EARLIER)]
    took = []
    for _ in range(9):
        said, start = sound(8.0), time.process_time()
        said.fingerprint(secret)
        said.likeness(secret, kept)
        took.append(1000 * (time.process_time() - start))
    return float(np.median(took))


def _joined(takes: Takes, words: int, rng: np.random.Generator) -> Pcm:
    chosen = [takes[word][int(rng.integers(len(takes[word])))] for word in rng.choice(sorted(takes), words)]
    return np.concatenate([clip.astype(np.float32) / 32768 for clip in chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--model", type=Path, default=Path("models/voice"))
    parser.add_argument("--development", action="store_true", help="the speakers on whom the threshold was chosen")
    args = parser.parse_args()
    report, started = Report(), time.monotonic()
    commands = people(args.speech, "speech_commands_digits", held_out=not args.development)
    replays(report, "speech-commands", commands, 1, bars=not args.development)
    if not args.development:
        replays(report, "fsdd", people(args.speech, "fsdd", True), 2, bars=False)
        synthetic(report, args.speech, args.model)
        report.milliseconds("liveness-compared-with-50", comparing_ms(), 20)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report.rows, indent=2) + "\n", encoding="utf-8")
    print(f"     {time.monotonic() - started:.0f} s")
    sys.exit(1 if report.missed else 0)


if __name__ == "__main__":
    main()
