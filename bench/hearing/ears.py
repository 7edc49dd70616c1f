"""Recognisers side by side on the same audio, in as many processes as there are processors."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

import numpy as np
from scipy.signal import resample_poly

from bench.hearing.rates import Heard
from ivr import speech
from ivr.speech.audio import SAMPLE_RATE
from ivr.speech.expect import Expect
from ivr.speech.library import vosk
from ivr.speech.numbers import Hypothesis, edit_distance
from ivr.speech.recogniser import DigitModel, Grammar, sample_rate
from recipes.digits import confidence, evaluate
from recipes.digits.confidence import hear
from recipes.digits.evaluate import GRAMMAR, VALUE, Spoken, digits_of
from recipes.digits.evaluate import hear as vosk_hears

LOOP, CALL, PEER = "digit loop", "a call", "pocketsphinx"
CALL_GRAMMAR = Grammar.CARD.name
_JSGF = "#JSGF V1.0;\ngrammar digits;\npublic <digits> = ( {} )+ ;\n"
_PROGRESS_S = 30.0


@dataclass(frozen=True)
class Answer:
    """The digits heard, the processor time it took, and from a call what it has at the end of its turn."""

    digits: str
    used_s: float
    numbers: tuple[Hypothesis, ...] = ()
    free: tuple[Hypothesis, ...] = ()


Listener = Callable[[np.ndarray], Answer]


def _vosk_loop(folder: str) -> Listener:
    """Any Vosk model with the loop of digits, double, triple and [unk], at the rate it was made for."""
    model, factor = vosk.Model(folder), sample_rate(Path(folder)) // SAMPLE_RATE

    def listen(samples: np.ndarray) -> Answer:
        return Answer(digits_of(vosk_hears(model, _wide(samples, factor), GRAMMAR, factor * SAMPLE_RATE)), 0.0)

    return listen


def _call(folder: str) -> Listener:
    """The service's ear in a turn for a card number: the free grammar and the graph of whole numbers."""
    model = DigitModel(folder)

    def listen(samples: np.ndarray) -> Answer:
        free, numbers = hear(model, Spoken(samples, "", ""), Expect.card())
        return Answer(free[0].digits if free else "", 0.0, numbers, free)

    return listen


def _pocketsphinx(_: str) -> Listener:
    """CMU's US English model with a loop of the same words, but for [unk], which it does not have."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=2 * SAMPLE_RATE, lm=None, bestpath=False, loglevel="FATAL")
    decoder.add_jsgf_string("digits", _JSGF.format(" | ".join((*VALUE, "double", "triple"))))
    decoder.activate_search("digits")

    def listen(samples: np.ndarray) -> Answer:
        decoder.start_utt()
        decoder.process_raw(_wide(samples, 2).tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return Answer(digits_of(hypothesis.hypstr) if hypothesis else "", 0.0)

    return listen


def _grammar(folder: str, grammar: Grammar) -> Listener:
    """The words that the service's recogniser hears in a turn of this grammar, as ``digits``, spaces between."""
    model = DigitModel(folder)

    def listen(samples: np.ndarray) -> Answer:
        recogniser = model.recogniser(grammar)
        recogniser.accept(samples)
        return Answer(" ".join(recogniser.finish(1)[0].texts), 0.0)

    return listen


def _wide(samples: np.ndarray, factor: int) -> np.ndarray:
    return np.clip(resample_poly(samples.astype(float), factor, 1), -32768, 32767).astype("<i2")


@cache
def _listener(name: str, folder: str) -> Listener:
    vosk.SetLogLevel(-1)
    named = {LOOP: _vosk_loop, CALL: _call, PEER: _pocketsphinx}
    if name in Grammar.__members__:
        return _grammar(folder, Grammar[name])
    return named.get(name, _vosk_loop)(folder)


def _hear(task: tuple[str, str, np.ndarray]) -> Answer:
    name, folder, samples = task
    listen = _listener(name, folder)
    before = time.thread_time()
    answer = listen(samples)
    return Answer(answer.digits, time.thread_time() - before, answer.numbers, answer.free)


class Ears:
    """Hears with recognisers by name: LOOP, CALL, PEER, a grammar of the service's, a folder of ``others``.

    What was heard of a test is written to ``kept``, and read from there when the same recogniser, of the same code, is
    to hear the same test again, so that a bench that was stopped goes on where it was.
    """

    def __init__(self, model: Path, others: dict[str, Path], jobs: int, kept: Path) -> None:
        self._model = model
        self.others = others
        self._kept = kept
        self._pool = multiprocessing.get_context("spawn").Pool(jobs)

    def __enter__(self) -> Ears:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.terminate()
        self._pool.join()

    def hear(self, name: str, spoken: Sequence[Spoken], title: str) -> list[Answer]:
        """An answer for each; a line of progress now and then."""
        folder = self.others.get(name, self._model)
        tasks = [(name, str(folder), s.samples) for s in spoken]
        file = self._kept / f"{_fingerprint(name, folder, spoken)}.pickle"
        if file.exists():
            kept: list[Answer] = pickle.loads(file.read_bytes())
            return kept
        answers: list[Answer] = []
        told_s = started_s = time.monotonic()
        for answer in self._pool.imap(_hear, tasks, chunksize=4):
            answers.append(answer)
            if time.monotonic() - told_s > _PROGRESS_S:
                told_s = time.monotonic()
                print(f"  ... {title}, {name}: {len(answers)} of {len(tasks)}, {told_s - started_s:.0f} s", flush=True)
        self._kept.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_bytes(pickle.dumps(answers))
        file.with_suffix(".part").rename(file)
        return answers

    def heard(self, name: str, spoken: Sequence[Spoken], title: str) -> list[Heard]:
        """As ``hear``, counted against what was said."""
        return counted(spoken, self.hear(name, spoken, title))


def _fingerprint(name: str, folder: Path, spoken: Sequence[Spoken]) -> str:
    """Of a recogniser, every file of its model, the code that hears, and what it is to hear."""
    of = hashlib.sha256(name.encode())
    model = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".md", ".png"))
    code = sorted(Path(speech.__file__).parent.glob("*.py"))
    for file in (*model, *code, Path(evaluate.__file__), Path(confidence.__file__), Path(__file__)):
        of.update(file.read_bytes())
    for s in spoken:
        of.update(s.samples.tobytes())
    return of.hexdigest()


def counted(spoken: Sequence[Spoken], answers: Sequence[Answer]) -> list[Heard]:
    """Digit errors of each string."""
    return [
        Heard(s.speaker, len(s.digits), edit_distance(s.digits, a.digits), a.used_s, len(s.samples) / SAMPLE_RATE)
        for s, a in zip(spoken, answers, strict=True)
    ]
