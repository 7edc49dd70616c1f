"""Trains, exports and calibrates the speaker encoder; goes on from its checkpoint if cut off."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from recipes.voiceprint.backend import fit_backend, labelled_embeddings
from recipes.voiceprint.calibrate import calibrate, rounds_of_calls
from recipes.voiceprint.data import CropSampler, load_noises, load_speakers
from recipes.voiceprint.export import averaged_weights, export
from recipes.voiceprint.train import Architecture, Schedule, Trainer, train
from voiceprint import Encoder, backend


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.voiceprint", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings, one corpus a folder")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--minutes", type=float, default=90, help="time of the training itself")
    parser.add_argument("--checkpoint", type=Path, default=Path("work/voiceprint.pt"))
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint as it is, without training")
    args = parser.parse_args()

    torch.set_flush_denormal(True)  # of this whole process: subnormal numbers slow the training
    arch = Architecture()
    speakers, development = load_speakers(args.speech)
    noises = load_noises(args.speech)
    if not args.export_only:
        sampler = CropSampler(speakers)
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        print(
            f"{len(sampler.speakers)} speakers, {sampler.classes} classes with speeds;"
            f" {len(development)} speakers set aside"
        )
        train(Trainer(arch, Schedule(args.minutes), sampler.classes, args.checkpoint), sampler, noises)
    export(arch, averaged_weights(args.checkpoint), args.out)
    encoder = Encoder.load(args.out)
    backend.save(args.out, fit_backend(*labelled_embeddings(encoder, speakers, noises)))
    print(json.dumps(calibrate(args.out, rounds_of_calls(encoder, development, noises)), indent=2))


if __name__ == "__main__":
    main()
