"""Whole calls with real human voices, into a running service: who pays, who is refused, how fast a turn ends.

``python -m bench.calls --speech DIR [--calls 20] [--speed 16]``

The six speakers of the Free Spoken Digit Dataset are in no training (``recipes/heldout.py``). Each is enrolled on
three random digit strings joined from clips of theirs; 16-digit card numbers and challenges are joined from other
clips, with natural gaps. Per speaker: calls with their own card, with another's card, and by another speaker with the
right card. Every call has a customer of its own, so that no failure budget carries over. Ends with a line
``PASS|MISS name value target n`` for each bar and writes ``bench/results/calls.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile as sf
from rich.progress import track
from scipy.stats import beta

from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage, stage
from ivr.ops.simcarrier.audio import Voices
from ivr.ops.simcarrier.checks import decisions
from ivr.ops.simcarrier.record import CallRecord, Requested
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import parse
from ivr.speech.pan import luhn_check_digit
from recipes.heldout import rows

RESULTS = Path(__file__).with_name("results") / "calls.json"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ENROLMENT_TAKES = range(10)  # the other forty are for the calls
ENROLMENT_DIGITS = 8
LIVE_CALLS = 2  # a speaker, at the pace of life: for the latency
AT_ONCE = 3  # calls


@dataclass(frozen=True)
class Trial:
    """One call: whose account, who speaks, which number is said."""

    kind: str  # "genuine", "other_card", "other_voice", "live"
    owner: str
    speaker: str
    pan: str
    said: str
    number: int

    @property
    def phone(self) -> str:
        return f"+1415{5550000 + self.number:07d}"


def plan(speakers: Sequence[str], calls: int, live: int) -> Iterator[Trial]:
    """Every trial, the same each time."""
    rng = random.Random(2026)
    number = 0
    for owner in speakers:
        others = [speaker for speaker in speakers if speaker != owner]
        for kind, count in (("genuine", calls), ("other_card", calls), ("other_voice", calls), ("live", live)):
            for i in range(count):
                number += 1
                pan = _pan(rng)
                said = _pan(rng) if kind == "other_card" else pan
                speaker = others[i % len(others)] if kind == "other_voice" else owner
                yield Trial(kind, owner, speaker, pan, said, number)


def _pan(rng: random.Random) -> str:
    digits = "4" + "".join(str(rng.randrange(10)) for _ in range(14))
    return digits + luhn_check_digit(digits)


def lay_out(speech: Path, folder: Path) -> list[str]:
    """Clips as the simulated caller wants them: ``<speaker>/digits/<digit>_<take>.wav``, and enrolment strings."""
    clips: dict[str, dict[tuple[str, int], Path]] = defaultdict(dict)
    for row in rows(speech, "fsdd"):
        take = int(Path(row["path"]).stem.split("_")[-1])
        clips[row["speaker"]][str(NAMES.index(row["text"])), take] = row["file"]
    for speaker, recordings in clips.items():
        for (digit, take), path in recordings.items():
            part = "enrolment" if take in ENROLMENT_TAKES else "."
            target = folder / part / speaker / "digits" / f"{digit}_{take}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            samples, rate = sf.read(path, dtype="int16")
            sf.write(target, samples, rate)
        rng = random.Random(speaker)
        for i in range(3):
            digits = " ".join(rng.choice("0123456789") for _ in range(ENROLMENT_DIGITS))
            joined = Voices(folder / "enrolment").spoken(digits, speaker, rng)
            sf.write(folder / speaker / f"enrol_{i}.wav", joined, 8000)
    return sorted(clips)


def play(running: Stage, audio: Path, trial: Trial, speed: float) -> tuple[Trial, CallRecord, bool]:
    """Make the customer and the call; whether the bank was asked for money."""
    now = datetime.now(UTC)
    voices = [audio / trial.owner / f"enrol_{i}.wav" for i in range(3)]
    member = cast.member(running, trial.phone, [trial.pan], now, voices=voices)
    bill = cast.bill(running, member.customer_id, 4210, "Corner Bookshop", now)
    number = " ".join(trial.said)
    answers = [{"expect": prompt, "say": number} for prompt in ("card.ask", "card.retry")]
    answers += [{"expect": prompt, "say": "{digits}"} for prompt in ("challenge.ask", "challenge.retry")]
    answers += [{"expect": "keypad.ask", "hangup": True}]
    caller = {"from": trial.phone, "voice": trial.speaker, "attestation": "TN-Validation-Passed-A"}
    scenario = parse(
        {"name": f"{trial.kind} {trial.number}", "caller": {**caller, "seed": trial.number}, "whenever": answers},
        "bench",
    )
    record = run_call(
        scenario,
        base_url=running.url,
        account_sid=running.settings.account_sid,
        auth_token=running.settings.auth_token.get_secret_value(),
        speed=speed,
        audio=audio,
    )
    record.decisions.update(decisions(running.database, record.call_sid))
    with running.database.transaction() as session:
        paid = session.get_one(type(bill), bill.id).status.value == "paid"
    return trial, record, paid or "pay.wait" in record.heard


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson, 95 %. Calls of one speaker are not independent, so the truth is wider."""
    low = beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def report(results: list[tuple[Trial, CallRecord, bool]]) -> int:
    """Print counts by speaker and kind, then the bars; the number of bars missed."""
    counts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for trial, _, paid in results:
        counts[trial.kind][trial.owner].append(paid)
    for kind, by_speaker in counts.items():
        print(f"\n{kind}: calls that paid")
        for speaker, paid in sorted(by_speaker.items()):
            print(f"  {speaker:16s} {sum(paid):3d} of {len(paid)}")
    print("\ngenuine calls that did not pay, and what each of their turns came to")
    for trial, record, paid in results:
        if trial.kind in ("genuine", "live") and not paid:
            print(f"  {trial.speaker:16s} {' | '.join(record.decisions.values())}")
    genuine = [p for kind in ("genuine", "live") for paid in counts[kind].values() for p in paid]
    first = sum("card.retry" not in r.heard and p for t, r, p in results if t.kind in ("genuine", "live"))
    wrong = [p for kind in ("other_card", "other_voice") for paid in counts[kind].values() for p in paid]
    ends = [ms for t, r, _ in results if t.kind == "live" for ms in r.end_of_turn_ms]
    webhooks = [e.ms for _, r, _ in results for e in r.of(Requested)]
    p95 = float(np.percentile(ends, 95)) if ends else float("nan")
    low, high = interval(sum(genuine), len(genuine))
    print(f"\ngenuine calls paid: {sum(genuine)} of {len(genuine)} ({low:.1%} to {high:.1%}), {first} at the first try")
    print(f"wrong calls paid: {sum(wrong)} of {len(wrong)} (at most {interval(sum(wrong), len(wrong))[1]:.1%}, 95 %)")
    p50, p99 = np.percentile(webhooks, [50, 99])
    print(f"webhooks: p50 {p50:.0f} ms, p99 {p99:.0f} ms, n {len(webhooks)}; a turn ends: {np.median(ends):.0f}\n")
    bars = [
        ("genuine_calls_paid", sum(genuine) / len(genuine), ">=", 0.80, len(genuine)),
        ("wrong_calls_paid", float(sum(wrong)), "<=", 0.0, len(wrong)),
        ("end_of_turn_p95_ms", p95, "<", 800.0, len(ends)),
    ]
    missed = 0
    for name, value, sign, target, n in bars:
        passed = value >= target if sign == ">=" else value <= target
        missed += not passed
        print(f"{'PASS' if passed else 'MISS'} {name} {value:.3f} {sign}{target} n={n}")
    written = {
        "bars": [{"name": n, "value": v, "target": f"{sign}{t}", "n": count} for n, v, sign, t, count in bars],
        "paid": {kind: {s: [sum(p), len(p)] for s, p in by.items()} for kind, by in counts.items()},
        "end_of_turn_ms": ends,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(written, indent=1))
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--calls", type=int, default=20, help="a speaker and kind")
    parser.add_argument("--live", type=int, default=LIVE_CALLS, help="a speaker, at the pace of life")
    parser.add_argument("--speed", type=float, default=16.0, help="of the calls that are not timed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ivr-bench-") as temporary:
        audio = Path(temporary)
        speakers = lay_out(given.speech, audio)
        trials = list(plan(speakers, given.calls, given.live))
        with stage() as running, ThreadPoolExecutor(AT_ONCE) as pool:
            fast = [t for t in trials if t.kind != "live"]
            done = pool.map(lambda t: play(running, audio, t, given.speed), fast)
            results = list(track(done, "calls", len(fast)))
            live = [t for t in trials if t.kind == "live"]
            timed = pool.map(lambda t: play(running, audio, t, 1.0), live)
            results += list(track(timed, "calls at the pace of life", len(live)))
    sys.exit(1 if report(results) else 0)


if __name__ == "__main__":
    main()
