"""``voiceprint report``: error rates of labelled scores."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from voiceprint import plots
from voiceprint.commands.common import PATH
from voiceprint.lists import read_scores, with_speakers
from voiceprint.metrics import figures
from voiceprint.report import report


@click.command()
@click.argument("scores", type=PATH)
@click.option("--plots", "folder", type=PATH, help="Folder to write det.png and histogram.png into.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--resamples", type=click.IntRange(50), default=200, show_default=True, help="Draws of the bootstrap."
)
def command(scores: Path, folder: Path | None, as_json: bool, resamples: int) -> None:
    """Error rates of SCORES, lines of model, file, llr and target or nontarget, whatever system made them."""
    trials = with_speakers(scores, *read_scores(scores))
    drawn = plots.draw(trials, folder) if folder else []
    found = figures(trials, resamples)
    if as_json:
        counts = {
            "genuine": trials.genuine, "impostor": trials.impostor, "speakers": trials.speakers,
            "impostor_pairs": trials.impostor_pairs,
        }  # fmt: skip
        click.echo(json.dumps(counts | asdict(found), indent=2))
    else:
        click.echo(report(trials, found))
    for path in drawn:
        click.echo(f"wrote {path}", err=True)
