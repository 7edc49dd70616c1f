"""``voiceprint embed``: recordings to embeddings in NumPy's npz."""

from __future__ import annotations

from pathlib import Path

import click

from voiceprint.commands.common import PATH, embed_all, model_option
from voiceprint.encoder import Encoder
from voiceprint.recordings import Embeddings


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("--out", type=PATH, required=True, help="The npz file to write.")
@model_option
def command(files: tuple[str, ...], out: Path, model: Path) -> None:
    """Embed recordings (WAV, FLAC or Ogg, any rate) into one npz file, a row each."""
    encoder = Encoder.load(model)
    embeddings = Embeddings(encoder.model_id)
    embed_all(encoder, embeddings, files, Path())
    embeddings.save(out)
    click.echo(f"{len(files)} embeddings of {encoder.dim} numbers by {encoder.model_id} in {out}")
