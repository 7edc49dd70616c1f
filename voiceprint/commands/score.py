"""``voiceprint score``: a list of trials to log-likelihood ratios."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from voiceprint.commands.common import PATH, cache_option, embed_cached, model_option, progress, root_option
from voiceprint.encoder import Encoder
from voiceprint.errors import ListError
from voiceprint.lists import Trials, read_enrolment, read_trials
from voiceprint.scoring import Scorer
from voiceprint.utterance import Utterance, Voiceprint

#: Trials scored at a time; bounds the memory.
_CHUNK = 50_000


@click.command()
@click.option("--enrol", "enrolment", type=PATH, required=True, help="Lines of model, file; several a model.")
@click.option("--trials", type=PATH, required=True, help="Lines of model, file, perhaps target or nontarget.")
@click.option("--out", type=PATH, required=True, help="Lines of model, file, llr, and the label if there was one.")
@model_option
@root_option
@cache_option
def command(enrolment: Path, trials: Path, out: Path, model: Path, root: Path, cache: Path | None) -> None:
    """Score trials: every file is embedded once, then all trials are scored together."""
    models, listed = read_enrolment(enrolment), read_trials(trials)
    unknown = next((name for name in listed.models if name not in models), None)
    if unknown is not None:
        raise ListError(f"{trials}: {unknown!r} is not enrolled in {enrolment}")
    encoder, scorer = Encoder.load(model), Scorer.load(model)
    files = [*dict.fromkeys([*(f for name in listed.models for f in models[name]), *listed.files])]
    heard = embed_cached(encoder, files, root, cache)
    people = [_person([heard[file] for file in models[name]]) for name in listed.models]
    tested = [heard[file] for file in listed.files]
    _write(out, listed, _score(scorer, people, tested, listed))
    poor = sum(scorer.quality.objection([utterance]) is not None for utterance in tested)
    click.echo(f"{len(listed.model)} scores in {out}", err=True)
    if poor:
        click.echo(
            f"{poor} of {len(tested)} tested files are too short, noisy or clipped to decide by: in a call they"
            " would be inconclusive",
            err=True,
        )


def _person(utterances: list[Utterance]) -> Voiceprint:
    """A model of a trial list: as enrolled, but however many and however good its recordings are."""
    seconds = sum(u.net_speech_s for u in utterances)
    return Voiceprint(np.stack([u.vector for u in utterances]), utterances[0].model_id, seconds)


def _score(scorer: Scorer, people: list[Voiceprint], tested: list[Utterance], trials: Trials) -> np.ndarray:
    """The llr of every line of the list."""
    pairs = scorer.pairs(people, tested)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(trials.model), _CHUNK)]
    with progress(chunks, f"scoring {len(trials.model)} trials") as bar:
        return np.concatenate([pairs.llr(trials.model[chunk], trials.file[chunk]) for chunk in bar])


def _write(out: Path, trials: Trials, llr: np.ndarray) -> None:
    """Beside, then renamed: an interrupted run leaves no half list."""
    partial = out.with_name(out.name + ".part")
    names = None if trials.same is None else np.where(trials.same, "\ttarget", "\tnontarget")
    with open(partial, "w", encoding="utf-8") as lines:
        for i, (model, file) in enumerate(zip(trials.model.tolist(), trials.file.tolist(), strict=True)):
            label = names[i] if names is not None else ""
            lines.write(f"{trials.models[model]}\t{trials.files[file]}\t{llr[i]:.4f}{label}\n")
    partial.replace(out)
