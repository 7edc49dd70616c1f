"""What a digit model mishears: ``python -m recipes.digits.diagnose --model models/digits --speech DIR``.

On development speakers only, whom training sets aside: their single clips, and card numbers joined from them, in each
condition. Prints the pairs confused, digits deleted and inserted, errors by position and beside the same digit, and
the speakers heard worst.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ivr.speech.library import vosk
from ivr.speech.numbers import aligned

from . import clips, strings
from .evaluate import VALUE, Spoken, digits_of, hear

_SEED = 7
_SHOWN = 14
#: A digit said and the digit heard for it; "" where none was.
Pair = tuple[str, str]


@dataclass
class Diagnosis:
    """Errors counted over the strings added, and out of how many digits."""

    pairs: Counter[Pair] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    at: Counter[int] = field(default_factory=Counter)  # errors by position
    positions: Counter[int] = field(default_factory=Counter)  # digits by position
    beside: Counter[tuple[bool, bool]] = field(default_factory=Counter)  # (beside the same digit, wrong)
    speakers: dict[str, list[int]] = field(default_factory=dict)  # errors, digits, strings exact, strings

    def add(self, spoken: Spoken, heard: str) -> None:
        """Count one string. An insertion belongs to the position of the digit after it."""
        position, wrong_of_string = 0, 0
        for said, got in aligned(spoken.digits, heard):
            wrong = said != got
            wrong_of_string += wrong
            if wrong:
                self.pairs[said, got] += 1
                self.at[position] += 1
            if said:
                around = spoken.digits[max(0, position - 1) : position] + spoken.digits[position + 1 : position + 2]
                self.beside[said in around, wrong] += 1
                self.said[said] += 1
                self.positions[position] += 1
                position += 1
        mine = self.speakers.setdefault(spoken.speaker, [0, 0, 0, 0])
        for i, more in enumerate((wrong_of_string, len(spoken.digits), not wrong_of_string, 1)):
            mine[i] += more

    def lines(self) -> Iterator[str]:
        """The report."""
        digits = self.said.total()
        deleted = sum(n for (_, got), n in self.pairs.items() if not got)
        inserted = sum(n for (said, _), n in self.pairs.items() if not said)
        total = self.pairs.total()
        exact, whole = (sum(s[i] for s in self.speakers.values()) for i in (2, 3))
        kinds = f"{total - deleted - inserted} substituted, {deleted} deleted, {inserted} inserted"
        yield f"  {total / digits:.2%} digit errors of {digits}: {kinds}; {exact} of {whole} strings exact"
        confused = Counter({pair: n for pair, n in self.pairs.items() if all(pair)})
        yield "  said>heard: " + "  ".join(f"{s}>{h} {n}" for (s, h), n in confused.most_common(_SHOWN))
        for name, of in (("deleted", 0), ("inserted", 1)):
            counts = Counter({pair[of]: n for pair, n in self.pairs.items() if not pair[1 - of]})
            yield f"  {name}: " + "  ".join(f"{d} {n}" for d, n in counts.most_common())
        wrong: Counter[str] = Counter()
        for (said, _), n in self.pairs.items():
            wrong[said] += n
        yield "  wrong by digit said: " + "  ".join(f"{d} {wrong[d] / n:.1%}" for d, n in sorted(self.said.items()))
        yield "  wrong by position: " + "  ".join(f"{self.at[i] / n:.1%}" for i, n in sorted(self.positions.items()))
        for same, name in ((True, "beside the same digit"), (False, "elsewhere")):
            all_there = self.beside[same, True] + self.beside[same, False]
            if all_there:
                yield f"  not heard right {name}: {self.beside[same, True] / all_there:.2%} of {all_there}"
        worst = sorted(self.speakers.items(), key=lambda item: -item[1][0] / item[1][1])[:_SHOWN]
        yield "  worst speakers: " + "  ".join(f"{s} {e / n:.0%} of {n}" for s, (e, n, *_) in worst if e)


def diagnose(model: vosk.Model, spoken: Sequence[Spoken], snr_db: float | None) -> Diagnosis:
    """What ``model`` makes of these strings through the telephone."""
    rng, found = np.random.default_rng(_SEED), Diagnosis()
    for s in spoken:
        arrived = strings.through(s, snr_db, rng)
        found.add(arrived, digits_of(hear(model, arrived.samples)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.digits.diagnose", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--numbers", type=int, default=6, help="card numbers of each speaker with five digits or more")
    args = parser.parse_args()
    vosk.SetLogLevel(-1)
    model = vosk.Model(str(args.model))
    people = clips.load(args.speech, development=True).digits
    single = [
        strings.alone(clip, VALUE[word], speaker) for speaker, said in sorted(people.items()) for word, clip in said
    ]
    numbers = strings.joined(strings.several_digits(people), args.numbers, _SEED)
    for name, spoken in (("one digit", single), ("card numbers", numbers)):
        for condition, snr_db in strings.CONDITIONS.items():
            print(f"{name}, {condition}, {len({s.speaker for s in spoken})} speakers")
            print("\n".join(diagnose(model, spoken, snr_db).lines()), flush=True)


if __name__ == "__main__":
    main()
