"""Whole calls with real human voices, into a running service: who pays, who is refused, how fast a turn ends.

``python -m bench.calls --speech DIR [--calls 20] [--speed 16]``

The six speakers of the Free Spoken Digit Dataset are in no training (``recipes/heldout.py``). Each is enrolled on
three random digit strings joined from clips of theirs; 16-digit card numbers and challenges are joined from other
clips, with natural gaps. Per speaker: calls with their own card, with another's card, and by another speaker with the
right card. Every call has a customer of its own, so that no failure budget carries over. Whoever calls about her own
card has spoken before: her three enrolment strings and as many card numbers and challenges as the service remembers.
The sandbox bank debits test customers alone, whose turns are let through where the service takes them for a recording
of these; a call with such a turn counts as not paid. What was said before, card numbers and challenges are of different
clips: a clip that comes again is a recording. Intervals are by speakers. Ends with a line
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

from bench.hearing.rates import rate, upper_bound
from ivr.customers import utterances
from ivr.customers.voiceprints import voiceprint_of
from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage, stage
from ivr.ops.simcarrier.audio import Voices
from ivr.ops.simcarrier.checks import decisions
from ivr.ops.simcarrier.record import CallRecord, Requested
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import parse
from ivr.speech.audio import read_audio
from ivr.speech.pan import luhn_check_digit
from recipes.heldout import rows
from voiceprint.replay import Sound

RESULTS = Path(__file__).with_name("results") / "calls.json"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Takes of each digit for what was said before, and for card numbers; the other twenty are for challenges.
EARLIER_TAKES, CARD_TAKES = range(10), range(10, 30)
CARD_TRIES = 3
#: Digits of the strings that were said before: an enrolment, then card numbers and challenges.
EARLIER_DIGITS = [8, 8, 8, *(16, 4) * utterances.MOST_KEPT][: utterances.MOST_KEPT]
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

    @property
    def genuine(self) -> bool:
        return self.kind in ("genuine", "live")


@dataclass(frozen=True)
class Result:
    """What came of a trial, and whether the bank was asked for money."""

    trial: Trial
    record: CallRecord
    asked: bool

    @property
    def speaker(self) -> str:
        return self.trial.speaker

    @property
    def replayed(self) -> bool:
        """Whether a turn was taken for a recording."""
        return any("replayed" in said for said in self.record.decisions.values())

    @property
    def paid(self) -> bool:
        """Genuine calls as if the customer were no test customer."""
        return self.asked and not (self.trial.genuine and self.replayed)


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
    """What was said before, and clips as callers want them, ``<speaker>/digits/<digit>_<take>.wav``, cards' apart."""
    clips: dict[str, dict[tuple[str, int], Path]] = defaultdict(dict)
    for row in rows(speech, "fsdd"):
        take = int(Path(row["path"]).stem.split("_")[-1])
        clips[row["speaker"]][str(NAMES.index(row["text"])), take] = row["file"]
    for speaker, recordings in clips.items():
        for (digit, take), path in recordings.items():
            part = "earlier" if take in EARLIER_TAKES else "card" if take in CARD_TAKES else "."
            target = folder / part / speaker / "digits" / f"{digit}_{take}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            samples, rate = sf.read(path, dtype="int16")
            sf.write(target, samples, rate)
        rng = random.Random(speaker)
        for i, count in enumerate(EARLIER_DIGITS):
            digits = " ".join(rng.choice("0123456789") for _ in range(count))
            joined = Voices(folder / "earlier").spoken(digits, speaker, rng)
            sf.write(folder / speaker / f"earlier_{i}.wav", joined, 8000)
    return sorted(clips)


def spoke_before(running: Stage, customer_id: str, sounds: Sequence[Sound], now: datetime) -> None:
    """The customer said all this in earlier calls."""
    with running.database.transaction() as session:
        enrolled = voiceprint_of(session, customer_id)
        assert enrolled
        secret = utterances.secret_of(session, customer_id, running.keyring, now)
        for i, sound in enumerate(sounds):
            utterances.remember(
                session,
                customer_id,
                sound.fingerprint(secret),
                call_sid="earlier",
                step=str(i),
                consent_id=enrolled.consent_id,
                keyring=running.keyring,
                now=now,
            )


