"""Back end, logistic weights, threshold and limits of an encoder; all but the first from speakers no gradient saw.

    python -m recipes.voiceprint.calibrate --speech ../shared/speech --model models/voice

The trials are calls: digit strings joined from a development speaker's clips, a whole call through one
telephone channel, every call through its own, half of them with noise; the two sides of a genuine trial share
no clip. Works for any model folder that ``voiceprint.Encoder`` loads.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.backend import fit_backend, labelled_embeddings
from recipes.voiceprint.data import SAMPLE_RATE, Clip, Speaker, load_noises, load_speakers
from recipes.voiceprint.strings import over_one_line, string
from voiceprint import Encoder, Utterance, backend, manifest
from voiceprint.backend import Cosine, compare
from voiceprint.calibration import Measured, Trials, write
from voiceprint.utterance import pooled, unit

LEAST_CLIPS = 6
#: Digits in the strings of an enrolment call, and of the later calls (card and challenge, or less).
ENROLMENT = (8, 8, 8)
CALLS = ((16, 4), (16, 4), (8,), (6,))
ROUNDS = 3
MATERIAL = (
    "training speakers in hash buckets 12..17, in no gradient; digit strings over independently drawn telephone"
    " channels, half of the calls with noise at 10 to 30 dB"
)


@dataclass
class Call:
    """One speaker's strings of a call as embeddings, and two more on the same line that were not asked for:
    the speaker's in other words (other clips), and a stranger's."""

    speaker: int
    strings: list[Utterance]
    continued: Utterance | None = None
    stranger: Utterance | None = None


#: Enrolment calls, and later calls, of all speakers.
Round = tuple[list[Call], list[Call]]


def halves(speaker: Speaker, rng: np.random.Generator) -> tuple[list[Clip], list[Clip]]:
    """The speaker's clips as two sets without a clip in common: digits, where there are enough of them."""
    digits = [clip for clip, word in zip(speaker.clips, speaker.words, strict=True) if word]
    clips = digits if len(digits) >= LEAST_CLIPS else speaker.clips
    order = rng.permutation(len(clips))
    return [clips[i] for i in order[::2]], [clips[i] for i in order[1::2]]


def place_calls(
    encoder: Encoder, speakers: list[Speaker], noises: list[Clip], rng: np.random.Generator
) -> Round:
    """(enrolment calls, later calls) of every speaker; each half of the clips serves once for each."""
    enrolments, calls = [], []
    split = [halves(s, rng) for s in speakers]

    def embed(strings: list[NDArray[np.float32]], noisy: bool) -> list[Utterance]:
        return [encoder.embed(s, SAMPLE_RATE) for s in over_one_line(strings, noisy, noises, rng)]

    for i in range(len(speakers)):
        enrol_clips, call_clips = split[i]
        enrolments.append(Call(i, embed([string(enrol_clips, n, rng) for n in ENROLMENT], bool(rng.random() < 0.5))))
        for k, lengths in enumerate(CALLS):
            strings = [string(call_clips, n, rng) for n in lengths]
            stranger = split[(i + 1 + int(rng.integers(len(speakers) - 1))) % len(speakers)][1]
            more = [string(enrol_clips, 4, rng), string(stranger, 4, rng)]
            *own, continued, other = embed([*strings, *more], noisy=k % 2 == 1)
            calls.append(Call(i, own, continued, other))
    return enrolments, calls


def verification_trials(comparing: Cosine, enrolments: list[Call], calls: list[Call]) -> Trials:
    """Every call against every voiceprint."""
    prints = comparing.sides(np.stack([unit(np.mean([u.vector for u in e.strings], axis=0)) for e in enrolments]))
    tests = comparing.sides(np.stack([pooled(c.strings) for c in calls]))
    seconds = np.array([sum(u.net_speech_s for u in c.strings) for c in calls])
    test, person = (i.ravel() for i in np.indices((len(calls), len(enrolments))))
    same = np.array([c.speaker for c in calls])[test] == np.array([e.speaker for e in enrolments])[person]
    return Trials(compare(prints[person], tests[test]), seconds[test], same)


def continuity_trials(comparing: Cosine, calls: list[Call]) -> Trials:
    """A turn against more words on the same line: the speaker's, sharing no clip, and a stranger's."""
    pairs = [
        (call.strings[0], other, same)
        for call in calls
        for other, same in ((call.continued, True), (call.stranger, False))
        if other
    ]
    cards, others, same = zip(*pairs, strict=True)
    score = compare(*(comparing.sides(np.stack([u.vector for u in side])) for side in (cards, others)))
    seconds = [min(a.net_speech_s, b.net_speech_s) for a, b, _ in pairs]
    return Trials(score, np.array(seconds), np.array(same, bool))


def agreements(enrolments: list[Call], calls: list[Call]) -> list[float]:
    """How well strings of one person agree, over different lines and clips.

    Strings of one enrolment would not tell: a speaker with few clips says the same ones again.
    """
    return [
        float(string.vector @ pooled(enrolment.strings))
        for call in calls
        for enrolment in enrolments
        for string in call.strings
        if call.speaker == enrolment.speaker and string.net_speech_s > 1.5
    ]


def rounds_of_calls(encoder: Encoder, speakers: list[Speaker], noises: list[Clip]) -> list[Round]:
    """Enrolments and calls of the development speakers, several times over lines drawn anew."""
    rng = np.random.default_rng(11)
    return [place_calls(encoder, enough(speakers), noises, rng) for _ in range(ROUNDS)]


def enough(speakers: list[Speaker]) -> list[Speaker]:
    """Those with clips for two sides."""
    return [s for s in speakers if len(s.clips) >= LEAST_CLIPS]


def calibrate(model_dir: Path, rounds: list[Round]) -> dict[str, Any]:
    """Writes calibration.json into ``model_dir``, for its back end, and pins it; returns what was written."""
    comparing = backend.load(model_dir, manifest.verify(model_dir))
    measured = Measured(
        Trials.joined([verification_trials(comparing, *one) for one in rounds]),
        continuity_trials(comparing, [call for _, calls in rounds for call in calls]),
        np.array([agreement for one in rounds for agreement in agreements(*one)]),
    )
    return write(model_dir, measured, speakers=len(rounds[0][0]), material=MATERIAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--model", type=Path, required=True, help="model folder to calibrate")
    args = parser.parse_args()
    speakers, development = load_speakers(args.speech)
    encoder, noises = Encoder.load(args.model), load_noises(args.speech)
    backend.save(args.model, fit_backend(*labelled_embeddings(encoder, speakers, noises)))
    print(json.dumps(calibrate(args.model, rounds_of_calls(encoder, development, noises)), indent=2))


if __name__ == "__main__":
    main()
