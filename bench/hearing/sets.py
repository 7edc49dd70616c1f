"""What is heard: people whom no training has heard, by the committed list of held-out speakers, and voices of machines.

Strings of sixteen digits are card numbers: issuer, length and check digit are right. FSDD are six men, and recordings
for tests only. Speech Commands people say the digits of which they have clips, five different ones at least. Each
condition has strings of its own, so that all of them are different ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf

from bench.hearing import machines
from bench.hearing.rates import SEED
from recipes.digits import strings
from recipes.digits.clips import Clip, find_speech
from recipes.digits.evaluate import VALUE, Spoken
from recipes.heldout import rows

#: By test, then by condition: as it arrives.
Tests = dict[str, dict[str, list[Spoken]]]
CARD_TESTS = ("fsdd_16", "commands_16")
MACHINES = "machines_16"
#: Shorter "numbers" are transcripts gone wrong: their recordings are as long as the others.
_SHORTEST_PHONE_NUMBER = 7


def as_it_is(samples: np.ndarray) -> Clip:
    """A recording that is trimmed already: looking for silence in it would cut off consonants."""
    return Clip(samples / (np.abs(samples).max() + 1e-6), 0, len(samples))


def held_out(
    speech: Path, folder: str, clip_of: Callable[[np.ndarray], Clip] = find_speech
) -> dict[str, list[tuple[str, Clip]]]:
    """Held-out clips of a folder by speaker: text and recording."""
    clips: dict[str, list[tuple[str, Clip]]] = defaultdict(list)
    for row in rows(speech, folder):
        if row["held_out"]:
            clips[row["speaker"]].append((row["text"], clip_of(sf.read(row["file"], dtype="float32")[0])))
    return clips


def tests(speech: Path, fsdd: int, commands: int) -> Tests:
    """Every test in every condition; so many card numbers of each FSDD man and each Speech Commands speaker."""
    digits = held_out(speech, "speech_commands_digits")
    several = strings.several_digits(digits)
    men = held_out(speech, "fsdd", as_it_is)
    read = [(text, c, s) for s, said in held_out(speech, "phone_numbers").items() for text, c in said]
    mexican = [(text, c, s) for s, said in held_out(speech, "digit_strings_mx").items() for text, c in said]
    numbers = [(t, c, s) for t, c, s in read if t.isdigit() and len(t) >= _SHORTEST_PHONE_NUMBER]
    single = [(VALUE[word], clip, s) for s, said in digits.items() for word, clip in said]
    found: Tests = defaultdict(dict)
    for seed, (condition, snr_db) in enumerate(strings.CONDITIONS.items(), start=SEED):
        now = {
            "fsdd_16": strings.joined(men, fsdd, seed),
            "commands_16": strings.joined(several, commands, seed),
            "commands_single": [strings.alone(clip, text, s) for text, clip, s in single],
            "phone_numbers": [strings.alone(clip, text, s) for text, clip, s in numbers],
            "digit_strings_mx": [strings.alone(clip, text, s) for text, clip, s in mexican],
            MACHINES: machines.numbers(seed),
        }
        rng = np.random.default_rng(seed)
        for name, spoken in now.items():
            if spoken:
                found[name][condition] = [strings.through(s, snr_db, rng) for s in spoken]
    return found


def repeated_clips(spoken: list[Spoken]) -> str:
    """How many of the joined clips had been used before in the same string; none stands twice in a row."""
    again = sum(s.repeated_clips for s in spoken)
    return f"{again} of {sum(len(s.digits) for s in spoken)}" if again else "none"
