"""Speaker verification on voices that no training heard, beside other systems on the same audio.

    python -m bench.voice --speech ../shared/speech [--ecapa FOLDER]

Every recording goes through its own telephone channel; conditions end in ``noise`` where 10 to 30 dB of
noise were added before the line. Genuine sides share no clip: half of a speaker's digits is never tried against
itself over another line, and LibriSpeech, of which there is one clip a speaker, is cut in two. Nothing of FSDD is
in any training: its conditions are the cross-corpus ones. ``--ecapa`` is a folder of
``speechbrain/spkrec-ecapa-voxceleb``, pinned by ``voiceprint.manifest``. Prints one line a bar and writes
``bench/results/voice.json``; exits 1 if a bar was missed. Nothing may be tuned on these figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.voice_bars import Bars, eer_ratio, judge, shown
from recipes import heldout
from recipes.voiceprint.data import SAMPLE_RATE, Clip, read_trimmed
from recipes.voiceprint.strings import over_one_line, string
from voiceprint import Decision, Encoder, Outcome, PoorQuality, Scorer, Voiceprint, enrol
from voiceprint.metrics import TrialScores, all_pairs, figures
from voiceprint.utterance import Utterance, unit

RESULTS = Path(__file__).with_name("results") / "voice.json"
FSDD_CALLS = 20
Pcm = NDArray[np.float32]
Embed = Callable[[Pcm], NDArray[np.float32]]


@dataclass
class Side:
    """One side of trials: who speaks, in which clips (by a hash of their samples), and the audio as it was heard."""

    speaker: int
    heard: Pcm
    clips: frozenset[int]


@dataclass
class Condition:
    name: str
    enrolled: list[Side]
    tested: list[Side]

    def trials(self, scores: NDArray[np.float64]) -> TrialScores:
        """Every test against every enrolment, but for a speaker's own where the two share a clip."""
        who = [s.speaker for s in self.enrolled], [s.speaker for s in self.tested]
        shared = [[bool(test.clips & enrolled.clips) for enrolled in self.enrolled] for test in self.tested]
        return all_pairs(scores, *who, left_out=np.array(shared))


def hashed(clips: Sequence[Clip]) -> frozenset[int]:
    return frozenset(hash(clip.tobytes()) for clip in clips)


# ---- the recordings -------------------------------------------------------------------------------------


def held_out_clips(speech_dir: Path, folder: str, kinds: tuple[str, ...] = ()) -> dict[str, list[Clip]]:
    """Trimmed clips of the held-out speakers of a corpus, by speaker; ``kinds`` selects by the notes."""
    clips: dict[str, list[Clip]] = {}
    for row in heldout.rows(speech_dir, folder):
        if row["held_out"] and (not kinds or any(f"kind={kind}" in row["notes"] for kind in kinds)):
            clip = read_trimmed(row["file"])
            if len(clip) > 0.1 * SAMPLE_RATE:
                clips.setdefault(row["speaker"], []).append(clip)
    return clips


def held_out_noises(speech_dir: Path) -> list[Clip]:
    rows = heldout.rows(speech_dir, "noise_rir")
    return [
        soundfile.read(r["file"], dtype="int16")[0] for r in rows if r["held_out"] and "rir/" not in r["path"]
    ]


class Line:
    """Sends recordings over telephone channels, each drawn for it."""

    def __init__(self, noises: list[Clip], noisy: bool, seed: int) -> None:
        self.noises, self.noisy, self.rng = noises, noisy, np.random.default_rng(seed)

    def send(self, strings: list[Pcm]) -> list[Pcm]:
        return over_one_line(strings, self.noisy, self.noises, self.rng)

    def side(self, speaker: int, clips: list[Clip]) -> Side:
        """All ``clips`` once, in random order, as one recording."""
        return Side(speaker, self.send([string(clips, len(clips), self.rng)])[0], hashed(clips))


