"""Words cut out of numbers that people read fluently: digits as they sound between other digits.

Isolated digits are longer and clearer than those within a number; a recogniser trained on them alone
makes several times the errors (Rabiner, Bergh, Wilpon, BSTJ 1982, for templates).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .clips import SAMPLE_RATE, Clip
from .features import HOP, mfcc
from .graphs import hmm, number_arcs
from .lexicon import PDF_ID, SILENCE
from .lfmmi import best_path
from .network import SUBSAMPLING, Network

EDGE_S = 0.02  # kept on each side: a word begins in its neighbour
Places = list[tuple[str, int, int]]  # word, first and last sample


def align(network: Network, digits: str, clip: Clip) -> Places:
    """Where the words of ``digits`` lie in ``clip.samples``, by the best path through ``network``'s scores."""
    automaton = hmm(number_arcs(digits))
    begin = clip.start
    samples = torch.from_numpy(clip.cut().astype(np.float32) * 16000)[None]
    with torch.no_grad():
        scores = network(mfcc(samples))[0].double().numpy()
    _, path = best_path(scores, automaton)
    step, places, word, since = SUBSAMPLING * HOP, [], "", 0
    for t, state in enumerate([*path, -1]):
        ends = state < 0 or automaton.pdfs[state] == PDF_ID[SILENCE]
        begins = state >= 0 and automaton.words[state] and (t == 0 or path[t - 1] != state)
        if word and (ends or begins):
            places.append((word, begin + since * step, begin + t * step))
            word = ""
        if begins:
            word, since = automaton.words[state], t
    return places


def cut(numbers: Sequence[tuple[str, Clip]], places: Sequence[Places]) -> list[list[tuple[str, Clip]]]:
    """The words of each number as clips; a number whose words are too short or long was not aligned."""
    edge = int(EDGE_S * SAMPLE_RATE)
    groups = []
    for (_, clip), words in zip(numbers, places, strict=True):
        group = []
        for word, start, end in words:
            if 0.08 < (end - start) / SAMPLE_RATE < 0.8:
                first = max(0, start - edge)
                samples = clip.samples[first : end + edge]
                group.append((word, Clip(samples, start - first, end - first)))
        groups.append(group)
    return groups
