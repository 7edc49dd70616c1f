"""A second process that makes examples while the first one trains."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import clips, features, fluent, synthetic
from .graphs import Hmm, hmm
from .lexicon import LEXICON, PDF_ID, WORD_ID
from .mixing import WINDOW_S, Example, Mixer
from .network import SUBSAMPLING

FRAMES = int(WINDOW_S * 1000 - 25) // 10 + 1
STEPS = -(-FRAMES // SUBSAMPLING)


@dataclass
class Sample:
    """What the trainer needs of an example.

    ``log_mel`` (FRAMES, bins) half precision; ``numerator``: what was said; and for each step (STEPS,) where
    places are known, else -1: ``words``, word ids, 0 for silence; ``pdfs``, the states of a word laid evenly.
    """

    log_mel: np.ndarray
    numerator: Hmm
    words: np.ndarray
    pdfs: np.ndarray


def alignment(places: list[tuple[str, int, int]] | None) -> tuple[np.ndarray, np.ndarray]:
    """Word ids and pdf ids of the steps for words that lie at ``places`` (samples); see :class:`Sample`."""
    words, pdfs = np.full((2, STEPS), -1 if places is None else 0)
    per_step = SUBSAMPLING * features.HOP
    for word, start, end in places or []:
        steps = np.arange(start // per_step, min(STEPS, -(-end // per_step)))
        if word not in LEXICON:  # two words, their border unknown
            words[steps] = pdfs[steps] = -1
            continue
        states = np.array([PDF_ID[s] for s in LEXICON[word]])
        position = (steps * per_step - start) / (end - start) * len(states)
        pdfs[steps] = states[np.clip(position.astype(int), 0, len(states) - 1)]
        words[steps] = np.where(words[steps] == 0, WORD_ID[word], -1)  # where words overlap: unknown
    return words, pdfs


def to_sample(example: Example) -> Sample:
    log_mel = features.log_mel(torch.from_numpy(example.samples)[None])[0]
    return Sample(log_mel.half().numpy(), hmm(example.arcs), *alignment(example.places))


def _work(
    speech: Path,
    own: Path | None,
    synthetic_path: Path,
    seed: int,
    batch: int,
    placed: int,
    words: list[fluent.Places],
    out: mp.Queue[list[Sample]],
) -> None:
    os.nice(2)
    torch.set_num_threads(1)
    corpus = clips.load(speech, own=own)
    corpus.fluent = fluent.cut(corpus.numbers, words) if words else []
    mixer = Mixer(corpus, synthetic.load(synthetic_path), np.random.default_rng(seed))
    while True:
        out.put([to_sample(mixer.example(placed=placed > 0)) for _ in range(batch)])
        placed -= 1


class Supply:
    """Batches of :class:`Sample`; the first ``placed`` have known word places. ``words``: where the words of the
    corpus's fluent numbers lie, if that is known.

    Making an example costs a third as much as training on it, so every second batch is a mixture of recent
    examples, made new by other masks and channels. The trainer waits only for the first batches.
    """

    def __init__(
        self,
        speech: Path,
        own: Path | None,
        synthetic_path: Path,
        seed: int,
        batch: int,
        placed: int,
        words: list[fluent.Places],
        keep: int = 48,
    ) -> None:
        context = mp.get_context("spawn")
        self._queue: mp.Queue[list[Sample]] = context.Queue(maxsize=8)
        self._process = context.Process(
            target=_work, args=(speech, own, synthetic_path, seed, batch, placed, words, self._queue), daemon=True
        )
        self._process.start()
        self._batch, self._keep, self._placed = batch, keep * batch, placed
        self._recent: list[Sample] = []
        self._rng = np.random.default_rng(seed)
        self.made = self.reused = 0

    def next(self) -> list[Sample]:
        """A new batch and, once enough are known, a mixture of recent ones, in turn."""
        filling = self.made < max(20, self._placed)
        if filling or self.reused >= self.made:
            return self._new(wait=filling)
        return self._mixture()

    def _new(self, wait: bool) -> list[Sample]:
        if not self._process.is_alive():
            raise RuntimeError("the process that makes examples has ended; its error is printed above")
        try:
            fresh = self._queue.get(block=wait)
        except queue.Empty:
            return self._mixture()
        self.made += 1
        self._recent = (self._recent + fresh)[-self._keep :]
        return fresh

    def _mixture(self) -> list[Sample]:
        self.reused += 1
        chosen = self._rng.choice(len(self._recent), self._batch, replace=False)
        return [self._recent[i] for i in chosen]

    def close(self) -> None:
        self._process.terminate()
