"""Which card was said: how often the service finds it, and how often it takes another for it.

``python -m bench.cards --speech DIR`` joins whole card numbers from the clips of people whom no training has heard,
hears them with the shipped model as a call does, and takes as many candidates as a first attempt may compare.
Beside the rate of numbers found it counts the candidates that are another card, above all a neighbour of the number
that was said: same issuer's eight digits and last four, two digits changed. Such a card would have been accepted, had
the customer authorised it. FSDD are six men; Speech Commands people say the digits of which they have clips. Also:
what the model costs in disk, time to load and memory. A line ``PASS|MISS name value target n`` for each target.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np

from bench.digits import SAMPLE_RATE, SEED, _as_it_is, _held_out, through, verdict
from ivr.customers.budget import FREE_IN_A_ROW
from ivr.speech.cards import candidates, guesses
from ivr.speech.ear import Ear
from ivr.speech.expect import Expect
from ivr.speech.pan import is_complete, luhn_valid
from ivr.speech.recogniser import DigitModel, Grammar
from recipes.digits.clips import Clip
from recipes.digits.evaluate import VALUE, Spoken, join

PIECE = SAMPLE_RATE // 10
ISSUER_DIGITS, LAST_DIGITS = 8, 4
Words = list[tuple[str, Clip]]


@dataclass(frozen=True)
class Outcome:
    speaker: str
    found: bool
    first: bool
    wrong: Counter[str]  # candidates that are another card, by how that card differs


def a_number(digits: set[str], rng: np.random.Generator) -> str | None:
    """A possible 16-digit card number of these digits alone; None when there seems to be none."""
    names = sorted(digits)
    for _ in range(5000):
        number = "".join(names[i] for i in rng.integers(len(names), size=16))
        if is_complete(number):
            return number
    return None


def strings(clips: dict[str, Words], per_speaker: int, seed: int) -> list[Spoken]:
    rng = np.random.default_rng(seed)
    spoken = []
    for speaker, words in sorted(clips.items()):
        for _ in range(per_speaker):
            number = a_number({VALUE[w] for w, _ in words}, rng)
            if number:
                samples, _ = join(words, 16, rng, number)
                spoken.append(Spoken((samples * 32767).astype(np.int16), number, speaker))
    return spoken


def difference(said: str, other: str) -> str | None:
    """How a candidate that is not the number said differs from it; None when nobody would confuse their issuers."""
    if other[:ISSUER_DIGITS] != said[:ISSUER_DIGITS] or other[-LAST_DIGITS:] != said[-LAST_DIGITS:]:
        return "another issuer or last four"
    if len(other) != len(said):
        return "another length"
    places = [i for i, (a, b) in enumerate(zip(said, other, strict=True)) if a != b]
    swapped = len(places) == 2 and places[1] == places[0] + 1
    if swapped and said[places[0]] == other[places[1]] and said[places[1]] == other[places[0]]:
        return "two neighbours swapped"
    return f"{len(places)} digits"


def neighbours(said: str) -> set[str]:
    """All other cards of the same issuer and last four that differ in two digits, swapped neighbours among them.

    Luhn leaves none that differs in one, and of each two places nine; with four digits between, 54 in all.
    """
    found = set()
    for one, two in combinations(range(ISSUER_DIGITS, len(said) - LAST_DIGITS), 2):
        for pair in product("0123456789", repeat=2):
            digits = list(said)
            digits[one], digits[two] = pair
            found.add("".join(digits))
    return {other for other in found if other != said and luhn_valid(other)}


def hear(model: DigitModel, spoken: Spoken) -> list[str]:
    """The candidates of a first attempt, as a call finds them."""
    ear = Ear(model, Expect.card())
    for at in range(0, len(spoken.samples), PIECE):
        ear.hear(spoken.samples[at : at + PIECE], is_speech=True)
    return candidates(ear.whole_numbers())[: guesses(0)]


def outcome(spoken: Spoken, heard: list[str]) -> Outcome:
    said = spoken.digits
    wrong: Counter[str] = Counter()
    others = neighbours(said)
    for candidate in heard:
        if candidate != said and (how := difference(said, candidate)):
            wrong[how] += 1
            wrong["on a list of neighbours"] += candidate in others
    return Outcome(spoken.speaker, said in heard, heard[:1] == [said], wrong)


def interval(outcomes: list[Outcome]) -> tuple[float, float]:
    """95 % interval of the rate found, speakers drawn with replacement."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for o in outcomes:
        groups[o.speaker].append(o.found)
    each = list(groups.values())
    rng = np.random.default_rng(SEED)
    draws = [np.mean([f for i in rng.integers(len(each), size=len(each)) for f in each[i]]) for _ in range(1000)]
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def costs(folder: Path) -> list[bool]:
    """Disk, time to load and memory, in a process of its own."""
    code = (
        "import re,time;from ivr.speech.recogniser import DigitModel;t=time.perf_counter();"
        f"m=DigitModel({str(folder)!r});"
        # ru_maxrss would be the parent's, which was there before
        "print(time.perf_counter()-t,int(re.search(r'VmHWM:\\s+(\\d+)',open('/proc/self/status').read())[1])/1024)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    load_s, memory_mb = map(float, answer.split())
    size_mb = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
    model, callers = DigitModel(folder), 40
    noise = (np.random.default_rng(0).standard_normal(8 * SAMPLE_RATE) * 300).astype(np.int16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = [(model.recogniser(Grammar.CARD), model.card_recogniser()) for _ in range(callers)]
    for pair in held:
        for recogniser in pair:
            if recogniser:
                recogniser.accept(noise)
    each_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 / callers
    return [
        verdict("model/megabytes", size_mb, 12, 1),
        verdict("model/seconds_to_load_and_prove", load_s, 0.5, 1),
        verdict("model/megabytes_of_process", memory_mb, 150, 1),
        verdict("model/megabytes_a_caller", each_mb, 5, callers),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cards", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--fsdd", type=int, default=300, help="numbers of each of the six FSDD men")
    parser.add_argument("--commands", type=int, default=20, help="numbers of each Speech Commands speaker")
    args = parser.parse_args()
    model, rng = DigitModel(args.model), np.random.default_rng(SEED)
    commands = {
        s: w for s, w in _held_out(args.speech, "speech_commands_digits").items() if len({x for x, _ in w}) >= 5
    }
    tests = {
        "fsdd": strings(_held_out(args.speech, "fsdd", _as_it_is), args.fsdd, SEED),
        "commands": strings(commands, args.commands, SEED),
    }
    reached = costs(args.model)
    wrong: Counter[str] = Counter()
    total, started, used_s, audio_s = 0, time.monotonic(), 0.0, 0.0
    for name, spoken in tests.items():
        outcomes = []
        for count, s in enumerate(spoken, start=1):
            arrived, before = through(s, None, rng), time.process_time()
            heard = hear(model, arrived)
            used_s += time.process_time() - before
            outcomes.append(outcome(s, heard))
            audio_s += len(s.samples) / SAMPLE_RATE
            if count % 100 == 0:
                print(f"{name}: {count} of {len(spoken)}, {time.monotonic() - started:.0f} s", flush=True)
        low, high = interval(outcomes)
        found = float(np.mean([o.found for o in outcomes]))
        first = float(np.mean([o.first for o in outcomes]))
        people = len({o.speaker for o in outcomes})
        print(f"{name}: found {found:.1%} ({low:.1%} ... {high:.1%}), first {first:.1%}, {people} people")
        persons = {o.speaker for o in outcomes}
        each = sorted((float(np.mean([o.found for o in outcomes if o.speaker == p])), p) for p in persons)
        print("   fewest:", ", ".join(f"{person} {rate:.0%}" for rate, person in each[:6]))
        reached.append(verdict(f"{name}/cards_found", found, 0.97, len(outcomes), at_least=True))
        for o in outcomes:
            wrong += o.wrong
        total += len(outcomes)
    for how, count in sorted(wrong.items()):
        print(f"   other numbers among the candidates: {how}: {count} of {total}")
    guessed = sum(map(guesses, range(FREE_IN_A_ROW)))
    reached += [
        verdict("wrong_cards/neighbours_accepted", wrong["on a list of neighbours"], 0, total),
        verdict("attacker/chance_in_the_free_failures", guessed / 1000, 0.01, FREE_IN_A_ROW),
        verdict("both_graphs/real_time_factor", used_s / audio_s, 0.03, total),
    ]
    sys.exit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
