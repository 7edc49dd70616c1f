"""What the commands share: which model, which files, and how far they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from voiceprint.encoder import Encoder
from voiceprint.recordings import Embeddings
from voiceprint.utterance import Utterance

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


@contextmanager
def progress(items: Iterable[str], what: str, length: int) -> Iterator[Iterable[str]]:
    """A bar on standard error, on a terminal; elsewhere its title only."""
    with click.progressbar(items, length=length, label=what, file=sys.stderr, show_pos=True) as bar:
        yield bar


def embed_all(encoder: Encoder, known: Embeddings, files: list[str], root: Path) -> list[tuple[str, Utterance]]:
    """(checksum, utterance) of every file, in order. Raises RecordingError at the first that cannot be used."""
    with progress(files, f"embedding {len(files)} files", len(files)) as bar:
        return [known.embed(encoder, root / file) for file in bar]
