"""The model card's figures: ``python -m bench.digits_report [--plot models/digits/reliability.png]``.

Prints, as Markdown, what ``python -m bench.digits`` wrote to ``bench/results/digits.json``, and draws the reliability
plot. To be pasted: nothing here is measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.digits import RESULTS
from bench.hearing.ears import CALL, CALL_GRAMMAR, LOOP
from bench.hearing.reliability import plot

NAMES = {
    "fsdd_16": "FSDD, six men: 16 digits joined from trimmed clips",
    "commands_16": "Speech Commands: 16 digits joined",
    "commands_single": "Speech Commands: one digit",
    "phone_numbers": "people reading a telephone number",
    "digit_strings_mx": "three connected digits, Mexican accent",
    "machines_16": "text-to-speech voices never trained on: 16 digits",
}
_PART = ", part"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def per_cent(share: dict[str, float]) -> str:
    return f"{100 * share['value']:.1f} ({100 * share['low']:.1f} ... {100 * share['high']:.1f})"


def tests(found: dict[str, Any]) -> Iterator[str]:
    lines = []
    for name, conditions in found.items():
        for condition, by in conditions.items():
            of = by[LOOP]
            who = [str(of["exact"]["speakers"]), str(of["exact"]["count"]), by["repeated_clips"]]
            rates = [per_cent(of["digit_errors"]), per_cent(of["exact"])]
            lines.append([NAMES[name], condition, *who, *rates, f"{of['real_time_factor']:.3f}"])
    who_head = ("Test", "Noise", "People", "Strings", "Clips used again")
    head = (*who_head, "Digit errors, %", "Strings exact, %", "Real-time factor")
    yield from table(head, lines)
    yield ""
    for name, conditions in found.items():
        if each := conditions["clean"][LOOP]["by_speaker"]:
            yield f"{NAMES[name]}, clean, digit errors by speaker: " + ", ".join(
                f"{speaker} {100 * errors:.1f} %" for speaker, errors in sorted(each.items(), key=lambda item: item[1])
            )
    yield ""
    yield from beside_others(found)


def beside_others(found: dict[str, Any]) -> Iterator[str]:
    """The same part of the strings heard by every recogniser: digit errors, strings exact, per cent."""
    listeners = [w.removesuffix(_PART) for w in next(iter(found.values()))["clean"] if w.endswith(_PART)]
    lines = []
    for name, conditions in found.items():
        for condition, by in conditions.items():
            cells = []
            for listener in listeners:
                of = by[listener + _PART]
                cells.append(f"{100 * of['digit_errors']['value']:.1f}, {100 * of['exact']['value']:.1f}")
            lines.append([NAMES[name], condition, str(by[LOOP + _PART]["exact"]["count"]), *cells])
    yield from table(("Test", "Noise", "Strings", *("this model" if w == LOOP else w for w in listeners)), lines)


def cards(found: dict[str, Any]) -> Iterator[str]:
    lines = []
    for title, share in found["found"].items():
        fewest = ", ".join(f"{speaker} {100 * of:.0f} %" for speaker, of in list(share["fewest"].items())[:3])
        lines.append([title, str(share["speakers"]), str(share["count"]), per_cent(share), fewest])
    yield from table(("Card numbers", "People", "Strings", "Card found, %", "Fewest found"), lines)
    yield ""
    lines = [
        [
            name,
            f"{of['lists']:.0f}",
            f"{of['strings']:.0f}",
            f"{100 * of['at_most_of_strings']:.3f}",
            f"{100 * of['at_most_of_speakers']:.2f}",
        ]
        for name, of in found["wrong"].items()
    ]
    head = ("Wrong card", "Lists accepted", "Strings", "At most (95 %), % of strings", "by speakers, %")
    yield from table(head, lines)
    if found["at_no_wrong_card"]:
        least, shares = found["at_no_wrong_card"]
        listed = ", ".join(f"{title} {100 * share:.1f} %" for title, share in shares.items())
        yield ""
        yield f"No wrong card is accepted from a least confidence of {least} on; found then: {listed}."


def reliability(found: dict[str, Any]) -> Iterator[str]:
    head = ("Confidence of", "n", "People", "Right, %", "Expected calibration error", "Brier score")
    figures = ("expected_calibration_error", "brier")
    lines = [
        [name, str(of["n"]), str(of["speakers"]), f"{100 * of['right']:.1f}", *(f"{of[f]:.3f}" for f in figures)]
        for name, of in found.items()
    ]
    yield from table(head, lines)


def false_digits(found: dict[str, Any]) -> Iterator[str]:
    lines = [
        [name, str(of["recordings"]), f"{of['minutes']:.1f}", *(f"{of[w]:.2f}" for w in (LOOP, CALL_GRAMMAR, CALL))]
        for name, of in found.items()
    ]
    rates = ("False digits a minute, loop of digits", "card turn, as heard", "card turn, acted on")
    yield from table(("Recordings", "Number", "Minutes", *rates), lines)


def bars(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    lines = [
        ["reached" if b["reached"] else "missed", b["name"], f"{b['value']:.4g}", f"{b['target']:g}", str(b["n"])]
        for b in found
    ]
    yield from table(("", "Bar", "Figure", "Target", "n"), lines)


def markdown(summary: dict[str, Any]) -> Iterator[str]:
    """Every part that was measured, under a heading of its own."""
    parts = (
        ("Digits", summary.get("tests"), tests),
        ("Cards", summary.get("cards"), cards),
        ("Confidence", summary.get("cards", {}).get("reliability"), reliability),
        ("What is no number", summary.get("false_digits"), false_digits),
        ("Bars", summary["bars"], bars),
    )
    for heading, found, lines in parts:
        if found:
            yield f"### {heading}"
            yield ""
            yield from lines(found)
            yield ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digits_report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, help="where to draw the reliability plot, as PNG")
    args = parser.parse_args()
    summary = json.loads(args.results.read_text())
    print("\n".join(markdown(summary)))
    if args.plot and (found := summary.get("cards", {}).get("reliability")):
        plot(found, args.plot)


if __name__ == "__main__":
    main()