def digit_strings(
    name: str, speech_dir: Path, line: Line, least_clips: int, per_side: int | None
) -> Condition:
    """Held-out Speech Commands speakers: half of their digits (at most ``per_side``) against the rest."""
    clips = held_out_clips(speech_dir, "speech_commands_digits")
    speakers = [own for _, own in sorted(clips.items()) if len(own) >= least_clips]
    enrolled, tested = [], []
    for i, own in enumerate(speakers):
        order = line.rng.permutation(len(own))
        halves = [own[k] for k in order[::2]][:per_side], [own[k] for k in order[1::2]][:per_side]
        for one, other in (halves, halves[::-1]):
            enrolled.append(line.side(i, one))
            tested.append(line.side(i, other))
    return Condition(name, enrolled, tested)


def phone_readers(name: str, speech_dir: Path, line: Line) -> Condition:
    """Held-out readers: spelled name and address against the telephone number."""
    numbers = held_out_clips(speech_dir, "phone_numbers", ("numbers",))
    others: dict[str, list[Clip]] = {}
    for row in heldout.rows(speech_dir, "phone_numbers"):
        if row["held_out"] and "kind=numbers" not in row["notes"]:
            others.setdefault(row["speaker"], []).append(read_trimmed(row["file"]))
    readers = sorted(set(numbers) & set(others))
    return Condition(
        name,
        [line.side(i, others[r]) for i, r in enumerate(readers)],
        [line.side(i, numbers[r]) for i, r in enumerate(readers)],
    )


def librispeech(name: str, speech_dir: Path, line: Line) -> Condition:
    """Held-out readers of books: the first half of what they read against the second, eight seconds each at most."""
    clips: dict[str, list[Clip]] = {}
    for folder in ("librispeech_resemblyzer", "librispeech_deepspeaker"):
        for speaker, own in held_out_clips(speech_dir, folder).items():
            clips.setdefault(speaker, []).extend(own)
    enrolled, tested = [], []
    for i, speaker in enumerate(sorted(clips)):
        longest = max(clips[speaker], key=len)
        for side, part in zip((enrolled, tested), np.array_split(longest, 2), strict=True):
            side.append(line.side(i, [part[: 8 * SAMPLE_RATE]]))
    return Condition(name, enrolled, tested)


def fsdd_clips(speech_dir: Path) -> list[list[Clip]]:
    """Of each speaker; the even ones are for enrolment, the odd ones for calls."""
    return [own for _, own in sorted(held_out_clips(speech_dir, "fsdd").items())]


def fsdd_calls(speech_dir: Path, line: Line) -> tuple[list[list[Pcm]], list[list[list[Pcm]]]]:
    """(three enrolment strings a speaker, the card and challenge strings of each speaker's calls)."""
    enrolments, calls = [], []
    for own in fsdd_clips(speech_dir):
        enrolments.append(line.send([string(own[::2], 8, line.rng) for _ in range(3)]))
        strings = (
            [string(own[1::2], 16, line.rng), string(own[1::2], 4, line.rng)] for _ in range(FSDD_CALLS)
        )
        calls.append([line.send(s) for s in strings])
    return enrolments, calls


# ---- the systems ----------------------------------------------------------------------------------------


def resemblyzer() -> Embed:
    """GE2E LSTM, 256 dimensions, from the package of that name; upsampled to its 16 kHz by its own code."""
    stand_in = ModuleType(
        "pkg_resources"
    )  # webrtcvad asks it for its own version; setuptools no longer has it
    stand_in.get_distribution = lambda _: SimpleNamespace(version="")  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", stand_in)
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(heard: Pcm) -> NDArray[np.float32]:
        speech = preprocess_wav(heard, SAMPLE_RATE)
        return unit(encoder.embed_utterance(speech if len(speech) > 1600 else preprocess_wav(heard, None)))

    return embed


def mfcc_statistics() -> Embed:
    """Mean and deviation of 19 cepstra: no network. Where it comes near one, rooms give speakers away."""
    import torch

    from voiceprint.torchaudio_shim import ensure_torchaudio

    ensure_torchaudio()
    from speechbrain.lobes.features import MFCC

    mfcc = MFCC(sample_rate=SAMPLE_RATE, n_fft=256, n_mels=23, n_mfcc=20, deltas=False, context=False)

    def embed(heard: Pcm) -> NDArray[np.float32]:
        from voiceprint.audio import activity

        active = activity(heard, SAMPLE_RATE).mask
        with torch.no_grad():
            cepstra = mfcc(torch.from_numpy(heard[active] if active.any() else heard)[None])[0, :, 1:]
        return torch.cat([cepstra.mean(0), cepstra.std(0)]).numpy()

    return embed


