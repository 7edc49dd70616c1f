"""Starting from a model that ships: its weights read back into a network that can be trained further.

So a deployer adds recordings of their own and trains for minutes, not hours.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .network import INPUT_SPAN, Affine, Layer, Network


def read_layers(final_mdl: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight (outputs, inputs) and bias (outputs,) of every affine layer in a file by :mod:`kaldi`."""
    layers, at = [], 0
    while (at := final_mdl.find(b"<LinearParams> FM ", at)) >= 0:
        at += len(b"<LinearParams> FM ")
        _, rows, _, columns = struct.unpack_from("<bibi", final_mdl, at)
        weight = np.frombuffer(final_mdl, "<f4", rows * columns, at + 10).reshape(rows, columns)
        at += 10 + weight.nbytes + len(b"<BiasParams> FV ") + 5
        layers.append((weight, np.frombuffer(final_mdl, "<f4", rows, at)))
    return layers


def averaged(layers: Sequence[Affine], folder: Path, share: float) -> list[Affine]:
    """``layers`` of a training that began with the model in ``folder``, with so large a ``share`` of that model.

    Of two networks that lie near each other the mean hears people whom neither has heard better than both do
    (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
    """
    return [
        replace(layer, weight=share * weight + (1 - share) * layer.weight, bias=share * bias + (1 - share) * layer.bias)
        for layer, (weight, bias) in zip(layers, read_layers((folder / "am/final.mdl").read_bytes()), strict=True)
    ]


def _adopt(layer: Layer, weight: np.ndarray, bias: np.ndarray, inputs: torch.Tensor) -> torch.Tensor:
    """Set ``layer`` so that it gives ReLU(weight x + bias) for ``inputs``, normalised by their statistics."""
    size = np.linalg.norm(weight, axis=1, keepdims=True) + 1e-6  # rows of one length train at one speed
    layer.affine.weight.data = torch.from_numpy(weight / size)
    y = layer.affine(inputs).flatten(0, 1)
    mean, variance = y.mean(0), y.var(0)
    assert layer.norm.running_mean is not None
    assert layer.norm.running_var is not None
    layer.norm.running_mean.copy_(mean)
    layer.norm.running_var.copy_(variance)
    scale = torch.from_numpy(size[:, 0])
    layer.norm.weight.data = (variance + layer.norm.eps).sqrt() * scale
    layer.norm.bias.data = torch.from_numpy(bias.copy()) + mean * scale
    return torch.relu(y * scale + torch.from_numpy(bias.copy())).view(*inputs.shape[:2], -1)


@torch.no_grad()
def start_from(network: Network, folder: Path, features: torch.Tensor) -> None:
    """Give ``network`` the weights of the model in ``folder``.

    ``features`` (B, T, 40), some hundred windows' cepstra: batch-norm's statistics were folded into the weights
    and are measured anew. A model of other words gives all but its last layer. Raises ValueError when the model has
    another shape.
    """
    layers = read_layers((folder / "am/final.mdl").read_bytes())
    shapes = [p.affine.weight.shape for p in network.modules() if isinstance(p, Layer)] + [network.last.weight.shape]
    if sorted(w.shape for w, _ in layers[:-1]) != sorted(tuple(s) for s in shapes[:-1]):
        raise ValueError(f"{folder} holds a network of another shape")
    mean, variance = features.flatten(0, 1).mean(0), features.flatten(0, 1).var(0)
    assert network.input_norm.running_mean is not None
    assert network.input_norm.running_var is not None
    network.input_norm.running_mean.copy_(mean)
    network.input_norm.running_var.copy_(variance)
    repeats = 2 * INPUT_SPAN + 1
    deviation = (variance + network.input_norm.eps).sqrt().repeat(repeats).numpy()
    weight, bias = layers[0]
    layers[0] = (weight * deviation, bias + weight @ mean.repeat(repeats).numpy())
    remaining = iter(layers)
    x = _adopt(network.first, *next(remaining), network.spliced(features))
    for dilation, squeeze, expand in zip(network.dilations, network.squeeze, network.expand, strict=True):
        centre, around = network.around(x, dilation)
        assert isinstance(squeeze, Layer)
        assert isinstance(expand, Layer)
        y = _adopt(squeeze, *next(remaining), around)
        x = centre + _adopt(expand, *next(remaining), y)
    weight, bias = next(remaining)
    if len(weight) != len(network.last.weight):
        return
    network.last.weight.data = torch.from_numpy(weight.copy())
    network.last.bias.data = torch.from_numpy(bias.copy())
