"""``voiceprint calibrate``: calibration and threshold of a model by a deployer's own recordings."""

from __future__ import annotations

from pathlib import Path

import click

from voiceprint import backend
from voiceprint.calibration import FALSE_MATCH_RATE, write
from voiceprint.commands.common import PATH, cache_option, embed_cached, root_option
from voiceprint.encoder import Encoder
from voiceprint.labelled import corpus, measure
from voiceprint.lists import read_manifest
from voiceprint.manifest import verify


@click.command()
@click.argument("manifest", type=PATH)
@click.option("--model", type=PATH, required=True, help="Model folder to write calibration.json into.")
@click.option(
    "--false-match-rate",
    type=click.FloatRange(1e-6, 0.5),
    default=FALSE_MATCH_RATE,
    show_default="1 in 3,000",
    help="The share of impostor trials that may pass at the threshold.",
)
@root_option
@cache_option
def command(manifest: Path, model: Path, false_match_rate: float, root: Path, cache: Path | None) -> None:
    """Calibrate by MANIFEST: recordings of your own callers, with the columns speaker, file and perhaps session."""
    encoder = Encoder.load(model)
    recordings = read_manifest(manifest)
    heard = embed_cached(encoder, [*dict.fromkeys(r.file for r in recordings)], root, cache)
    found = corpus(recordings, [heard[r.file] for r in recordings])
    across = "enrolled on one session and tested on others" if found.in_sessions else "of one session each"
    written = write(
        model,
        measure(found, backend.load(model, verify(model))),
        speakers=found.speakers,
        material=f"the deployer's own: {len(found.heard)} recordings of {found.speakers} speakers, {across}",
        false_match_rate=false_match_rate,
    )
    counts = written["verification"]["all"]
    threshold = written["verification"]["calibration"]["threshold"]
    click.echo(
        f"threshold {threshold} nats: {counts['genuine_rejected']} of {counts['genuine']} genuine trials fail,"
        f" {counts['impostor_accepted']} of {counts['impostor']} impostor trials pass"
    )
    if not found.in_sessions:
        click.echo("no sessions were named: expect more failures on another day and telephone", err=True)
