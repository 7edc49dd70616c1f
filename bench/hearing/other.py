"""What is no number: noise and other speech that must not become digits, and yes and no."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from bench.hearing import machines
from bench.hearing.ears import CALL, CALL_GRAMMAR, LOOP, Answer, Ears
from bench.hearing.rates import Verdicts
from bench.hearing.sets import held_out
from ivr.speech.audio import SAMPLE_RATE, pcm_to_ulaw, to_pcm, ulaw_to_pcm
from ivr.speech.cards import candidates
from ivr.speech.expect import Expect
from ivr.speech.numbers import DIGITS, TEENS, TENS
from ivr.speech.recogniser import UNKNOWN, Grammar
from recipes.digits.clips import find_speech
from recipes.digits.evaluate import Spoken
from recipes.heldout import rows

FALSE_DIGITS_TARGET = 1.0
_LONGEST_S = 15
#: The digits that a number word brings, heard or said: "twelve ounce" excuses two.
_DIGITS_OF = dict.fromkeys(DIGITS, 1) | dict.fromkeys((*TEENS, *TENS), 2)


@dataclass(frozen=True)
class Other:
    """A recording that is no number, and how many digits are in the words said all the same."""

    spoken: Spoken
    digits_said: int = 0


def digits_in(text: str) -> int:
    """How many digits the number words of a text bring; a figure is one."""
    words = "".join(c if c.isalpha() else " " for c in text.lower()).split()
    return sum(_DIGITS_OF.get(word, 0) for word in words) + sum(c.isdigit() for c in text)


def _arrived(samples: np.ndarray, speaker: str) -> Spoken:
    return Spoken(ulaw_to_pcm(pcm_to_ulaw(to_pcm(samples * 32767))), "", speaker)


def noises(speech: Path) -> list[Other]:
    """Held-out noise, twenty seconds a piece at most, loud and quiet."""
    found = [
        sf.read(r["file"], dtype="float32")[0]
        for r in rows(speech, "noise_rir")
        if r["held_out"] and r["text"].startswith("noise")
    ]
    size = 20 * SAMPLE_RATE
    pieces = [x[at : at + size] for x in found for at in range(0, len(x), size)]
    return [Other(_arrived(level * x / np.abs(x).max(), "noise")) for x in pieces for level in (0.05, 0.5)]


def orders(speech: Path) -> list[Other]:
    """Coffee orders. What they hold is known as slots, not word by word: the values of the slots count as said."""
    found = []
    for row in rows(speech, "picovoice_barista_oov"):
        slots: dict[str, str] = json.loads(row["text"])
        found.append(Other(_speech(row), digits_in(" ".join(slots.values()))))
    return found


def sentences(speech: Path) -> list[Other]:
    """Read sentences of held-out people; a number word in them, not known from the text at hand, counts as false."""
    return [Other(_speech(row)) for row in rows(speech, "librispeech_resemblyzer") if row["held_out"]]


def _speech(row: dict[str, str]) -> Spoken:
    clip = find_speech(sf.read(row["file"], dtype="float32")[0])
    return _arrived(0.5 * clip.samples[: _LONGEST_S * SAMPLE_RATE], row["speaker"])


def digits_heard(listener: str, answer: Answer) -> int:
    """All that a recogniser made of a recording; of a call, which has rules, what it would compare with cards."""
    if listener == CALL:
        return len(next(iter(candidates(answer.numbers)), ""))
    return digits_in(answer.digits)


def false_digits(ears: Ears, speech: Path, verdicts: Verdicts) -> dict[str, dict[str, float]]:
    """Digits a minute that nobody said.

    With the loop of digits; with the grammar of a turn for a card number; and those of the numbers that such a turn
    would compare with cards: with a right check digit, and more probably said than not.
    """
    figures: dict[str, dict[str, float]] = {}
    for name, of, has_bar in (
        ("noise_rir", noises(speech), True),
        ("picovoice_barista_oov", orders(speech), True),
        ("librispeech", sentences(speech), False),
    ):
        spoken = [o.spoken for o in of]
        minutes = sum(len(s.samples) for s in spoken) / SAMPLE_RATE / 60
        figures[name] = {"recordings": len(of), "minutes": minutes, "digits_said": sum(o.digits_said for o in of)}
        for listener in (LOOP, CALL_GRAMMAR, CALL):
            heard = [digits_heard(listener, a) for a in ears.hear(listener, spoken, name)]
            false = sum(max(0, h - o.digits_said) for h, o in zip(heard, of, strict=True))
            figures[name][listener] = false / minutes
            print(f"{name}, {listener}: {false} false digits in {minutes:.1f} minutes ({sum(heard)} heard)", flush=True)
            if has_bar:
                verdicts.add(f"{name}/{listener}/false_digits_a_minute", false / minutes, FALSE_DIGITS_TARGET, len(of))
    return figures


#: What machines say in a turn of an app's charge, and what it should come to.
SAID_BY_MACHINES = {
    **dict.fromkeys(("yes", "confirm", "pay", "yes, pay", "pay it", "please confirm"), "yes"),
    **dict.fromkeys(("no", "cancel", "no, cancel"), "no"),
    **dict.fromkeys(("don't pay", "do not confirm", "I do not want to pay"), "neither"),
    **dict.fromkeys(("payment", "okay", "today", "come on", "what was that", "paper", "company"), "neither"),
}


def answers(ears: Ears, speech: Path) -> dict[str, dict[str, float]]:
    """Shares of what is heard as a yes and as a no, in a turn that asks for one.

    Held-out people who say yes, no, or another word, in a turn of a call (YES_NO) and of an app's charge (CONFIRM); for
    the latter machines, too, whose voices no training has heard, clean: nobody recorded its words.
    """
    said: list[tuple[str, Spoken]] = []
    for speaker, clips in held_out(speech, "speech_commands_voices").items():
        for word, clip in clips:
            said.append((word if word in ("yes", "no") else "other words", _arrived(_around(clip.samples), speaker)))
    found = {}
    for grammar, expect in ((Grammar.YES_NO, Expect.yes_no()), (Grammar.CONFIRM, Expect.confirm())):
        found |= _answered(ears, grammar, expect, said, "people")
    by_machines = [(text, _arrived(_around(x), "machine")) for text in SAID_BY_MACHINES for x in machines.saying(text)]
    return found | _answered(ears, Grammar.CONFIRM, Expect.confirm(), by_machines, "machines")


def _around(samples: np.ndarray) -> np.ndarray:
    return np.pad(0.5 * samples / np.abs(samples).max(), 2400)


def _answered(
    ears: Ears, grammar: Grammar, expect: Expect, said: list[tuple[str, Spoken]], who: str
) -> dict[str, dict[str, float]]:
    heard: dict[str, list[object]] = defaultdict(list)
    title = f"answers of {who}, {grammar.name}"
    for (text, _), answer in zip(said, ears.hear(grammar.name, [s for _, s in said], title), strict=True):
        words = answer.digits.split()
        known = [word for word in words if word != UNKNOWN]
        heard[text].append(expect.spoken_answer(known, besides=len(known) < len(words)))
    return {
        f"{who}, {grammar.name}: {text}": {
            "n": len(came), "yes": _share([a == "yes" for a in came]), "no": _share([a == "no" for a in came])
        }
        for text, came in heard.items()
    }  # fmt: skip


def _share(of: Sequence[bool]) -> float:
    return float(np.mean(of)) if of else 0.0
