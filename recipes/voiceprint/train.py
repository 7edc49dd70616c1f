"""Fits the encoder: ECAPA-TDNN with additive angular margin softmax over the training speakers.

Sources: Desplanques et al. 2020 (ECAPA-TDNN), Deng et al. 2019 (ArcFace). The schedule is a share of the
time given, so the same command makes a rough model in ten minutes and the shipped one in about an hour.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from recipes.voiceprint.channel import TRAINING, transmit
from recipes.voiceprint.data import SAMPLE_RATE, Clip, CropSampler
from voiceprint.torchaudio_shim import import_speechbrain

import_speechbrain()
from speechbrain.lobes.features import Fbank  # noqa: E402
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN  # noqa: E402
from speechbrain.processing.features import InputNormalization  # noqa: E402


@dataclass(frozen=True)
class Architecture:
    """What hyperparams.yaml repeats. A hop of 16 ms and 192 channels suit two cores."""

    sample_rate: int = SAMPLE_RATE
    n_fft: int = 256
    n_mels: int = 48
    f_min: int = 100
    f_max: int = 3800
    win_length: int = 32
    hop_length: int = 16
    channels: tuple[int, ...] = (192, 192, 192, 192, 384)
    attention_channels: int = 64
    res2net_scale: int = 4
    se_channels: int = 64
    lin_neurons: int = 160

    def features(self) -> nn.Module:
        return Fbank(
            sample_rate=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels, f_min=self.f_min,
            f_max=self.f_max, win_length=self.win_length, hop_length=self.hop_length,
        )  # fmt: skip

    def network(self) -> nn.Module:
        return ECAPA_TDNN(
            self.n_mels, lin_neurons=self.lin_neurons, channels=list(self.channels),
            attention_channels=self.attention_channels, res2net_scale=self.res2net_scale,
            se_channels=self.se_channels,
        )  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Batch size, rate and margin; functions of ``done``, the share 0..1 of the time that is spent."""

    minutes: float
    batch: int = 32
    peak_rate: float = 1.5e-3
    margin: float = 0.2
    scale: float = 30.0
    short_s: tuple[float, ...] = (1.2, 1.6, 2.0)
    long_s: tuple[float, ...] = (3.2, 4.8)
    long_share: float = 0.2

    def rate(self, done: float) -> float:
        return self.peak_rate * min(1.0, done / 0.03 + 0.02) * (0.5 * (1 + math.cos(math.pi * min(1.0, done))) + 0.003)

    def margin_at(self, done: float) -> float:
        return self.margin * min(1.0, max(0.0, (done - 0.08) / 0.4))

    def is_long(self, done: float) -> bool:
        return done >= 1 - self.long_share


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of (features of shape (batch, frames, mels), labels of shape (batch,))."""

    def __init__(
        self,
        sampler: CropSampler,
        noises: list[Clip],
        arch: Architecture,
        seconds: tuple[float, ...],
        batch: int,
        seed: int,
    ) -> None:
        self.sampler, self.noises, self.arch, self.seconds, self.batch, self.seed = (
            sampler, noises, arch, seconds, batch, seed,
        )  # fmt: skip

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        features, normalise = self.arch.features(), InputNormalization(norm_type="sentence", std_norm=False)
        while True:
            samples = int(rng.choice(self.seconds) * SAMPLE_RATE)
            labels = [self.sampler.draw(rng) for _ in range(self.batch)]
            crops = [self.sampler.crop(label, samples, rng) for label in labels]
            heard = np.stack([transmit(crop, TRAINING, rng, self.noises, crops) for crop in crops])
            with torch.no_grad():
                mels = normalise(features(torch.from_numpy(heard)), torch.ones(self.batch))
            mask(mels, rng)
            yield mels, torch.tensor(labels)


def mask(mels: Tensor, rng: np.random.Generator) -> None:
    """Blanks a band and a stretch of time in half of the crops, in place."""
    for crop in mels:
        if rng.random() < 0.5:
            band, frame = int(rng.integers(0, mels.shape[2] - 5)), int(rng.integers(0, mels.shape[1] - 12))
            crop[:, band : band + int(rng.integers(1, 6))] = 0
            crop[frame : frame + int(rng.integers(1, 12))] = 0


class StandardisedEncoder(nn.Module):
    """The network, its embeddings standardised over the batch (as in ArcFace): else few directions take all.

    :func:`recipes.voiceprint.export.fold` moves the running statistics into the network's last layer.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.network = arch.network()
        self.standardise = nn.BatchNorm1d(arch.lin_neurons, momentum=0.02, affine=False)

    def forward(self, mels: Tensor) -> Tensor:
        """Features of shape (batch, frames, mels) to embeddings of shape (batch, dim)."""
        # Processors without bfloat16 arithmetic take seven times as long with it.
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            embeddings = self.network(mels).squeeze(1)
        return self.standardise(embeddings.float())


