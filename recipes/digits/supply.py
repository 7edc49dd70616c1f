"""A second process that makes examples while the first one trains."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import clips, features, synthetic
from .graphs import Hmm, hmm
from .lexicon import LEXICON, PDF_ID, SILENCE
from .mixing import WINDOW_S, Example, Mixer
from .network import SUBSAMPLING

FRAMES = int(WINDOW_S * 1000 - 25) // 10 + 1
STEPS = -(-FRAMES // SUBSAMPLING)


@dataclass
class Sample:
    """What the trainer needs of an example: ``log_mel`` (FRAMES, bins) half precision, its numerator, and
    the pdf of each step (STEPS,) if the places of the words are known: a flat start for the network."""

    log_mel: np.ndarray
    numerator: Hmm
    pdfs: np.ndarray | None


def flat_alignment(places: list[tuple[str, int, int]]) -> np.ndarray:
    """The states of each word laid evenly over it, silence elsewhere: (STEPS,) pdf ids."""
    pdfs = np.full(STEPS, PDF_ID[SILENCE])
    per_step = SUBSAMPLING * features.HOP
    for word, start, end in places:
        states = LEXICON[word]
        for step in range(start // per_step, min(STEPS, -(-end // per_step))):
            position = (step * per_step - start) / (end - start) * len(states)
            pdfs[step] = PDF_ID[states[int(np.clip(position, 0, len(states) - 1))]]
    return pdfs


def to_sample(example: Example) -> Sample:
    log_mel = features.log_mel(torch.from_numpy(example.samples)[None])[0]
    pdfs = None if example.places is None else flat_alignment(example.places)
    return Sample(log_mel.half().numpy(), hmm(example.arcs), pdfs)


def _work(
    speech: Path, synthetic_path: Path, seed: int, batch: int, placed: int, out: mp.Queue[list[Sample]]
) -> None:
    os.nice(2)
    torch.set_num_threads(1)
    mixer = Mixer(clips.load(speech), synthetic.load(synthetic_path), np.random.default_rng(seed))
    while True:
        out.put([to_sample(mixer.example(placed=placed > 0)) for _ in range(batch)])
        placed -= 1


class Supply:
    """Batches of :class:`Sample`; the first ``placed`` have known word places.

    Making an example costs a third as much as training on it, so every second batch is a mixture of recent
    examples, made new by other masks and channels. The trainer waits only for the first batches.
    """

    def __init__(
        self, speech: Path, synthetic_path: Path, seed: int, batch: int, placed: int, keep: int = 48
    ) -> None:
        context = mp.get_context("spawn")
        self._queue: mp.Queue[list[Sample]] = context.Queue(maxsize=8)
        self._process = context.Process(
            target=_work, args=(speech, synthetic_path, seed, batch, placed, self._queue), daemon=True
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
