"""Which speakers no training may hear.

The rule is a hash of the speaker id, so that it holds over all folders (a Speech Commands speaker
appears in three of them) and cannot be bent to the results. ``recipes/heldout.txt`` is the rule
applied to the recordings at hand; it was committed before the first training, and trainings refuse
any manifest row whose speaker :func:`is_held_out` says is held out.

    python -m recipes.heldout SPEECH_DIR   # writes recipes/heldout.txt
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

HELD_OUT_FILE = Path(__file__).with_name("heldout.txt")

#: Per cent of speakers held out of a folder; every folder not named here: DEFAULT_PERCENT.
#: FSDD is for tests only (six speakers, share-alike licence), and so are recordings without speaker ids.
PERCENT = {"fsdd": 100, "picovoice_barista_oov": 100, "phone_numbers": 30, "digit_strings_mx": 30, "noise_rir": 30}
DEFAULT_PERCENT = 12


def bucket(speaker: str) -> int:
    """0..99, the same on every machine and for ever."""
    return int(hashlib.sha256(speaker.encode()).hexdigest()[:8], 16) % 100


def speaker_id(row: dict[str, str]) -> str:
    """The speaker of a manifest row; noise recordings have none and go by their path."""
    return row["speaker"] or row["path"]


def is_held_out(folder: str, speaker: str) -> bool:
    """Whether ``speaker`` of the corpus ``folder`` belongs to the held-out set."""
    return bucket(speaker) < PERCENT.get(folder, DEFAULT_PERCENT)


def rows(speech_dir: Path, folder: str) -> Iterator[dict[str, str]]:
    """The rows of ``speech_dir/folder/manifest.tsv``, each with ``file`` (a Path) and ``held_out`` added."""
    with open(speech_dir / folder / "manifest.tsv", newline="", encoding="utf-8") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            yield row | {
                "file": speech_dir / folder / row["path"],
                "held_out": is_held_out(folder, speaker_id(row)),
            }


def training_rows(speech_dir: Path, folder: str) -> list[dict[str, str]]:
    """What a training may read of a corpus: no row of a held-out speaker, by the rule or by the committed list."""
    listed = set(HELD_OUT_FILE.read_text(encoding="utf-8").split())
    return [r for r in rows(speech_dir, folder) if not r["held_out"] and speaker_id(r) not in listed]


def main(speech_dir: Path) -> None:
    folders = sorted(p.parent.name for p in speech_dir.glob("*/manifest.tsv"))
    held = {
        speaker_id(r)
        for folder in folders
        for r in rows(speech_dir, folder)
        if r["held_out"] and speaker_id(r) != "unknown"
    }
    HELD_OUT_FILE.write_text("\n".join(sorted(held)) + "\n", encoding="utf-8")
    print(f"{len(held)} held-out ids written to {HELD_OUT_FILE}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
