"""The text files of the commands: enrolment lists, trial lists, scores, manifests. One record a line, tabs between.

    enrolment   model<TAB>file                     several lines a model
    trials      model<TAB>file[<TAB>label]         label: target or nontarget
    scores      model<TAB>file<TAB>llr[<TAB>label]
    manifest    a header naming the columns speaker and file, and session if there are any

A million lines are held as numbers; the names are kept once.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voiceprint.errors import ListError
from voiceprint.metrics import TrialScores

Indices = NDArray[np.int64]
_LABELS = {"target": True, "nontarget": False}


@dataclass(frozen=True)
class Trials:
    """Line i compares ``files[file[i]]`` with ``models[model[i]]``; ``same`` is None for an unlabelled list."""

    models: list[str]
    files: list[str]
    model: Indices
    file: Indices
    same: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Recording:
    """A line of a manifest; ``session`` is empty where the manifest names none."""

    speaker: str
    file: str
    session: str


def read_enrolment(path: Path) -> dict[str, list[str]]:
    """The files of each model, in order. Raises ListError, as all readers here do."""
    models: dict[str, list[str]] = {}
    for _, (model, file) in _rows(path, 2, 2):
        models.setdefault(model, []).append(file)
    return models


def read_trials(path: Path) -> Trials:
    """A trial list; either every line has a label or none."""
    trials, _ = _read(path, scored=False)
    return trials


def read_scores(path: Path) -> tuple[Trials, NDArray[np.float64]]:
    """What ``voiceprint score`` wrote, or any system that gives log-likelihood ratios: trials and scores."""
    return _read(path, scored=True)


def read_manifest(path: Path) -> list[Recording]:
    """Labelled recordings; columns other than speaker, file and session are left alone."""
    recordings = []
    try:
        with open(path, newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not {"speaker", "file"} <= set(reader.fieldnames or ()):
                raise ListError(f"{path}:1: a manifest begins with a line that names the columns speaker and file")
            for row in reader:
                if not row["speaker"] or not row["file"]:
                    raise ListError(f"{path}:{reader.line_num}: no speaker or no file")
                recordings.append(Recording(row["speaker"], row["file"], row.get("session") or ""))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    return recordings


def with_speakers(path: Path, trials: Trials, llr: NDArray[np.float64]) -> TrialScores:
    """Labelled trials with the speaker behind every model and file.

    A target trial says that its model and its file are one speaker, and so do chains of them; a file that is in no
    target trial counts as a speaker of its own. Raises ListError if the labels contradict each other.
    """
    if trials.same is None or not trials.same.any() or trials.same.all():
        raise ListError(f"{path}: a report needs lines labelled target and lines labelled nontarget")
    models, nodes = len(trials.models), len(trials.models) + len(trials.files)
    one, other = trials.model[trials.same], trials.file[trials.same] + models
    links = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(nodes, nodes))
    speaker = connected_components(links, directed=False)[1].astype(np.int64)
    enrolled, tested = speaker[trials.model], speaker[trials.file + models]
    wrong = np.flatnonzero((enrolled == tested) & ~trials.same)
    if len(wrong):
        line = int(wrong[0])
        raise ListError(
            f"{path}: {trials.models[trials.model[line]]!r} and {trials.files[trials.file[line]]!r} are labelled"
            " nontarget, though target lines make them one speaker"
        )
    return TrialScores(llr, trials.same, enrolled, tested)


def _read(path: Path, *, scored: bool) -> tuple[Trials, NDArray[np.float64]]:
    models: dict[str, int] = {}
    files: dict[str, int] = {}
    model, file, llr, same = [], [], [], []
    least = 3 if scored else 2
    for number, fields in _rows(path, least, least + 1):
        model.append(models.setdefault(fields[0], len(models)))
        file.append(files.setdefault(fields[1], len(files)))
        if scored:
            llr.append(_number(path, number, fields[2]))
        if len(fields) > least:
            if fields[-1] not in _LABELS:
                raise ListError(f"{path}:{number}: {fields[-1]!r} is neither target nor nontarget")
            same.append(_LABELS[fields[-1]])
    if same and len(same) != len(model):
        raise ListError(f"{path}: either every line has a label or none")
    labels = np.array(same, bool) if same else None
    trials = Trials([*models], [*files], np.array(model, np.int64), np.array(file, np.int64), labels)
    return trials, np.array(llr, np.float64)


def _number(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ListError(f"{path}:{number}: {text!r} is no score")
    return value


def _rows(path: Path, least: int, most: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Numbered lines as fields, at least one of them; blank lines are left out."""
    empty = True
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                fields = line.rstrip("\r\n").split("\t")
                if not least <= len(fields) <= most or not all(fields):
                    raise ListError(f"{path}:{number}: {least} to {most} fields with tabs between are wanted")
                empty = False
                yield number, fields
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    if empty:
        raise ListError(f"{path}: nothing in it")


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> ListError:
    reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
    return ListError(f"{path}: {reason}")
