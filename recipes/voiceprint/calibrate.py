"""Threshold, logistic weights and limits of an encoder, from speakers that no gradient saw.

    python -m recipes.voiceprint.calibrate --speech ../shared/speech --model models/voice

The trials are calls: digit strings joined from a development speaker's clips, a whole call through one
telephone channel, every call through its own, half of them with noise; the two sides of a genuine trial share
no clip. Works for any model folder that ``voiceprint.Encoder`` loads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recipes.voiceprint.channel import NOISY_TELEPHONE, TELEPHONE, transmit
from recipes.voiceprint.data import SAMPLE_RATE, Clip, Speaker, load_noises, load_speakers
from voiceprint import Encoder, Utterance, manifest
from voiceprint.enrolment import EnrolmentLimits
from voiceprint.scoring import CALIBRATION, Calibration, QualityLimits
from voiceprint.utterance import pooled, unit

#: The share of development impostor trials that may pass. A call may have three attempts, and shall let a
#: stranger pass at most once in a thousand calls; strangers are of either sex, so one of the same sex passes
#: about twice as often.
FALSE_MATCH_RATE = 0.001 / 3
#: Inside one call, a second look after verification: cheaper to be wrong about.
CONTINUITY_FALSE_MATCH_RATE = 0.05
LEAST_CLIPS = 6
#: Digits in the strings of an enrolment call, and of the later calls (card and challenge, or less).
ENROLMENT = (8, 8, 8)
CALLS = ((16, 4), (16, 4), (8,), (6,))
QUALITY = QualityLimits(least_speech_s=2.0, least_snr_db=6.0, most_clipped=0.05)
CONTINUITY_QUALITY = QualityLimits(least_speech_s=0.7, least_snr_db=6.0, most_clipped=0.05)


@dataclass
class Trials:
    """Scores of shape (n,): cosine, seconds of speech, whether same speaker."""

    cosine: NDArray[np.float64]
    speech_s: NDArray[np.float64]
    same: NDArray[np.bool_]

    def __getitem__(self, which: NDArray[np.bool_]) -> Trials:
        return Trials(self.cosine[which], self.speech_s[which], self.same[which])


@dataclass
class Call:
    """One speaker's strings of a call as embeddings, and two more on the same line that were not asked for:
    the speaker's in other words (other clips), and a stranger's."""

    speaker: int
    strings: list[Utterance]
    continued: Utterance | None = None
    stranger: Utterance | None = None


def string(clips: Sequence[Clip], digits: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """``digits`` clips in random order, each as often as the others, with gaps as people make them."""
    order = np.concatenate([rng.permutation(len(clips)) for _ in range(digits // len(clips) + 1)])[:digits]
    parts = [p for i in order for p in (clips[i], np.zeros(int(rng.uniform(0, 0.25) * SAMPLE_RATE), np.int16))]
    return np.concatenate(parts).astype(np.float32) / 32768


def over_one_line(
    strings: list[NDArray[np.float32]], noisy: bool, noises: list[Clip], rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Strings with pauses between, through one channel drawn for them, cut apart again."""
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    levelled = [s * (0.1 / max(1e-4, float(np.sqrt((s**2).mean())))) for s in strings]
    session = np.concatenate([part for s in levelled for part in (s, pause)])
    heard = transmit(session, NOISY_TELEPHONE if noisy else TELEPHONE, rng, noises)
    ends = np.cumsum([len(s) + len(pause) for s in strings])
    return np.split(heard, ends[:-1])


def halves(speaker: Speaker, rng: np.random.Generator) -> tuple[list[Clip], list[Clip]]:
    """The speaker's clips as two sets without a clip in common: digits, where there are enough of them."""
    digits = [clip for clip, word in zip(speaker.clips, speaker.words, strict=True) if word]
    clips = digits if len(digits) >= LEAST_CLIPS else speaker.clips
    order = rng.permutation(len(clips))
    return [clips[i] for i in order[::2]], [clips[i] for i in order[1::2]]


def place_calls(
    encoder: Encoder, speakers: list[Speaker], noises: list[Clip], rng: np.random.Generator
) -> tuple[list[Call], list[Call]]:
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


def verification_trials(enrolments: list[Call], calls: list[Call]) -> Trials:
    """Every call against every voiceprint."""
    prints = np.stack([unit(np.mean([u.vector for u in e.strings], axis=0)) for e in enrolments])
    tests = np.stack([pooled(c.strings) for c in calls])
    seconds = np.array([sum(u.net_speech_s for u in c.strings) for c in calls])
    same = np.array([[c.speaker == e.speaker for e in enrolments] for c in calls])
    return Trials((tests @ prints.T).ravel(), np.repeat(seconds, len(prints)), same.ravel())