def play(running: Stage, audio: Path, trial: Trial, earlier: Sequence[Sound], speed: float) -> Result:
    """Make the customer and the call."""
    now = datetime.now(UTC)
    voices = [audio / trial.owner / f"earlier_{i}.wav" for i in range(3)]
    member = cast.member(running, trial.phone, [trial.pan], now, voices=voices)
    if trial.genuine:  # of the others any that pays is to be seen
        spoke_before(running, member.customer_id, earlier, now)
    bill = cast.bill(running, member.customer_id, 4210, "Corner Bookshop", now)
    rng = random.Random(trial.number)
    tries = [f"{trial.number}_{i}.wav" for i in range(CARD_TRIES)]
    for name in tries:
        sf.write(audio / name, Voices(audio / "card").spoken(" ".join(trial.said), trial.speaker, rng), 8000)
    cards = [{"expect": "card.retry" if i else "card.ask", "play": name} for i, name in enumerate(tries)]
    answers = [{"expect": prompt, "say": "{digits}"} for prompt in ("challenge.ask", "challenge.retry")]
    answers += [{"expect": "keypad.ask", "hangup": True}]
    caller = {"from": trial.phone, "voice": trial.speaker, "attestation": "TN-Validation-Passed-A"}
    scenario = parse(
        {
            "name": f"{trial.kind} {trial.number}",
            "caller": {**caller, "seed": trial.number},
            "turn": cards,
            "whenever": answers,
        },
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
    return Result(trial, record, paid or "pay.wait" in record.heard)


def report(results: list[Result]) -> int:
    """Print counts by speaker and kind, then the bars; the number of bars missed."""
    counts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        counts[result.trial.kind][result.trial.owner].append(result.paid)
    for kind, by_speaker in counts.items():
        print(f"\n{kind}: calls that paid")
        for speaker, paid in sorted(by_speaker.items()):
            print(f"  {speaker:16s} {sum(paid):3d} of {len(paid)}")
    print("\ngenuine calls that did not pay, and what each of their turns came to")
    for result in results:
        if result.trial.genuine and not result.paid:
            print(f"  {result.speaker:16s} {' | '.join(result.record.decisions.values())}")
    genuine = [r for r in results if r.trial.genuine]
    wrong = [r for r in results if not r.trial.genuine]
    owners, others = (rate(of, lambda r: r.paid) for of in (genuine, wrong))
    first = sum("card.retry" not in r.record.heard and r.paid for r in genuine)
    lost = sum(r.asked and r.replayed for r in genuine)
    ends = [ms for r in results if r.trial.kind == "live" for ms in r.record.end_of_turn_ms]
    webhooks = [e.ms for r in results for e in r.record.of(Requested)]
    p95 = float(np.percentile(ends, 95)) if ends else float("nan")
    print(
        f"\ngenuine calls paid: {sum(r.paid for r in genuine)} of {len(genuine)} ({owners.low:.1%} to {owners.high:.1%}"
        f" by {owners.speakers} speakers), {first} at the first try; in {sum(r.replayed for r in genuine)} calls a turn"
        f" was taken for a recording, {lost} of which would have paid"
    )
    print(
        f"wrong calls paid: {sum(r.paid for r in wrong)} of {len(wrong)}"
        f" (at most {upper_bound(others)[1]:.1%} by {others.speakers} speakers, 95 %)"
    )
    p50, p99 = np.percentile(webhooks, [50, 99])
    print(f"webhooks: p50 {p50:.0f} ms, p99 {p99:.0f} ms, n {len(webhooks)}; a turn ends: {np.median(ends):.0f}\n")
    bars = [
        ("genuine_calls_paid", owners.value, ">=", 0.80, owners.count),
        ("wrong_calls_paid", float(sum(r.paid for r in wrong)), "<=", 0.0, others.count),
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
        earlier = {
            s: [Sound(read_audio(audio / s / f"earlier_{i}.wav")) for i in range(len(EARLIER_DIGITS))] for s in speakers
        }
        trials = list(plan(speakers, given.calls, given.live))
        with stage() as running, ThreadPoolExecutor(AT_ONCE) as pool:
            fast = [t for t in trials if t.kind != "live"]
            done = pool.map(lambda t: play(running, audio, t, earlier[t.owner], given.speed), fast)
            results = list(track(done, "calls", len(fast)))
            live = [t for t in trials if t.kind == "live"]
            timed = pool.map(lambda t: play(running, audio, t, earlier[t.owner], 1.0), live)
            results += list(track(timed, "calls at the pace of life", len(live)))
    sys.exit(1 if report(results) else 0)


if __name__ == "__main__":
    main()
