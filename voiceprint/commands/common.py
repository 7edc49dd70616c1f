"""What the commands share: which model, which files, and how far they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from voiceprint.encoder import Encoder
from voiceprint.errors import RecordingError
from voiceprint.recordings import Embeddings
from voiceprint.utterance import Utterance

T = TypeVar("T")

_PACKAGE = Path(__file__).parents[1]
#: The shipped model: in a checkout, or where the wheel put it.
_SHIPPED = (_PACKAGE.parent / "models" / "voice", _PACKAGE.parent / "ivr" / "_shipped" / "models" / "voice")

#: A file or folder of the command line.
PATH = click.Path(path_type=Path)

model_option = click.option(
    "--model",
    type=PATH,
    required=True,
    envvar="VOICEPRINT_MODEL",
    default=lambda: next((str(folder) for folder in _SHIPPED if folder.is_dir()), None),
    show_default="the shipped model",
    help="Model folder in SpeechBrain's layout.",
)
root_option = click.option(
    "--root", type=PATH, default=Path(), help="Folder that the names of files in lists are relative to."
)
cache_option = click.option(
    "--cache", type=PATH, help="An npz file to keep embeddings in between runs; without it they are forgotten."
)


@contextmanager
def progress(items: Sequence[T], what: str) -> Iterator[Iterable[T]]:
    """A bar on standard error, on a terminal; elsewhere its title only."""
    with click.progressbar(items, label=what, file=sys.stderr, show_pos=True) as bar:
        yield bar


def embed_all(encoder: Encoder, known: Embeddings, files: Sequence[str], root: Path) -> dict[str, Utterance]:
    """Every file's utterance. Raises RecordingError at one that cannot be used; of missing ones before all work."""
    missing = [file for file in files if not (root / file).is_file()]
    if missing:
        raise RecordingError(f"{root / missing[0]}: there is no such file ({len(missing)} of {len(files)} are missing)")
    with progress(files, f"embedding {len(files)} files") as bar:
        return {file: known.embed(encoder, file, root / file) for file in bar}


def embed_cached(encoder: Encoder, files: Sequence[str], root: Path, cache: Path | None) -> dict[str, Utterance]:
    """Every file's utterance, found in or added to the ``cache`` if the user named one."""
    known = Embeddings.load(cache, encoder.model_id) if cache else Embeddings(encoder.model_id)
    heard = embed_all(encoder, known, files, root)
    if cache:
        known.save(cache)
    return heard