def embeddings(embed: Embed, sides: list[Side]) -> NDArray[np.float64]:
    return np.stack([embed(side.heard) for side in sides]).astype(float)


def cosines(condition: Condition, embed: Embed, standardise: bool) -> NDArray[np.float64]:
    """Scores of shape (tests, enrolments)."""
    enrolled, tested = embeddings(embed, condition.enrolled), embeddings(embed, condition.tested)
    if standardise:  # raw statistics have no common scale; the peer gets the scale of the test set itself
        mean, deviation = enrolled.mean(0), enrolled.std(0) + 1e-6
        enrolled, tested = (enrolled - mean) / deviation, (tested - mean) / deviation
    enrolled /= np.linalg.norm(enrolled, axis=1, keepdims=True)
    tested /= np.linalg.norm(tested, axis=1, keepdims=True)
    return tested @ enrolled.T


def likelihood_ratios(condition: Condition, encoder: Encoder, scorer: Scorer) -> NDArray[np.float64]:
    """Our own scores of shape (tests, enrolments), by the shipped calibration."""
    enrolled = [encoder.embed(side.heard) for side in condition.enrolled]
    prints = [Voiceprint(u.vector[None], u.model_id, u.net_speech_s) for u in enrolled]
    tested = [encoder.embed(side.heard) for side in condition.tested]
    test, person = (index.ravel() for index in np.indices((len(tested), len(prints))))
    return scorer.pairs(prints, tested).llr(person, test).reshape(len(tested), len(prints))


# ---- the report -----------------------------------------------------------------------------------------


def compare(
    condition: Condition, encoder: Encoder, scorer: Scorer, peers: dict[str, Embed]
) -> dict[str, Any]:
    """Error rates of every system on one condition."""
    scores = {"ours": condition.trials(likelihood_ratios(condition, encoder, scorer))}
    scores |= {name: condition.trials(cosines(condition, embed, name == "mfcc")) for name, embed in peers.items()}
    report: dict[str, Any] = {"speakers": len({s.speaker for s in condition.enrolled})}
    for name, trials in scores.items():
        found = figures(trials)
        report |= {"genuine": trials.genuine, "impostor": trials.impostor}
        report[name] = {key: value and asdict(value) for key, value in vars(found).items()}
        if name != "ours":
            report[name]["our_eer_as_a_share"] = asdict(eer_ratio(scores["ours"], trials))
        rare = shown(found.fnmr_at_fmr_01pct) if found.fnmr_at_fmr_01pct else "not measurable"
        bits = f"  Cllr {found.cllr.value:.3f}, minCllr {found.min_cllr.value:.3f}" if name == "ours" else ""
        print(
            f"  {condition.name:22} {name:12} EER {shown(found.eer)}  FNMR at FMR 1 % {shown(found.fnmr_at_fmr_1pct)}"
            f"  at 0.1 % {rare}{bits}",
            flush=True,
        )
    print(
        f"  {condition.name:22} {report['speakers']} speakers,"
        f" {report['genuine']} genuine and {report['impostor']} impostor trials"
    )
    return report


def decide_fsdd(speech_dir: Path, line: Line, encoder: Encoder, scorer: Scorer) -> dict[str, Any]:
    """The shipped decision on whole calls: every call against every of the six voiceprints."""
    enrolments, calls = fsdd_calls(speech_dir, line)
    people: list[Voiceprint | None] = []
    for recordings in enrolments:
        try:
            people.append(enrol([encoder.embed(r) for r in recordings], scorer.enrolment_limits, scorer.llr))
        except PoorQuality as refusal:
            print(f"  fsdd enrolment refused: {refusal.advice}")
            people.append(None)
    tallies = {"owner": dict.fromkeys(Outcome, 0), "another": dict.fromkeys(Outcome, 0)}
    turns = dict.fromkeys(Outcome, 0)
    for i, own in enumerate(calls):
        for call in own:
            heard: list[Utterance] = [encoder.embed(s) for s in call]
            turns[scorer.same_speaker(*heard).outcome] += 1
            for j, person in enumerate(people):
                if person:
                    decision: Decision = scorer.score(person, heard)
                    tallies["owner" if i == j else "another"][decision.outcome] += 1
    named = {who: {o.value: n for o, n in tally.items()} for who, tally in tallies.items()}
    return named | {
        "card_turn_and_challenge": {o.value: n for o, n in turns.items()},
        "enrolments_refused": people.count(None),
    }


