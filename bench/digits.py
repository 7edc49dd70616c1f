"""How well the shipped digit model hears people whom no training has heard, beside others on the same audio.

``python -m bench.digits --speech DIR [--vosk FOLDER_OF_MODELS]``

Digit error rate and strings exactly right of every test in every condition, with the loop of digits that the others
are given, too; card numbers found, and wrong cards accepted, as a call hears and compares; false digits in noise and
other speech; how far confidence is to be believed; what it all costs. Intervals of 95 %, speakers drawn with
replacement. Each bar is a line ``PASS|MISS name value target n``. Everything is written to
``bench/results/digits.json``, of which ``python -m bench.digits_report`` makes the model card's tables and plot.
Stopped and started again, it hears nothing twice that it has heard (``bench/results/digits/``). Nothing may be tuned on
these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.hearing import cards, costs, other, reliability, sets
from bench.hearing.ears import CALL, LOOP, PEER, Answer, Ears
from bench.hearing.rates import Verdicts, figures, rate
from ivr.speech.confidence import Calibration
from ivr.speech.library import vosk
from recipes.digits.evaluate import Spoken

RESULTS = Path(__file__).with_name("results") / "digits.json"
#: Test, figure, the most (error rate) or least (strings exact) that is wanted on clean telephone audio.
TARGETS = (("phone_numbers", "digit_errors", 0.02), ("phone_numbers", "exact", 0.85))
PARTS = ("costs", "tests", "cards", "other", "answers")
COSTED = 40  # strings by which the processor time of a call is measured

Results = dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.digits", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--vosk", type=Path, help="a folder of official Vosk models, each in its folder")
    parser.add_argument("--fsdd", type=int, default=60, help="card numbers of each of the six men, in each condition")
    parser.add_argument("--commands", type=int, default=12, help="of each Speech Commands speaker, in each condition")
    parser.add_argument("--peer-strings", type=int, default=60, help="of each test and condition, heard by the others")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="not everything")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def vosk_models(folder: Path | None) -> dict[str, Path]:
    """The official models at hand, by name; said aloud where there are none."""
    found = sorted(p for p in folder.iterdir() if list(p.glob("**/final.mdl"))) if folder and folder.is_dir() else []
    if not found:
        print("SKIPPED official Vosk models: name a folder that holds some with --vosk", flush=True)
    return {p.name: p for p in found}


def error_rates(ears: Ears, tests: sets.Tests, peer_strings: int, verdicts: Verdicts) -> Results:
    """Every test in every condition by the digit loop; a part of each by all recognisers, this one among them."""
    results: Results = {}
    for name, conditions in tests.items():
        for condition, spoken in conditions.items():
            title = f"{name}, {condition}"
            by: dict[str, Results] = {}
            step = max(1, len(spoken) // peer_strings)
            repeated = sets.repeated_clips(spoken)
            print(f"{title}: {repeated} clips were used before in the same string", flush=True)
            heard = ears.heard(LOOP, spoken, title)
            by[LOOP] = figures(heard)
            by[f"{LOOP}, part"] = figures(heard[::step])
            for peer in (PEER, *ears.others):
                by[f"{peer}, part"] = figures(ears.heard(peer, spoken[::step], title))
            for who, of in by.items():
                print(f"{title + ', ' + who:44s} {_shown(of)}", flush=True)
            results.setdefault(name, {})[condition] = by | {"repeated_clips": repeated}
    for name, figure, target in TARGETS:
        found = results[name]["clean"][LOOP][figure]
        verdicts.add(f"{name}/clean/{figure}", found["value"], target, found["count"], at_least=figure == "exact")
    return results


def _shown(found: Results) -> str:
    shares = (
        f"{title} {of['value']:6.2%} ({of['low']:.2%} ... {of['high']:.2%})"
        for title, of in (("digit errors", found["digit_errors"]), ("exact", found["exact"]))
    )
    exact = found["exact"]
    return f"{'  '.join(shares)}  {exact['speakers']} speakers, {exact['count']} strings"


def calls(ears: Ears, tests: sets.Tests, model: Path, verdicts: Verdicts) -> Results:
    """Card numbers as a call hears them: which card, and how sure."""
    outcomes: list[cards.Outcome] = []
    heard: list[tuple[Spoken, Answer]] = []
    for name in sets.CARD_TESTS:
        for condition, spoken in tests[name].items():
            answers = ears.hear(CALL, spoken, f"{name}, {condition}")
            outcomes += cards.outcomes(name, condition, spoken, answers)
            heard += zip(spoken, answers, strict=True)
    found = cards.judge(outcomes, verdicts)
    for condition, spoken in tests.get(sets.MACHINES, {}).items():  # no people: beside the bars, not among them
        title = f"{sets.MACHINES}, {condition}"
        by_machines = cards.outcomes(sets.MACHINES, condition, spoken, ears.hear(CALL, spoken, title))
        found["found"][title] = cards.found(by_machines)
        print(f"{title}: the card is found in {rate(by_machines, lambda o: o.found)}")
    if calibration := Calibration.read(model):
        said, answers = [s for s, _ in heard], [a for _, a in heard]
        found["reliability"] = {
            "card number": reliability.figures(list(reliability.of_numbers(said, answers))),
            "digit": reliability.figures(list(reliability.of_digits(calibration, said, answers))),
        }
        for name, of in found["reliability"].items():
            errors = f"expected calibration error {of['expected_calibration_error']:.4f}, Brier score {of['brier']:.4f}"
            print(f"confidence of a {name}: {errors}, n {of['n']}, {of['speakers']} speakers")
    return found


def main() -> None:
    args = arguments()
    vosk.SetLogLevel(-1)
    started, verdicts = time.monotonic(), Verdicts()
    tests = sets.tests(args.speech, args.fsdd, args.commands)
    summary: Results = {"model": json.loads((args.model / "manifest.json").read_text())["id"]}
    if "costs" in args.parts:
        costed = tests["commands_16"]["clean"][:: max(1, len(tests["commands_16"]["clean"]) // COSTED)]
        summary["costs"] = costs.costs(args.model, costed, RESULTS.parent, verdicts)
    with Ears(args.model, vosk_models(args.vosk), args.jobs, RESULTS.parent / "digits") as ears:
        if "tests" in args.parts:
            summary["tests"] = error_rates(ears, tests, args.peer_strings, verdicts)
        if "cards" in args.parts:
            summary["cards"] = calls(ears, tests, args.model, verdicts)
        if "other" in args.parts:
            summary["false_digits"] = other.false_digits(ears, args.speech, verdicts)
        if "answers" in args.parts:
            summary["answers"] = other.answers(ears, args.speech)
            for said, heard in summary["answers"].items():
                print(f"{said}: yes {heard['yes']:.1%}, no {heard['no']:.1%} of {heard['n']}")
    summary["minutes"] = round((time.monotonic() - started) / 60, 1)
    summary["bars"] = verdicts.lines
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{summary['minutes']} minutes; {RESULTS}")
    sys.exit(0 if verdicts.all_reached else 1)


if __name__ == "__main__":
    main()
