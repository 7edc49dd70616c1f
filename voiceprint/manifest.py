"""Which files a model folder consists of, pinned by checksum.

A SpeechBrain folder is code as much as data: hyperparams.yaml can name any Python class and a checkpoint is
a pickle. So nothing is read from a folder before every file agrees with its ``manifest.json``.

    python -m voiceprint.manifest FOLDER MODEL_NAME SAMPLE_RATE   # pin a folder that you have checked
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from voiceprint.errors import ModelError

MANIFEST = "manifest.json"
#: The weights: they name the model, for embeddings of other weights cannot be compared.
WEIGHTS = "embedding_model.ckpt"
#: What a program reads; the model card may be reworded.
_PINNED_SUFFIXES = {".yaml", ".ckpt", ".txt", ".json", ".npz"}


@dataclass(frozen=True)
class Manifest:
    model_id: str
    sample_rate: int
    files: dict[str, str]


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(model_dir: Path, name: str, sample_rate: int) -> Manifest:
    """Pins the files of ``model_dir`` as they are now. The id is ``name`` with the weights' checksum."""
    names = sorted(p.name for p in model_dir.iterdir() if p.suffix in _PINNED_SUFFIXES and p.name != MANIFEST)
    files = {name: checksum(model_dir / name) for name in names}
    if WEIGHTS not in files:
        raise ModelError(f"{model_dir} has no {WEIGHTS}; it is not a SpeechBrain speaker model")
    manifest = Manifest(f"{name}-{files[WEIGHTS][:12]}", sample_rate, files)
    (model_dir / MANIFEST).write_text(json.dumps(manifest.__dict__, indent=2) + "\n", encoding="utf-8")
    return manifest


def add(model_dir: Path, manifest: Manifest, name: str, content: bytes) -> Manifest:
    """Writes one file of a verified folder and pins it; the other files stay pinned as they were.

    Cut off between the two, the folder is refused as altered until it is restored: better than half a change.
    """
    pinned = Manifest(manifest.model_id, manifest.sample_rate, dict(sorted({**manifest.files, name: ""}.items())))
    pinned.files[name] = hashlib.sha256(content).hexdigest()
    _replace(model_dir / name, content)
    _replace(model_dir / MANIFEST, (json.dumps(pinned.__dict__, indent=2) + "\n").encode())
    return pinned


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)


def verify(model_dir: Path) -> Manifest:
    """The manifest of ``model_dir``, once every file agrees with it; else ModelError, saying what to do."""
    if not model_dir.is_dir():
        raise ModelError(f"no model folder {model_dir}: set the path of a folder on this machine")
    try:
        manifest = Manifest(**json.loads((model_dir / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(
            f"{model_dir} has no {MANIFEST}: compare its files with their publisher's checksums,"
            f" then pin them with `python -m voiceprint.manifest {model_dir} NAME SAMPLE_RATE`"
        ) from None
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{model_dir / MANIFEST} is not a manifest; restore the folder from its source"
        ) from error
    for name, expected in manifest.files.items():
        if Path(name).name != name or not (model_dir / name).is_file():
            raise ModelError(
                f"{model_dir} lacks {name!r}, which its manifest names; restore the folder from its source"
            )
        if checksum(model_dir / name) != expected:
            raise ModelError(
                f"{model_dir / name} was altered (checksum differs); restore the folder from its source"
            )
    return manifest


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])).model_id)