def continuity_trials(calls: list[Call]) -> Trials:
    """A turn against more words on the same line: the speaker's, sharing no clip, and a stranger's."""
    rows = []
    for call in calls:
        card = call.strings[0]
        for other, same in ((call.continued, True), (call.stranger, False)):
            if other:
                rows.append((card.vector @ other.vector, min(card.net_speech_s, other.net_speech_s), same))
    cosine, seconds, same = zip(*rows, strict=True)
    return Trials(np.array(cosine, float), np.array(seconds, float), np.array(same, bool))


def fit(trials: Trials, false_match_rate: float) -> Calibration:
    """Logistic regression, at even odds, on cosine and log seconds; then the threshold for the rate."""
    most_s = float(np.percentile(trials.speech_s, 95))
    log_s = np.log(np.clip(trials.speech_s, 0.1, most_s))
    columns = np.stack([np.ones_like(log_s), trials.cosine, log_s, trials.cosine * log_s], axis=1)
    sign = np.where(trials.same, 1.0, -1.0)
    weight = np.where(trials.same, 0.5 / trials.same.sum(), 0.5 / (~trials.same).sum())

    def cost(w: NDArray[np.float64]) -> float:
        return float((weight * np.logaddexp(0, -sign * (columns @ w))).sum() + 1e-5 * (w @ w))

    bias, cosine, by_log_s, cosine_by_log_s = (float(round(x, 4)) for x in minimize(cost, np.zeros(4)).x)
    llr = columns @ np.array([bias, cosine, by_log_s, cosine_by_log_s])
    threshold = round(float(np.quantile(llr[~trials.same], 1 - false_match_rate)) + 0.005, 2)
    return Calibration(bias, cosine, by_log_s, cosine_by_log_s, threshold, round(most_s, 2))


def rates(trials: Trials, calibration: Calibration) -> dict[str, Any]:
    """Counts and error rates at the threshold, for the record in calibration.json."""
    llr = np.array([calibration.llr(c, s) for c, s in zip(trials.cosine, trials.speech_s, strict=True)])
    accepted = llr >= calibration.threshold
    return {
        "genuine": int(trials.same.sum()),
        "genuine_rejected": int((trials.same & ~accepted).sum()),
        "impostor": int((~trials.same).sum()),
        "impostor_accepted": int((~trials.same & accepted).sum()),
    }


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


def calibrate(model_dir: Path, speakers: list[Speaker], noises: list[Clip], rounds: int = 3) -> dict[str, Any]:
    """Writes calibration.json into ``model_dir`` and pins it in the manifest; returns what was written."""
    encoder, rng = Encoder.load(model_dir), np.random.default_rng(11)
    speakers = [s for s in speakers if len(s.clips) >= LEAST_CLIPS]
    all_calls, verification, agreeing = [], [], []
    for _ in range(rounds):
        enrolments, calls = place_calls(encoder, speakers, noises, rng)
        all_calls += calls
        verification.append(verification_trials(enrolments, calls))
        agreeing += agreements(enrolments, calls)
    trials = Trials(*(np.concatenate([getattr(t, f) for t in verification]) for f in ("cosine", "speech_s", "same")))
    continuity = continuity_trials(all_calls)
    verify, follow = fit(trials, FALSE_MATCH_RATE), fit(continuity, CONTINUITY_FALSE_MATCH_RATE)
    full = trials.speech_s >= np.median(trials.speech_s)
    written = {
        "model_id": encoder.model_id,
        "sample_rate": encoder.sample_rate,
        "speakers": len(speakers),
        "material": "training speakers in hash buckets 12..17, in no gradient; digit strings over"
        " independently drawn telephone channels, half of the calls with noise at 10 to 30 dB",
        "verification": {
            "calibration": asdict(verify), "quality": asdict(QUALITY), "false_match_rate": FALSE_MATCH_RATE,
            "all": rates(trials, verify), "longer_half": rates(trials[full], verify),
        },
        "continuity": {
            "calibration": asdict(follow), "quality": asdict(CONTINUITY_QUALITY),
            "false_match_rate": CONTINUITY_FALSE_MATCH_RATE, "all": rates(continuity, follow),
        },
        "enrolment": asdict(EnrolmentLimits(least_agreement=round(max(0.0, np.quantile(agreeing, 0.02)), 3))),
    }  # fmt: skip
    (model_dir / CALIBRATION).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    manifest.write(model_dir, encoder.model_id.rsplit("-", 1)[0], encoder.sample_rate)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--model", type=Path, required=True, help="model folder to calibrate")
    args = parser.parse_args()
    _, development = load_speakers(args.speech)
    print(json.dumps(calibrate(args.model, development, load_noises(args.speech)), indent=2))


if __name__ == "__main__":
    main()
