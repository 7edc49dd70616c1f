"""What the model costs: disk, time to load, memory, and the processor that a caller needs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.hearing.rates import Verdicts
from ivr.speech.audio import SAMPLE_RATE
from ivr.speech.ear import Ear
from ivr.speech.expect import Expect
from ivr.speech.recogniser import DigitModel
from recipes.digits.confidence import PIECE
from recipes.digits.evaluate import Spoken

CALLERS = 40
_LOADS = 3

#: In a process of its own: what a service's process with the model has, and what each caller adds while speaking.
_MEASURE = """
import re, sys, time
import numpy as np
from ivr.speech.recogniser import DigitModel, Grammar

def megabytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

started = time.perf_counter()
model = DigitModel(sys.argv[1])
print(time.perf_counter() - started)
print(megabytes("VmHWM"))
samples = np.load(sys.argv[2])
before = megabytes("VmRSS")
held = [r for _ in range(int(sys.argv[3])) for r in (model.recogniser(Grammar.CARD), model.card_recogniser()) if r]
for recogniser in held:
    recogniser.accept(samples)
print((megabytes("VmRSS") - before) / int(sys.argv[3]))
"""


def measure(model: Path, samples_file: Path, callers: int) -> tuple[float, float, float]:
    """Seconds to load and prove, megabytes of the process with the model, megabytes of each of so many callers."""
    command = [sys.executable, "-c", _MEASURE, str(model), str(samples_file), str(callers)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    load_s, process_mb, caller_mb = map(float, answer.split())
    return load_s, process_mb, caller_mb


def real_time_factor(model: DigitModel, spoken: Sequence[Spoken]) -> float:
    """Processor time over audio time of what a turn for a card number runs: both graphs, piece by piece."""
    used_s = 0.0
    for s in spoken:
        before = time.thread_time()
        ear = Ear(model, Expect.card())
        for at in range(0, len(s.samples), PIECE):
            ear.hear(s.samples[at : at + PIECE], is_speech=True)
        ear.whole_numbers()
        used_s += time.thread_time() - before
    return used_s / sum(len(s.samples) / SAMPLE_RATE for s in spoken)


def costs(folder: Path, spoken: Sequence[Spoken], work: Path, verdicts: Verdicts) -> dict[str, float]:
    """All of them, by card numbers as they are said; nothing else of the bench runs meanwhile."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "caller.npy"
    np.save(file, spoken[0].samples)
    measured = [measure(folder, file, CALLERS) for _ in range(_LOADS)]
    file.unlink()
    load_s, process_mb, caller_mb = (sorted(m[i] for m in measured)[_LOADS // 2] for i in range(3))
    size_mb = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.suffix != ".png") / 1e6
    factor = real_time_factor(DigitModel(folder), spoken)
    verdicts.add("model/megabytes", size_mb, 12, 1)
    verdicts.add("model/seconds_to_load_and_prove", load_s, 0.5, _LOADS)
    verdicts.add("model/megabytes_of_process", process_mb, 150, _LOADS)
    verdicts.add("model/megabytes_a_caller", caller_mb, 5, CALLERS)
    verdicts.add("a_call/real_time_factor", factor, 0.03, len(spoken))
    verdicts.add("a_call/callers_a_core", 1 / factor, 30, len(spoken), at_least=True)
    return {
        "megabytes": size_mb,
        "load_s": load_s,
        "process_megabytes": process_mb,
        "caller_megabytes": caller_mb,
        "real_time_factor": factor,
    }