def fsdd_condition(name: str, speech_dir: Path, line: Line) -> Condition:
    """The same calls as trials: three strings joined against the card turn."""
    enrolments, calls = fsdd_calls(speech_dir, line)
    halves = [(hashed(own[::2]), hashed(own[1::2])) for own in fsdd_clips(speech_dir)]
    return Condition(
        name,
        [Side(i, np.concatenate(recordings), halves[i][0]) for i, recordings in enumerate(enrolments)],
        [Side(i, call[0], halves[i][1]) for i, own in enumerate(calls) for call in own],
    )


def conditions(speech_dir: Path, noises: list[Clip], noisy: bool) -> Iterator[Condition]:
    """All that is compared, each over lines of its own."""
    suffix = "-noise" if noisy else ""
    yield digit_strings("digits" + suffix, speech_dir, Line(noises, noisy, 1), 4, None)
    yield digit_strings("digits-3-against-3" + suffix, speech_dir, Line(noises, noisy, 2), 6, 3)
    yield phone_readers("phone-readers" + suffix, speech_dir, Line(noises, noisy, 3))
    yield librispeech("librispeech" + suffix, speech_dir, Line(noises, noisy, 6))
    yield fsdd_condition("fsdd-16-digits" + suffix, speech_dir, Line(noises, noisy, 4))


def embedding_ms(encoder: Encoder) -> float:
    """Processor time of embedding 8 s of speech on one core; median of nine, so neighbours do not count."""
    speech = np.random.default_rng(0).standard_normal(8 * SAMPLE_RATE).astype(np.float32) * 0.1
    took = []
    for _ in range(9):
        start = time.process_time()
        encoder.embed(speech)
        took.append(1000 * (time.process_time() - start))
    return float(np.median(took))


def official_ecapa(folder: Path) -> Embed:
    """The embeddings of another SpeechBrain model, compared by their cosine."""
    encoder = Encoder.load(folder)
    return lambda heard: encoder.embed(heard, SAMPLE_RATE).vector


def measure(speech_dir: Path, model_dir: Path, peers: dict[str, Embed]) -> tuple[dict[str, Any], Bars]:
    encoder, scorer, bars = Encoder.load(model_dir), Scorer.load(model_dir), Bars()
    noises = held_out_noises(speech_dir)
    report: dict[str, Any] = {"model_id": encoder.model_id, "conditions": {}, "fsdd_decisions": {}}
    for noisy in (False, True):
        for condition in conditions(speech_dir, noises, noisy):
            report["conditions"][condition.name] = compare(condition, encoder, scorer, peers)
        decisions = decide_fsdd(speech_dir, Line(noises, noisy, 5), encoder, scorer)
        print(f"  fsdd calls{'-noise' if noisy else ''}, shipped threshold: {decisions}", flush=True)
        report["fsdd_decisions"]["noise" if noisy else "telephone"] = decisions
    report["embedding_8s_ms"] = embedding_ms(encoder)
    report["encoder_bytes"] = (model_dir / "embedding_model.ckpt").stat().st_size
    judge(report, bars)
    return report, bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--model", type=Path, default=Path("models/voice"))
    parser.add_argument("--without-peers", action="store_true", help="only our own encoder")
    parser.add_argument("--ecapa", type=Path, help="a folder of the official ECAPA-TDNN, to be heard beside ours")
    args = parser.parse_args()
    peers = {} if args.without_peers else {"resemblyzer": resemblyzer(), "mfcc": mfcc_statistics()}
    if args.ecapa:
        peers["ecapa"] = official_ecapa(args.ecapa)
    report, bars = measure(args.speech, args.model, peers)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report | {"bars": bars.rows}, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if bars.missed else 0)


if __name__ == "__main__":
    main()
