"""Words that a model which ships does not know yet, learnt from synthetic speech; the others are heard as before.

``python -m recipes.digits.words confirm pay --speech DIR --model models/digits`` trains only the rows of the last layer
that score the states of the new words, which stand last in the lexicon. A grammar without them gives the same scores
after as before, so nothing that was measured on the model has to be measured again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import cards, clips, features, graphs, kaldi, synthetic, warm
from .lexicon import COMMAND_COST, ENGLISH, UNKNOWN, Lexicon
from .lfmmi import HmmBatch, log_sum
from .mixing import Mixer
from .network import Affine, Network
from .supply import Sample, to_sample
from .train import features_of

BATCH, UPDATES, LEARNING_RATE = 16, 800, 0.01
SENTENCES = 2000
#: Of the examples. People's single words that are none of ours, and what the model was trained on, are the others: the
#: new words are known from machines alone, and must not be heard where people say something else.
SPOKEN_SHARE, UNKNOWN_SHARE = 0.45, 0.3
#: What else is said where these are, and what sounds like them.
BESIDE = ("yes", "no", "cancel")
REFUSALS = ("don't", "do not", "I don't", "I will not", "I do not want to", "I never", "you should not", "never")
OTHERS = (
    *("payment", "paper", "say", "day", "okay", "away", "they", "play", "paint", "may", "pain", "bay", "pate", "hey"),
    *("maybe", "today", "page", "april", "repay", "firm", "form", "conform", "conference", "confer", "come on"),
    *("comfort", "inform", "confuse", "continue", "concern", "company", "um", "uh let me see", "wait", "hello"),
    *("I don't know", "what was that", "not now", "sure", "fine", "thanks", "of course", "never mind"),
)


def sentence(rng: random.Random, new: Sequence[str]) -> synthetic.Sentence:
    """An answer with the new words or beside them, or something else."""
    if rng.random() < 0.35:
        return ", ".join(rng.sample(OTHERS, rng.choice([1, 1, 2, 3]))), [UNKNOWN]
    if rng.random() < 0.2:
        before, word = rng.choice(REFUSALS), rng.choice(new)
        return f"{before} {word}", [UNKNOWN, word]
    words = rng.choices([*new, *BESIDE], k=rng.choice([1, 1, 1, 2, 3]))
    return rng.choice([", ", " "]).join(words), words


class Rows(nn.Module):
    """The last layer: ``weight`` (pdfs, inputs) and ``bias`` (pdfs,) that stay, and so many ``new`` rows to be learnt.

    These begin as the mean of the rows ``like``, those of other speech.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, like: Sequence[int], new: int) -> None:
        super().__init__()
        self.register_buffer("_weight", weight)
        self.register_buffer("_bias", bias)
        self.weight = nn.Parameter(weight[list(like)].mean(0).repeat(new, 1))
        self.bias = nn.Parameter(bias[list(like)].mean().repeat(new) - 1)

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([self._weight, self.weight]), torch.cat([self._bias, self.bias])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, *self.whole())


def train(model: Path, mixer: Mixer, updates: int, lexicon: Lexicon = ENGLISH) -> list[Affine]:
    """The layers of ``model`` with further rows in the last one, for the states that it does not score yet."""
    network = Network(lexicon=lexicon)
    first = torch.stack([torch.from_numpy(mixer.example().samples) for _ in range(64)])
    warm.start_from(network, model, features.mfcc(first))
    known = warm.read_layers((model / "am/final.mdl").read_bytes())
    weight, bias = map(torch.from_numpy, map(np.copy, known[-1]))
    like = [lexicon.pdf_id[state] for state in lexicon.states[UNKNOWN]]
    rows = Rows(weight, bias, like, len(lexicon.pdfs) - len(weight))
    network.eval()
    layers = network.exported()
    network.last = nn.Identity()  # type: ignore[assignment]
    denominator = HmmBatch([graphs.loop(lexicon)])
    optimiser = torch.optim.Adam(rows.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    losses: list[float] = []
    for step, batch in zip(range(1, updates + 1), _batches(mixer, lexicon), strict=False):
        with torch.no_grad():
            inputs = network(features_of(batch))
        scores = rows(inputs)
        excess = log_sum(scores, denominator) - log_sum(scores, HmmBatch([s.numerator for s in batch]))
        kept = excess[excess < 400]  # as in train.Trainer: what cannot be aligned would drown the others
        loss = kept.sum() / len(batch) / scores.shape[1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            print(f"{step} of {updates} updates, loss {np.mean(losses):.4f}", flush=True)
            losses.clear()
    weight, bias = rows.whole()
    known[-1] = weight.detach().numpy(), bias.detach().numpy()
    return [replace(layer, weight=w, bias=b) for layer, (w, b) in zip(layers, known, strict=True)]


def _batches(mixer: Mixer, lexicon: Lexicon) -> Iterator[list[Sample]]:
    rng = np.random.default_rng(3)
    kinds = (mixer.spoken, mixer.unknown, mixer.example)
    shares = (SPOKEN_SHARE, UNKNOWN_SHARE, 1 - SPOKEN_SHARE - UNKNOWN_SHARE)
    while True:
        yield [to_sample(kinds[kind](), lexicon) for kind in rng.choice(3, BATCH, p=shares)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.digits.words", description=__doc__)
    parser.add_argument("new", nargs="+", help="the words, as in the lexicon")
    parser.add_argument("--speech", type=Path, required=True, help="folder of recordings with manifests")
    parser.add_argument("--model", type=Path, default=Path("models/digits"), help="is changed in place")
    parser.add_argument("--id", help="the model's new id in the manifest")
    parser.add_argument("--work", type=Path, default=Path("build/words"))
    parser.add_argument("--updates", type=int, default=UPDATES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    manifest = json.loads((args.model / "manifest.json").read_text())
    if list(ENGLISH.words) != [*manifest["words"], *args.new]:
        parser.error(f"the lexicon must have these words last, and before them those of {args.model}")
    args.work.mkdir(parents=True, exist_ok=True)
    spoken = args.work / "synthetic.npz"
    if not spoken.exists():
        synthetic.generate(SENTENCES, spoken, make=lambda rng: sentence(rng, args.new))
    mixer = Mixer(clips.load(args.speech), synthetic.load(spoken), np.random.default_rng(1))
    # In training they cost what commands do; what they cost beyond that in use makes them rarer than they were there.
    as_commands = replace(ENGLISH, extra_cost=ENGLISH.extra_cost | dict.fromkeys(args.new, COMMAND_COST))
    layers = train(args.model, mixer, args.updates, as_commands)
    confidence = (args.model / kaldi.CONFIDENCE).read_bytes()  # of digits, which are heard as before
    kaldi.write_model(args.model, layers)
    (args.model / kaldi.CONFIDENCE).write_bytes(confidence)
    cards.write(args.model)
    training = manifest["training"] | {"words_added": args.new}
    kaldi.write_manifest(args.model, args.id or manifest["id"], training)


if __name__ == "__main__":
    main()
