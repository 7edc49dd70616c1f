"""Lattice-free MMI: log-sums over all paths of a state automaton, with exact gradients, batched on a CPU.

Forward and backward run in the probability domain, rescaled each frame. The gradient of a log-sum with
respect to the scores is the probability of being in each state: automatic differentiation keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .graphs import Hmm

_FLOOR = 1e-300


class HmmBatch:
    """Automata padded to one size: ``transitions`` (B, N, N); ``initial``, ``final``, ``pdfs`` (B, N)."""

    def __init__(self, automata: Sequence[Hmm]) -> None:
        size = max(len(a.pdfs) for a in automata)
        count = len(automata)
        self.transitions = torch.zeros(count, size, size, dtype=torch.float64)
        self.initial = torch.zeros(count, size, dtype=torch.float64)
        self.final = torch.zeros(count, size, dtype=torch.float64)
        self.pdfs = torch.zeros(count, size, dtype=torch.long)
        for i, a in enumerate(automata):
            n = len(a.pdfs)
            self.transitions[i, :n, :n] = torch.from_numpy(a.transitions)
            self.initial[i, :n] = torch.from_numpy(a.initial)
            self.final[i, :n] = torch.from_numpy(a.final)
            self.pdfs[i, :n] = torch.from_numpy(a.pdfs)


def _times(vectors: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Row vectors (B, N) times one matrix (1, N, N) or one each (B, N, N)."""
    if len(matrices) == 1:
        return vectors @ matrices[0]
    return torch.bmm(vectors.unsqueeze(1), matrices).squeeze(1)


class _LogSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, automata: HmmBatch) -> torch.Tensor:
        batch, frames, _ = scores.shape
        peak = scores.max(2, keepdim=True).values
        pdfs = automata.pdfs.expand(batch, -1)
        # (T, B, N): one contiguous block a frame
        index = pdfs[None].expand(frames, -1, -1)
        emitted = (scores - peak).double().exp().transpose(0, 1).gather(2, index)
        forward = torch.empty_like(emitted)
        scale = torch.empty(frames, batch, 1, dtype=torch.float64)
        state = automata.initial.expand(batch, -1)
        for t in range(frames):
            state = (_times(state, automata.transitions) if t else state) * emitted[t]
            scale[t] = state.sum(1, keepdim=True).clamp_min(_FLOOR)
            state = torch.div(state, scale[t], out=forward[t])
        ended = (state * automata.final).sum(1).clamp_min(_FLOOR)
        total = ended.log() + scale.log().sum((0, 2)) + peak.double().sum((1, 2))

        back = (automata.final / ended[:, None]).expand(batch, -1)
        reverse = automata.transitions.transpose(1, 2).contiguous()
        occupied = torch.empty_like(forward)
        for t in range(frames - 1, -1, -1):
            torch.mul(forward[t], back, out=occupied[t])
            back = _times(back * emitted[t] / scale[t], reverse)
        gradient = torch.zeros(frames, batch, scores.shape[2], dtype=torch.float64).scatter_add_(
            2, index, occupied
        )
        ctx.save_for_backward(gradient.transpose(0, 1).to(scores.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype)[:, None, None], None


def log_sum(scores: torch.Tensor, automata: HmmBatch) -> torch.Tensor:
    """Log of the summed weight of all paths: ``scores`` (B, T, P) natural-log scores -> (B,) float64."""
    return _LogSum.apply(scores, automata)


def best_path(scores: np.ndarray, automaton: Hmm) -> tuple[float, np.ndarray]:
    """Viterbi: ``scores`` (T, P) -> log weight of the best path, its state at every frame (T,)."""
    with np.errstate(divide="ignore"):
        transitions, initial, final = (
            np.log(m) for m in (automaton.transitions, automaton.initial, automaton.final)
        )
    emitted = scores[:, automaton.pdfs]
    state = initial + emitted[0]
    origins = []
    for frame in emitted[1:]:
        candidates = state[:, None] + transitions
        origins.append(candidates.argmax(0))
        state = candidates.max(0) + frame
    state = state + final
    path = [int(state.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return float(state.max()), np.array(path[::-1])
