"""The training loop: a flat start by cross-entropy, then lattice-free MMI; bounded by time, resumable."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from . import features, graphs, warm
from .lexicon import ENGLISH, SILENCE, Lexicon
from .lfmmi import HmmBatch, log_sum
from .network import Network
from .supply import Sample, Supply


@dataclass(frozen=True)
class Settings:
    minutes: float
    batch: int = 16
    learning_rate: float = 2e-3
    plateau: float = 0.4  # share of the time before the learning rate begins to fall
    flat_start_steps: int = 300
    frame_weight: float = 0.15  # of word cross-entropy beside LF-MMI
    checkpoint_every_s: float = 240
    average: float = 0.998  # decay of the running average of weights, which is what ships


def features_of(batch: list[Sample]) -> torch.Tensor:
    """(B, T, 40) cepstra, each example through another channel and with bands missing."""
    log_mels = torch.stack([torch.from_numpy(s.log_mel) for s in batch]).float()
    count, _, bins = log_mels.shape
    position = (torch.arange(bins) + 0.5) / bins * math.pi
    waves = torch.stack([torch.cos(k * position) for k in range(1, 6)])
    channel = torch.randn(count, len(waves)) * 0.5 @ waves + torch.rand(count, 1) * 3 - 1.5
    log_mels += channel[:, None]
    for example in log_mels:
        for _ in range(int(torch.randint(0, 3, ()))):
            width = int(torch.randint(1, 7, ()))
            start = int(torch.randint(0, bins - width, ()))
            example[:, start : start + width] = example[:, start : start + width].mean()
    return features.cepstra(log_mels)


class Trainer:
    """State of a training: network, its running average, optimiser, and how much of the time is used."""

    def __init__(self, settings: Settings, lexicon: Lexicon = ENGLISH) -> None:
        self.settings = settings
        self.network = Network(lexicon=lexicon)
        self._average = AveragedModel(self.network, avg_fn=self._running_average, use_buffers=True)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=1e-3
        )
        self._denominator = HmmBatch([graphs.loop(lexicon)])
        self._pdfs_of_words = torch.zeros(len(lexicon.pdfs), 1 + len(lexicon.words))
        self._pdfs_of_words[lexicon.pdf_id[SILENCE], 0] = 1
        for word, states in lexicon.states.items():
            self._pdfs_of_words[[lexicon.pdf_id[s] for s in states], lexicon.word_id[word]] = 1
        self.elapsed_s = 0.0
        self.step = 0

    def _running_average(
        self, average: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int
    ) -> torch.Tensor:
        """Exponential, over less of the past at the beginning: early weights are no good."""
        done = float(count)
        decay = min(self.settings.average, (done + 1) / (done + 20))
        return average * decay + new * (1 - decay)

    def averaged(self) -> Network:
        """The network to ship, now."""
        return copy.deepcopy(self._average.module).eval()

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "elapsed_s": self.elapsed_s,
            "step": self.step,
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.elapsed_s, self.step = state["elapsed_s"], state["step"]

    def start_from(self, folder: Path, inputs: torch.Tensor) -> None:
        """Begin with the weights of the model in ``folder``; see :func:`warm.start_from`."""
        warm.start_from(self.network, folder, inputs)
        self._average.module.load_state_dict(self.network.state_dict())

    def _learning_rate(self) -> float:
        """Warm-up, a plateau, then a cosine to nearly nothing."""
        done = min(1.0, self.elapsed_s / (60 * self.settings.minutes))
        falling = max(0.0, done - self.settings.plateau) / (1 - self.settings.plateau)
        decay = 0.5 * (1 + math.cos(math.pi * falling)) + 0.003
        return self.settings.learning_rate * decay * min(1.0, (self.step + 1) / 100)

    def _loss(self, scores: torch.Tensor, batch: list[Sample]) -> torch.Tensor:
        if self.step < self.settings.flat_start_steps:
            targets = torch.stack([torch.from_numpy(s.pdfs) for s in batch])
            return functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1)
        numerator = log_sum(scores, HmmBatch([s.numerator for s in batch]))
        excess = log_sum(scores, self._denominator) - numerator
        # An example that cannot be aligned (mislabelled, or too fast for its states) would drown the others.
        kept = excess[excess < 400]
        sequence = kept.sum() / len(batch) / scores.shape[1]
        return 10 * sequence + self.settings.frame_weight * self._frame_loss(scores, batch)

    def _frame_loss(self, scores: torch.Tensor, batch: list[Sample]) -> torch.Tensor:
        """Cross-entropy of words (not states) at steps where they are known: words stay where they are."""
        words = torch.stack([torch.from_numpy(s.words) for s in batch]).flatten()
        of_words = scores.softmax(2).flatten(0, 1) @ self._pdfs_of_words
        loss = functional.nll_loss((of_words + 1e-6).log(), words, ignore_index=-1, reduction="sum")
        return loss / (words >= 0).sum().clamp_min(1)  # a batch may have no known step

    def run_step(self, supply: Supply) -> float:
        """One update from the next batch; returns the loss."""
        started = time.monotonic()
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.network.train()
        batch = supply.next()
        inputs = features_of(batch)
        # Processors without bfloat16 arithmetic take seven times as long with it.
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            scores = self.network(inputs)
        loss = self._loss(scores.float(), batch)
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        if torch.isfinite(norm):
            self._optimizer.step()
            self._average.update_parameters(self.network)
        self.step += 1
        self.elapsed_s += time.monotonic() - started
        return float(loss.detach())

    def finished(self) -> bool:
        return self.elapsed_s >= 60 * self.settings.minutes
