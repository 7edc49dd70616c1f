"""The acoustic network: a residual time-delay network at 33 frames a second, and its form in Kaldi.

Only affine, batch-norm before ReLU, and sums: batch-norm folds into the affine exactly, so Kaldi computes
the same numbers. The first layer already steps by three frames, so nothing runs at 100 frames a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .features import BINS
from .lexicon import ENGLISH, Lexicon

SUBSAMPLING = 3  # Vosk counts 30 ms a frame
INPUT_SPAN = 3  # frames on each side in the first layer


@dataclass(frozen=True)
class Affine:
    """One exported layer; columns of ``weight`` are all inputs of the first offset, then of the second."""

    offsets: tuple[int, ...]  # in 10 ms frames
    weight: np.ndarray
    bias: np.ndarray
    relu: bool
    residual: bool  # whether the input of the block before is added to the output (after ReLU)


class Layer(nn.Module):
    """Affine, batch-norm, ReLU on (B, T, C)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.affine = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.affine(x)
        return torch.relu(self.norm(y.flatten(0, 1)).view_as(y))

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        scale = self.norm.weight.double() * (self.norm.running_var.double() + self.norm.eps).rsqrt()
        bias = self.norm.bias.double() - self.norm.running_mean.double() * scale
        weight = self.affine.weight.double() * scale[:, None]
        return weight.detach().float().numpy(), bias.detach().float().numpy()


class Network(nn.Module):
    """MFCC (B, T, 40) -> scores of the pdfs (B, ceil(T / 3), pdfs), in natural log, unnormalised."""

    def __init__(
        self,
        width: int = 320,
        bottleneck: int = 128,
        dilations: tuple[int, ...] = (1, 1, 1, 1, 2, 2, 2),
        dropout: float = 0.08,
        lexicon: Lexicon = ENGLISH,
    ) -> None:
        super().__init__()
        self.dilations = dilations  # in steps of 30 ms
        self.dropout = dropout
        self.input_norm = nn.BatchNorm1d(BINS, affine=False)
        self.first = Layer((2 * INPUT_SPAN + 1) * BINS, width)
        self.squeeze = nn.ModuleList(Layer(3 * width, bottleneck) for _ in dilations)
        self.expand = nn.ModuleList(Layer(bottleneck, width) for _ in dilations)
        self.last = nn.Linear(width, len(lexicon.pdfs))
        self.context = sum(dilations)  # in steps of 30 ms, on each side

    def spliced(self, features: torch.Tensor) -> torch.Tensor:
        """(B, T, 40) -> the inputs of the first layer, one row for each output step and those around."""
        frames = features.shape[1]
        steps = -(-frames // SUBSAMPLING)
        # Kaldi repeats the first and the last frame of the features, once, by the whole context.
        before = SUBSAMPLING * self.context + INPUT_SPAN
        after = before + SUBSAMPLING * (steps - 1) + 1 - frames
        x = self.input_norm(features.flatten(0, 1)).view_as(features)
        x = functional.pad(x.transpose(1, 2), (before, after), mode="replicate")
        return x.unfold(2, 2 * INPUT_SPAN + 1, SUBSAMPLING).permute(0, 2, 3, 1).flatten(2)

    @staticmethod
    def around(x: torch.Tensor, dilation: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The steps of ``x`` (B, T, C) that have neighbours, and each joined with its two neighbours."""
        span = x.shape[1] - 2 * dilation
        centre = x[:, dilation : dilation + span]
        return centre, torch.cat([x[:, :span], centre, x[:, 2 * dilation :]], 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.first(self.spliced(features))
        for dilation, squeeze, expand in zip(self.dilations, self.squeeze, self.expand, strict=True):
            centre, around = self.around(x, dilation)
            y = expand(squeeze(around))
            if self.training and self.dropout:  # whole channels, the same at all frames
                keep = torch.rand(len(y), 1, y.shape[2], dtype=y.dtype) >= self.dropout
                y = y * (keep / (1 - self.dropout)).to(y.dtype)
            x = centre + y
        return self.last(x)

    def exported(self) -> list[Affine]:
        """The layers with all normalisation folded in."""
        weight, bias = self.first.folded()
        mean, variance = self.input_norm.running_mean, self.input_norm.running_var
        assert mean is not None
        assert variance is not None
        repeats = 2 * INPUT_SPAN + 1
        scale = (variance.double() + self.input_norm.eps).rsqrt().repeat(repeats).numpy()
        shifted = bias - weight.astype(np.float64) @ (mean.double().repeat(repeats).numpy() * scale)
        layers = [
            Affine(
                tuple(range(-INPUT_SPAN, INPUT_SPAN + 1)),
                (weight * scale).astype("f4"),
                shifted.astype("f4"),
                True,
                False,
            )
        ]
        for dilation, squeeze, expand in zip(self.dilations, self.squeeze, self.expand, strict=True):
            step = SUBSAMPLING * dilation
            layers.append(Affine((-step, 0, step), *squeeze.folded(), True, False))
            layers.append(Affine((0,), *expand.folded(), True, True))
        last = (self.last.weight.detach().float().numpy(), self.last.bias.detach().float().numpy())
        return [*layers, Affine((0,), *last, relu=False, residual=False)]
