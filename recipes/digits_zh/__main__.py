"""Train the Mandarin digit model: ``python -m recipes.digits_zh --speech DIR --out models/digits-zh --minutes N``.

Run again with the same ``--work`` folder to resume. At every checkpoint the running average is written as a Vosk
model and heard on voices of espeak-ng that train nothing; the best one so far lies in ``--out``.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ivr.speech.mandarin import DIGITS
from ivr.speech.recogniser import Grammar
from recipes.digits import cards, evaluate, kaldi
from recipes.digits.evaluate import Spoken, edit_distance, mu_law
from recipes.digits.graphs import hmm
from recipes.digits.lexicon import UNKNOWN
from recipes.digits.network import Network
from recipes.digits.supply import Supply
from recipes.digits.train import Settings, Trainer, features_of

from . import synthetic
from .lexicon import MANDARIN
from .mixing import mixer_of

log = logging.getLogger("digits-zh")
SPEAKERS, SENTENCES = 110, 3600
DEVELOPMENT_STRINGS = 40
KEPT_BLOCKS = 3  # of seven


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.digits_zh", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="folder of recordings with manifests")
    parser.add_argument("--out", type=Path, default=Path("models/digits-zh"))
    parser.add_argument("--work", type=Path, default=Path("build/digits-zh"), help="checkpoints, synthetic speech")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time; resuming continues it")
    parser.add_argument("--start", type=Path, default=Path("models/digits"), help="the model that gives its layers")
    parser.add_argument("--id", default="digits-zh-1", help="model id in the manifest")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def strings(variants: tuple[str, ...], count: int, lengths: tuple[int, int], seed: int) -> list[Spoken]:
    """Numbers read by voices of espeak-ng, half of full scale, with 0.3 s of near silence around."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    spoken = []
    for voice in synthetic.voices(variants, count, rng):
        text, words = synthetic.number(rng, rng.randint(*lengths))
        samples = np.pad(0.55 * voice.say(text, rng.randint(120, 260)), 2400)
        samples = samples + noise.standard_normal(len(samples)) * 1e-4
        digits = "".join(DIGITS[w] for w in words)
        spoken.append(Spoken((samples * 32767).astype(np.int16), digits, voice.variant))
    return spoken


def digit_errors(network: Network, spoken: list[Spoken]) -> list[int]:
    """Digit errors of each utterance, in the loop of digits."""
    loop = hmm([(0, 0, w) for w in (*DIGITS, UNKNOWN)], MANDARIN)
    errors = []
    for s in spoken:
        heard = evaluate.best_words(network, mu_law(s.samples / 32768), loop).split()
        errors.append(edit_distance(s.digits, "".join(DIGITS.get(w, "") for w in heard)))
    return errors


class Checkpoints:
    """Writes what a training has reached and keeps the best on the development voices."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._spoken = strings(synthetic.DEVELOPMENT_VOICES, DEVELOPMENT_STRINGS, (4, 16), seed=3)
        self._best = 1.0

    def write(self, trainer: Trainer) -> None:
        trainer.save(self._args.work / "training.pt")
        network = trainer.averaged()
        errors = digit_errors(network, self._spoken)
        rate = sum(errors) / sum(len(s.digits) for s in self._spoken)
        exact = sum(e == 0 for e in errors)
        log.info("development: %.2f %% digit errors, %d of %d strings exact", 100 * rate, exact, len(errors))
        if rate <= self._best:
            self._best = rate
            kaldi.write_model(self._args.out, network.exported(), MANDARIN, kaldi.WIDE_CONF)
            cards.write(self._args.out, MANDARIN, Grammar.CARD.words("zh"))
            started = hashlib.sha256((self._args.start / "am/final.mdl").read_bytes()).hexdigest()
            training = {
                "minutes": round(trainer.elapsed_s / 60, 1),
                "updates": trainer.step,
                "started_from_final_mdl": started,
                "development_digit_error_rate": round(rate, 5),
                "development_strings": len(errors),
            }
            kaldi.write_manifest(self._args.out, self._args.id, training, MANDARIN)


def keep_lower_layers(network: Network) -> None:
    """Train the upper layers only: the lower ones know people and telephones, which synthetic speech would unlearn."""
    for layer in (network.first, *network.squeeze[:KEPT_BLOCKS], *network.expand[:KEPT_BLOCKS]):
        layer.requires_grad_(False)


def main() -> None:
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the other process ends, too
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    spoken_by_machine = args.work / "synthetic.npz"
    if not spoken_by_machine.exists():
        synthetic.generate(spoken_by_machine, SPEAKERS, SENTENCES)
    settings = Settings(args.minutes, batch=8, learning_rate=1e-3, flat_start_steps=100, average=0.99)
    trainer = Trainer(settings, MANDARIN)
    resumed = (args.work / "training.pt").exists()
    if resumed:
        trainer.resume(args.work / "training.pt")
    placed = max(0, settings.flat_start_steps - trainer.step)
    make_mixer = partial(mixer_of, args.speech, spoken_by_machine)
    supply = Supply(make_mixer, args.seed + trainer.step, settings.batch, placed, MANDARIN)
    if not resumed:
        trainer.start_from(args.start, torch.cat([features_of(supply.next()) for _ in range(8)]))
    keep_lower_layers(trainer.network)
    checkpoints = Checkpoints(args)
    written_s, losses = trainer.elapsed_s, []
    while not trainer.finished():
        losses.append(trainer.run_step(supply))
        if trainer.step % 50 == 0:
            log.info("%d updates, %.0f s, loss %.4f", trainer.step, trainer.elapsed_s, np.mean(losses))
            losses.clear()
        if trainer.elapsed_s - written_s >= settings.checkpoint_every_s:
            checkpoints.write(trainer)
            written_s = trainer.elapsed_s
    checkpoints.write(trainer)
    supply.close()


if __name__ == "__main__":
    main()
