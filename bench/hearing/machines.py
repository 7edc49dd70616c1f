"""Text-to-speech voices that no training has heard, saying card numbers.

Festival's ``ked`` (a speaker of his own) and the HTS voice of ``slt`` (whose own recordings flite's training voice was
built from: another engine, the same woman), and accents and voices of espeak-ng that the training leaves out. Voices of
a machine are no people: they show only that the model does not depend on the voices it was trained on.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import numpy as np

from fixtures.tts import Audio, Voice, synthesise
from ivr.speech.audio import to_pcm
from ivr.speech.pan import is_complete
from recipes.digits import synthetic
from recipes.digits.evaluate import Spoken
from recipes.digits.lexicon import DIGITS

PER_VOICE = 4
VOICES = (
    Voice("festival", "ked_diphone"),
    Voice("festival", "cmu_us_slt_arctic_hts"),
    *(Voice("espeak-ng", f"en-us+{variant}") for variant in ("Andy", "Gene", "klatt3", "steph3")),
    *(Voice("espeak-ng", f"en-gb+{variant}", tone=60) for variant in ("antonio", "Hugo", "ed", "sandro")),
)
_PAUSE_AFTER = 4


def trained_on() -> set[str]:
    """The names, in lower case, of espeak-ng's variants and flite's voices in the training."""
    return {v.lower() for v in (*synthetic.ESPEAK_VARIANTS.split("|"), *synthetic.FLITE_VOICES)}


@cache
def _speaks(voice: Voice) -> bool:
    try:
        return shutil.which(voice.engine) is not None and len(synthesise(voice, "one two")) > 0
    except (subprocess.SubprocessError, OSError, IndexError, RuntimeError):
        return False


def saying(text: str) -> list[Audio]:
    """A text by each of the voices that are installed, at two tempos."""
    return [synthesise(voice, text, stretch=stretch) for voice in VOICES if _speaks(voice) for stretch in (1.0, 0.8)]


def numbers(seed: int) -> list[Spoken]:
    """Card numbers in four groups, at two tempos, half a second of near silence around. Voices missing are named."""
    rng = np.random.default_rng(seed)
    spoken = []
    for voice in VOICES:
        if not _speaks(voice):
            print(f"SKIPPED text-to-speech voice {voice.engine} {voice.name}: not installed", flush=True)
            continue
        for i in range(PER_VOICE):
            number = next(n for _ in iter(int, 1) if is_complete(n := "".join(map(str, rng.integers(0, 10, 16)))))
            words = [DIGITS[int(d)] for d in number]
            groups = (" ".join(words[at : at + _PAUSE_AFTER]) for at in range(0, len(words), _PAUSE_AFTER))
            samples = synthesise(voice, ", ".join(groups), stretch=(1.0, 0.8)[i % 2])
            samples = np.pad(0.5 * samples / np.abs(samples).max(), 4000)
            samples = samples + rng.standard_normal(len(samples)) * 1e-4
            spoken.append(Spoken(to_pcm(samples * 32767), number, f"{voice.engine} {voice.name}"))
    return spoken
