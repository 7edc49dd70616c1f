"""Trains, exports and calibrates the speaker encoder; goes on from its checkpoint if cut off."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.voiceprint.backend import fit_backend, labelled_embeddings
from recipes.voiceprint.calibrate import calibrate, rounds_of_calls
from recipes.voiceprint.data import CropSampler, load_noises, load_speakers
from recipes.voiceprint.export import averaged_weights, export, weights_of
from recipes.voiceprint.teacher import targets
from recipes.voiceprint.train import Architecture, Schedule, Trainer, train
from voiceprint import Encoder, backend


def taught(sampler: CropSampler, cache: Path) -> NDArray[np.float32]:
    """The teacher's embeddings of all classes, which take some minutes, kept beside the checkpoint."""
    if not cache.exists():
        np.save(cache, targets(sampler))
    kept: NDArray[np.float32] = np.load(cache)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.voiceprint", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the recordings, one corpus a folder")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--crops", type=int, default=250_000, help="how much to train: 45 crops a second of one core")
    parser.add_argument("--start", type=Path, help="model folder whose weights are trained further")
    parser.add_argument("--checkpoint", type=Path, default=Path("work/voiceprint.pt"))
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint as it is, without training")
    args = parser.parse_args()

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
        schedule = Schedule.further(args.crops) if args.start else Schedule(args.crops)
        trainer = Trainer(arch, schedule, taught(sampler, args.checkpoint.with_suffix(".teacher.npy")), args.checkpoint)
        if args.start and not trainer.crops:
            trainer.start_from(weights_of(args.start), sampler, noises)
        train(trainer, sampler, noises)
    export(arch, averaged_weights(args.checkpoint), args.out)
    encoder = Encoder.load(args.out)
    backend.save(args.out, fit_backend(*labelled_embeddings(encoder, speakers, noises)))
    print(json.dumps(calibrate(args.out, rounds_of_calls(encoder, development, noises)), indent=2))


if __name__ == "__main__":
    main()
