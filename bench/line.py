"""Whether the pauses of two utterances tell one line from two, on people whom nothing was chosen on.

They do where lines are noisy; not in a call, over whose line everything comes. So no call is judged by it.

    OMP_NUM_THREADS=1 python -m bench.line --speech ../shared/speech [--development]

A card number and a challenge of one person, of different clips. One line: both over one that is drawn for them. Another
line: the challenge over one of its own, half of all with noise at 10 to 30 dB. Played in: what came over another line
is played into the call, and so goes over its line too. ``--development`` measures the speakers on whom the threshold
was chosen: 1 in 100 pairs over one line is to reach it. Prints one line a figure and writes
``bench/results/line.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bench.liveness import Report, Share
from bench.voice import held_out_clips
from recipes.voiceprint.calibrate import LEAST_CLIPS, enough
from recipes.voiceprint.data import DIGITS, Clip, load_noises, load_speakers
from recipes.voiceprint.strings import over_one_line, string

RESULTS = Path(__file__).with_name("results") / "line.json"
CARD, CHALLENGE = 16, 4
ROUNDS = 20
ANOTHER_DB = 8.4
WINDOW, HOP = 256, 80  # samples at 8 kHz
BANDS, LOWEST, HIGHEST = 12, 5, 125  # of bins of 31.25 Hz
QUIET, LOUD = 0.1, 0.95  # quantiles of the frames
LEAST_DB = -60.0  # below that, quantisation alone is heard
Floats = NDArray[np.float32]


def pauses_db(pcm: Floats) -> Floats:
    """How loud the pauses are beside the speech, by band, in dB; shape (12,)."""
    frames = sliding_window_view(np.pad(pcm, (0, WINDOW)), WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, LOWEST:HIGHEST]) ** 2
    bands = power.reshape(len(power), BANDS, -1).sum(axis=2)
    speaking = max(float(np.quantile(bands.sum(axis=1), LOUD)), 1e-9)
    quiet = np.quantile(bands, QUIET, axis=0) / speaking
    return np.asarray(np.maximum(10 * np.log10(quiet + 1e-9), LEAST_DB), np.float32)


def difference_db(one: Floats, other: Floats) -> float:
    """How differently the pauses of two utterances sound."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def trials(clips: Sequence[Clip], noises: list[Clip], rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """(kind, difference in dB) of one person's card number and challenge."""
    order = rng.permutation(len(clips))
    card = string([clips[i] for i in order[::2]], CARD, rng)
    challenge = string([clips[i] for i in order[1::2]], CHALLENGE, rng)
    noisy, others_noisy = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    first, second = map(pauses_db, over_one_line([card, challenge], noisy, noises, rng))
    yield "one line", difference_db(first, second)
    elsewhere = over_one_line([challenge], others_noisy, noises, rng)[0]
    heard = {(False, False): "both quiet", (True, True): "both noisy"}.get((noisy, others_noisy), "one of them noisy")
    yield f"another line, {heard}", difference_db(first, pauses_db(elsewhere))
    first, second = map(pauses_db, over_one_line([card, elsewhere], noisy, noises, rng))
    yield "played in", difference_db(first, second)


def measure(report: Report, corpus: str, people: Sequence[Sequence[Clip]], noises: list[Clip]) -> None:
    rng = np.random.default_rng(0)
    rounds = [(i, clips) for _ in range(ROUNDS) for i, clips in enumerate(people)]
    found = [(i, *trial) for i, clips in rounds for trial in trials(clips, noises, rng)]
    one_line = [difference for _, kind, difference in found if kind == "one line"]
    print(f"     {corpus}: one line, 99th percentile {np.quantile(one_line, 0.99):.2f} dB, {ANOTHER_DB} is another")
    for which in ("one line", "another line", *sorted({kind for _, kind, _ in found if "," in kind}), "played in"):
        by_person = np.zeros((len(people), 2), np.int64)
        for person, kind, difference in found:
            if kind.startswith(which):
                by_person[person] += (difference >= ANOTHER_DB, 1)
        report.tell(f"{corpus}: taken for two lines, {which}", Share(by_person), len(people))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--development", action="store_true", help="the speakers on whom the threshold was chosen")
    args = parser.parse_args()
    report, noises = Report(), load_noises(args.speech)
    if args.development:
        _, development = load_speakers(args.speech, (DIGITS,))
        measure(report, "development", [speaker.clips for speaker in enough(development)], noises)
        return
    for corpus in (DIGITS, "fsdd"):
        people = [clips for clips in held_out_clips(args.speech, corpus).values() if len(clips) >= LEAST_CLIPS]
        measure(report, corpus, people, noises)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report.rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