class AngularMargin(nn.Module):
    """Additive angular margin softmax over ``classes`` unit centres."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, dim)))
        self.scale = scale

    def forward(self, embeddings: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Loss, and the share of crops whose nearest centre is their own speaker's."""
        cosine = F.normalize(embeddings) @ F.normalize(self.centres).T
        own = cosine.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        moved = torch.where(
            own > math.cos(math.pi - margin),
            torch.cos(torch.acos(own) + margin),
            own - margin * math.sin(margin),
        )
        logits = cosine.scatter(1, labels[:, None], moved) * self.scale
        return F.cross_entropy(logits, labels), (cosine.argmax(1) == labels).float().mean()


class Trainer:
    """Network, margin and optimiser, with the time spent, so that a cut-off run goes on where it was."""

    def __init__(self, arch: Architecture, schedule: Schedule, classes: int, checkpoint: Path) -> None:
        torch.manual_seed(7)
        self.arch, self.schedule, self.checkpoint = arch, schedule, checkpoint
        self.encoder, self.margin = (
            StandardisedEncoder(arch),
            AngularMargin(arch.lin_neurons, classes, schedule.scale),
        )
        #: What is shipped: a running average is a better model than the last step, most of all half-way.
        self.average = AveragedModel(self.encoder, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            [{"params": self.encoder.parameters()}, {"params": self.margin.parameters()}], weight_decay=2e-4
        )
        self.spent_s, self.crops = 0.0, 0
        if checkpoint.exists():
            self._restore(torch.load(checkpoint, weights_only=True))

    @property
    def done(self) -> float:
        return self.spent_s / 60 / self.schedule.minutes

    def step(self, mels: Tensor, labels: Tensor) -> tuple[float, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.done)
        loss, accuracy = self.margin(self.encoder(mels), labels, self.schedule.margin_at(self.done))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 5.0)
        self.optimiser.step()
        self.average.update_parameters(self.encoder)
        self.crops += len(labels)
        return float(loss.detach()), float(accuracy)

    def save(self) -> None:
        state = {
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(), "margin": self.margin.state_dict(),
            "optimiser": self.optimiser.state_dict(), "spent_s": self.spent_s, "crops": self.crops,
            "architecture": asdict(self.arch),
        }  # fmt: skip
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _restore(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.margin.load_state_dict(state["margin"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.spent_s, self.crops = state["spent_s"], state["crops"]


def train(trainer: Trainer, sampler: CropSampler, noises: list[Clip], workers: int = 1) -> None:
    """Runs until the schedule's minutes are spent; a checkpoint every two minutes."""
    torch.set_num_threads(1)
    trainer.encoder.train()
    schedule = trainer.schedule
    while trainer.done < 1:
        long = schedule.is_long(trainer.done)
        batch, seconds = (schedule.batch // 2, schedule.long_s) if long else (schedule.batch, schedule.short_s)
        batches = Batches(sampler, noises, trainer.arch, seconds, batch, seed=7 + trainer.crops)
        _stage(
            trainer,
            iter(DataLoader(batches, batch_size=None, num_workers=workers)),
            until=1.0 if long else None,
        )
    trainer.save()


def _stage(trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor]], until: float | None) -> None:
    end = until if until is not None else 1 - trainer.schedule.long_share
    losses: list[float] = []
    accuracies: list[float] = []
    saved_s = clock = time.monotonic()
    while trainer.done < end:
        loss, accuracy = trainer.step(*next(batches))
        losses.append(loss)
        accuracies.append(accuracy)
        now = time.monotonic()
        trainer.spent_s, clock = trainer.spent_s + now - clock, now
        if len(losses) == 200:
            print(
                f"{trainer.spent_s / 60:6.1f} min  {trainer.crops} crops  loss {np.mean(losses):.3f}"
                f"  accuracy {np.mean(accuracies):.3f}  rate {trainer.schedule.rate(trainer.done):.5f}",
                flush=True,
            )
            losses, accuracies = [], []
        if now - saved_s > 120:
            trainer.save()
            saved_s = now
