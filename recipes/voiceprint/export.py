"""Writes a trained encoder as a folder that SpeechBrain's ``SpeakerRecognition.from_hparams`` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.voiceprint.train import Architecture
from voiceprint import manifest

MODEL_NAME = "ecapa-8k"
#: ECAPA-TDNN's last layer, a linear map to the embedding.
LAST = "fc.conv"

HYPERPARAMS = """\
# Speaker encoder for 8 kHz telephone speech, in the layout of speechbrain/spkrec-ecapa-voxceleb.
# Load with overrides={{"pretrained_path": FOLDER}}.
pretrained_path: .

compute_features: !new:speechbrain.lobes.features.Fbank
    sample_rate: {sample_rate}
    n_fft: {n_fft}
    n_mels: {n_mels}
    f_min: {f_min}
    f_max: {f_max}
    win_length: {win_length}
    hop_length: {hop_length}

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: {n_mels}
    channels: {channels}
    attention_channels: {attention_channels}
    res2net_scale: {res2net_scale}
    se_channels: {se_channels}
    lin_neurons: {lin_neurons}

# Named because SpeakerRecognition asks for it; embeddings are used without it.
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


def export(arch: Architecture, weights: dict[str, Any], model_dir: Path) -> manifest.Manifest:
    """Writes hyperparams.yaml, embedding_model.ckpt (a state dict) and the manifest that pins them."""
    model_dir.mkdir(parents=True, exist_ok=True)
    torch.save(weights, model_dir / manifest.WEIGHTS)
    fields = {**arch.__dict__, "channels": list(arch.channels)}
    (model_dir / "hyperparams.yaml").write_text(HYPERPARAMS.format(**fields), encoding="utf-8")
    return manifest.write(model_dir, MODEL_NAME, arch.sample_rate)


def averaged_weights(checkpoint: Path) -> dict[str, Any]:
    """The running average of a training checkpoint, named as the network names its weights."""
    average = torch.load(checkpoint, weights_only=True)["average"]
    return fold({key.removeprefix("module."): value for key, value in average.items()})


def fold(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a ``StandardisedEncoder`` as those of its network alone, giving the same embeddings."""
    deviation = torch.sqrt(encoder["standardise.running_var"] + 1e-5)
    network = {key.removeprefix("network."): w for key, w in encoder.items() if key.startswith("network.")}
    network[LAST + ".weight"] = network[LAST + ".weight"] / deviation[:, None, None]
    network[LAST + ".bias"] = (network[LAST + ".bias"] - encoder["standardise.running_mean"]) / deviation
    return network
