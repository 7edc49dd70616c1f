"""A second process that makes examples while the first one trains."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from . import features
from .graphs import Hmm, hmm
from .lexicon import ENGLISH, Lexicon
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


def alignment(
    places: list[tuple[str, int, int]] | None, lexicon: Lexicon = ENGLISH
) -> tuple[np.ndarray, np.ndarray]:
    """Word ids and pdf ids of the steps for words that lie at ``places`` (samples); see :class:`Sample`."""
    words, pdfs = np.full((2, STEPS), -1 if places is None else 0)
    per_step = SUBSAMPLING * features.HOP
    for word, start, end in places or []:
        steps = np.arange(start // per_step, min(STEPS, -(-end // per_step)))
        if word not in lexicon.states:  # two words, their border unknown
            words[steps] = pdfs[steps] = -1
            continue
        states = np.array([lexicon.pdf_id[s] for s in lexicon.states[word]])
        position = (steps * per_step - start) / (end - start) * len(states)
        pdfs[steps] = states[np.clip(position.astype(int), 0, len(states) - 1)]
        words[steps] = np.where(words[steps] == 0, lexicon.word_id[word], -1)  # where words overlap: unknown
    return words, pdfs


def to_sample(example: Example, lexicon: Lexicon = ENGLISH) -> Sample:
    log_mel = features.log_mel(torch.from_numpy(example.samples)[None])[0]
    return Sample(log_mel.half().numpy(), hmm(example.arcs, lexicon), *alignment(example.places, lexicon))


#: Makes the examples of a training, from a source of random numbers; called in the process that makes them.
MixerMaker = Callable[[np.random.Generator], Mixer]


def _work(
    make_mixer: MixerMaker, lexicon: Lexicon, seed: int, batch: int, placed: int, out: mp.Queue[list[Sample]]
) -> None:
    os.nice(2)
    torch.set_num_threads(1)
    mixer = make_mixer(np.random.default_rng(seed))
    while True:
        out.put([to_sample(mixer.example(placed=placed > 0), lexicon) for _ in range(batch)])
        placed -= 1


class Supply:
    """Batches of :class:`Sample`; the first ``placed`` have known word places.

    Making an example costs a third as much as training on it, so every second batch is a mixture of recent
    examples, made new by other masks and channels. The trainer waits only for the first batches.
    """

    def __init__(
        self,
        make_mixer: MixerMaker,
        seed: int,
        batch: int,
        placed: int,
        lexicon: Lexicon = ENGLISH,
        keep: int = 48,
    ) -> None:
        context = mp.get_context("spawn")
        self._queue: mp.Queue[list[Sample]] = context.Queue(maxsize=8)
        self._process = context.Process(
            target=_work, args=(make_mixer, lexicon, seed, batch, placed, self._queue), daemon=True
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
