"""Train the digit model: ``python -m recipes.digits --speech DIR --out models/digits --minutes N``.

Run again with the same ``--work`` folder to resume. At every checkpoint the running average is written as a
Vosk model and heard on development speakers; the best one so far lies in ``--out``.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import cards, clips, evaluate, features, fluent, kaldi, synthetic, warm
from .mixing import Mixer
from .supply import Supply
from .train import Settings, Trainer

log = logging.getLogger("digits")
SYNTHETIC_SENTENCES = 6000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.digits", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of recordings with manifests")
    parser.add_argument("--own", type=Path, help="folder of further recordings with a manifest.tsv; see clips.load")
    parser.add_argument("--out", type=Path, default=Path("models/digits"))
    parser.add_argument("--work", type=Path, default=Path("build/digits"), help="checkpoints, synthetic speech")
    parser.add_argument("--minutes", type=float, default=80.0, help="training time; resuming continues it")
    parser.add_argument("--start", type=Path, help="begin with the weights of this model, not with random ones")
    parser.add_argument("--keep", type=float, default=0.5, help="with --start: its share in the weights that ship")
    parser.add_argument("--id", default="digits-1", help="model id in the manifest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the training; another process makes examples")
    return parser.parse_args()


class Checkpoints:
    """Writes what a training has reached and keeps the best on the development set."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        development = clips.load(args.speech, development=True)
        self._spoken = evaluate.development_set(development)
        self._best = 1.0

    def write(self, trainer: Trainer) -> None:
        trainer.save(self._args.work / "training.pt")
        network = trainer.averaged()
        errors = evaluate.digit_errors(network, self._spoken)
        rate = sum(errors) / sum(len(s.digits) for s in self._spoken)
        exact = sum(e == 0 for e in errors)
        log.info("development: %.2f %% digit errors, %d of %d strings exact", 100 * rate, exact, len(errors))
        if rate <= self._best:
            self._best = rate
            layers = network.exported()
            if self._args.start:
                layers = warm.averaged(layers, self._args.start, self._args.keep)
            kaldi.write_model(self._args.out, layers)
            cards.write(self._args.out)
            training = {
                "minutes": round(trainer.elapsed_s / 60, 1),
                "updates": trainer.step,
                "development_digit_error_rate": round(rate, 5),
                "development_strings": len(errors),
            }
            kaldi.write_manifest(self._args.out, self._args.id, training)


def mixer_of(
    speech: Path, own: Path | None, synthetic_path: Path, words: list[fluent.Places], rng: np.random.Generator
) -> Mixer:
    """What a training hears. ``words``: where those of the corpus's fluent numbers lie, if that is known."""
    corpus = clips.load(speech, own=own)
    corpus.fluent = fluent.cut(corpus.numbers, words) if words else []
    return Mixer(corpus, synthetic.load(synthetic_path), rng)


def main() -> None:
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the other process ends, too
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    spoken_by_machine = args.work / "synthetic.npz"
    if not spoken_by_machine.exists():
        synthetic.generate(SYNTHETIC_SENTENCES, spoken_by_machine)
    settings = Settings(args.minutes)
    if args.start:  # no flat start, and steps that do not throw away what is known
        settings = Settings(args.minutes, learning_rate=6e-4, plateau=0.15, flat_start_steps=0)
    trainer = Trainer(settings)
    corpus = clips.load(args.speech, own=args.own)
    words: list[fluent.Places] = []
    if (args.work / "training.pt").exists():
        trainer.resume(args.work / "training.pt")
    elif args.start:
        mixer = Mixer(corpus, synthetic.load(spoken_by_machine), np.random.default_rng(args.seed))
        windows = torch.from_numpy(np.stack([mixer.example().samples for _ in range(128)]))
        trainer.start_from(args.start, features.mfcc(windows))
    if trainer.step or args.start:  # a network that knows words finds them in fluent numbers
        words = [fluent.align(trainer.averaged(), digits, clip) for digits, clip in corpus.numbers]
        log.info("%d words in %d fluent numbers", sum(map(len, words)), len(words))
    placed = max(0, settings.flat_start_steps - trainer.step)
    make_mixer = partial(mixer_of, args.speech, args.own, spoken_by_machine, words)
    supply = Supply(make_mixer, args.seed + trainer.step, settings.batch, placed)
    checkpoints = Checkpoints(args)
    written_s, losses = trainer.elapsed_s, []
    while not trainer.finished():
        losses.append(trainer.run_step(supply))
        if trainer.step % 100 == 0:
            used = f"{supply.made} batches made, {supply.reused} used again"
            log.info("%d updates, %.0f s, loss %.4f; %s", trainer.step, trainer.elapsed_s, np.mean(losses), used)
            losses.clear()
        if trainer.elapsed_s - written_s >= settings.checkpoint_every_s:
            checkpoints.write(trainer)
            written_s = trainer.elapsed_s
    checkpoints.write(trainer)
    supply.close()


if __name__ == "__main__":
    main()
