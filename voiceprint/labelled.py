"""Trials made of a deployer's own labelled recordings: who is compared with whom.

With sessions, a voice is enrolled on one call and tested on the others, which is what the telephone will ask; without,
on every second of its recordings against the rest, which flatters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voiceprint.backend import Cosine, Floats, Sides, compare
from voiceprint.calibration import CONTINUITY_QUALITY, QUALITY, Measured, Trials
from voiceprint.errors import ListError
from voiceprint.lists import Recording
from voiceprint.utterance import Utterance, unit

LEAST_SPEAKERS = 20
#: Strangers that each recording is compared with as if both were turns of one call.
_STRANGERS = 20
#: Trials compared at a time; bounds the memory.
_CHUNK = 50_000


@dataclass(frozen=True)
class Corpus:
    """Recordings with their embeddings; ``group`` numbers the sets that a voice is enrolled on."""

    speaker: NDArray[np.int64]
    group: NDArray[np.int64]
    heard: list[Utterance]
    in_sessions: bool

    @property
    def speakers(self) -> int:
        return len(np.unique(self.speaker))


def corpus(recordings: Sequence[Recording], heard: Sequence[Utterance]) -> Corpus:
    """Speakers with two sessions or, where no session is named at all, two recordings. Raises ListError if too few."""
    in_sessions = any(r.session for r in recordings)
    of: dict[str, dict[str, list[int]]] = {}
    for i, (recording, utterance) in enumerate(zip(recordings, heard, strict=True)):
        if CONTINUITY_QUALITY.objection([utterance]):
            continue
        sets = of.setdefault(recording.speaker, {})
        parity = str(sum(map(len, sets.values())) % 2)
        sets.setdefault(recording.session if in_sessions else parity, []).append(i)
    usable = [sets for sets in of.values() if len(sets) >= 2]
    if len(usable) < LEAST_SPEAKERS:
        what = "sessions" if in_sessions else "recordings"
        raise ListError(
            f"{len(usable)} speakers have two {what} that are long, clear and quiet enough; {LEAST_SPEAKERS} are needed"
        )
    rows = [(s, i, sets[name]) for s, sets in enumerate(usable) for i, name in enumerate(sets)]
    order = [i for _, _, members in rows for i in members]
    sizes = [len(members) for _, _, members in rows]
    return Corpus(
        np.repeat([s for s, _, _ in rows], sizes),
        np.repeat(np.arange(len(rows)), sizes),
        [heard[i] for i in order],
        in_sessions,
    )


def measure(found: Corpus, comparing: Cosine) -> Measured:
    """Trials of every recording against every set of recordings that it is not in, and pairs of recordings."""
    vectors = np.stack([u.vector for u in found.heard])
    seconds = np.array([u.net_speech_s for u in found.heard])
    starts = np.flatnonzero(np.r_[True, found.group[1:] != found.group[:-1]])
    prints = np.stack([unit(rows.mean(axis=0)) for rows in np.split(vectors, starts[1:])])
    clear = np.array([QUALITY.objection([u]) is None for u in found.heard])
    test, person = np.nonzero(clear[:, None] & (found.group[:, None] != np.arange(len(prints))))
    same = found.speaker[test] == found.speaker[starts][person]
    people, tested = comparing.sides(prints), comparing.sides(vectors)
    chunks = np.array_split(np.arange(len(test)), len(test) // _CHUNK + 1)
    score = np.concatenate([compare(people[person[c]], tested[test[c]]) for c in chunks])
    own = np.einsum("ij,ij->i", prints[person[same]], vectors[test[same]]).astype(np.float64)
    return Measured(Trials(score, seconds[test], same), _continuity(found, tested, seconds), own)


def _continuity(found: Corpus, tested: Sides, seconds: Floats) -> Trials:
    """Pairs of one session, or of one speaker where none is named, and of strangers, who had lines of their own."""
    rng = np.random.default_rng(11)
    of = found.group if found.in_sessions else found.speaker
    mates = [np.flatnonzero(of == number) for number in np.unique(of)]
    pairs = [(a, b) for rows in mates for i, a in enumerate(rows) for b in rows[i + 1 : i + 1 + _STRANGERS]]
    drawn = rng.integers(0, len(seconds), (len(seconds), _STRANGERS))
    strangers = [(a, b) for a, row in enumerate(drawn) for b in row if found.speaker[a] != found.speaker[b]]
    if not pairs:
        raise ListError("no session has two recordings, so turns of one call cannot be calibrated")
    one, other = np.array(pairs + strangers).T
    same = np.arange(len(one)) < len(pairs)
    return Trials(compare(tested[one], tested[other]), np.minimum(seconds[one], seconds[other]), same)
