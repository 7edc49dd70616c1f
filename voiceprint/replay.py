"""Whether an utterance was heard before: a fingerprint of past utterances that a recording of one runs into.

What is said lies in the envelope of the spectrum and in its loudness; both are divided out before anything is kept.
Left is the fine structure between 300 and 1900 Hz, as good as the same in a recording of a recording, and never
twice the same from a living mouth. Of its change from one 32 ms to the next, the signs of sixteen keyed random
projections are kept: 500 bits a second. Each piece of 0.4 s of a new utterance is looked for in all that is kept;
so a recording is found also if it was cut, joined from several, sent through another codec, or played a little
faster or slower, and is louder or softer.

    secret = new_secret()                                  # one a person; whoever lacks it can compare nothing
    kept = [Sound(pcm).fingerprint(secret) for pcm in earlier]
    Sound(pcm_of_the_call).likeness(secret, kept)          # 1 and more: played, not spoken
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voiceprint.audio import to_float

#: Fingerprints of different schemes are never compared.
SCHEME = "fine-1"
SAMPLE_RATE = 8000
SECRET_BYTES = 32
#: From which agreement beyond chance on an utterance counts as a recording: that of its pieces, each at its best place,
#: and that of all together at places that follow each other. Chosen on speakers that ``bench.liveness`` does not test.
_REPLAYED = 0.22
_CHANCE = 4  # standard deviations
#: What is kept of one utterance at most, from the first word to the last: a whole turn, however slowly it is spoken.
MOST_KEPT_S = 60.0

_MAGIC = b"VPR1"
_WINDOW, _HOP = 512, 256
_BITS = 16
_PIECE = 12  # frames
_MOST_PIECES = 8
#: Where frames of the kept utterance lay is not known; a new one is tried at so many places between two of them.
_PHASES = 4
_SPEEDS = {1.0: _PHASES, 0.98: _PHASES // 2, 1.02: _PHASES // 2}  # and in how many phases each is looked for
_LOW, _HIGH, _MARGIN = 20, 122, 4  # bins of 15.6 Hz
_ENVELOPE = 9  # bins to either side
_VALLEY = 0.5  # how far below the envelope the fine structure is followed, so that noise in valleys counts little
_SPEECH_POWER = 10**-2.5  # of the loudest frame

Floats = NDArray[np.float32]


def new_secret() -> bytes:
    """The key of a person's fingerprints."""
    return secrets.token_bytes(SECRET_BYTES)


class Sound:
    """One utterance in memory while it is judged; what may be kept of it is :meth:`fingerprint`.

    ``pcm``: mono at 8 kHz, int16 or float in -1..1, of any length and content.
    """

    def __init__(self, pcm: NDArray[np.generic]) -> None:
        speech = to_float(pcm)
        short = _WINDOW + (_PIECE + 1) * _HOP - len(speech)
        self._speech = np.pad(speech, (0, max(0, short)))
        self._windows = sliding_window_view(self._speech, _WINDOW)
        power = _power(self._speech)
        self._starts, self._active = _pieces(power)
        self._said = _said(power)
        offsets = _HOP // _PHASES * np.arange(_PHASES)[:, None] + _HOP * np.arange(_PIECE + 1)
        at = np.minimum(self._starts[:, None, None] + offsets, len(self._windows) - 1)
        self._fine = _fine(self._windows[at.reshape(-1)]).reshape(*at.shape, _HIGH - _LOW + 2 * _MARGIN)

    def fingerprint(self, secret: bytes) -> bytes:
        """What to keep: to be compared by the same ``secret`` only, and no way back to what was said."""
        frames = self._windows[self._said][::_HOP][: int(MOST_KEPT_S * SAMPLE_RATE / _HOP)]
        change = np.diff(_stretched(_fine(frames), 1.0), axis=0)
        return _MAGIC + np.packbits(change @ _projections(secret) > 0).tobytes()

    def likeness(self, secret: bytes, earlier: Sequence[bytes]) -> float | None:
        """How like a recording of what ``earlier`` holds this one is; from 1 on it is taken for one.

        None where nobody speaks, or nothing is there to compare with.
        Raises ValueError if a fingerprint is not what :meth:`fingerprint` made.
        """
        kept = _joined(earlier)
        if not len(self._starts) or not len(kept):
            return None
        projections = _projections(secret)
        asked = [self._asked(speed, phases, projections) for speed, phases in _SPEEDS.items()]
        places = np.ascontiguousarray(sliding_window_view(kept, (_PIECE, _BITS)).reshape(-1, _PIECE * _BITS))
        agreement = places @ np.concatenate(asked, axis=1)  # at once: this product is nearly all the work
        by_speed = np.split(agreement, np.cumsum([columns.shape[1] for columns in asked])[:-1], axis=1)
        return max(self._found(found, *speed) for found, speed in zip(by_speed, _SPEEDS.items(), strict=True))

    def _asked(self, speed: float, phases: int, projections: Floats) -> Floats:
        """What to look for if this was played at ``speed``: a column for each piece of each phase."""
        change = np.diff(_stretched(self._fine[:, :: _PHASES // phases], speed), axis=2) @ projections
        asked = _weighed(change) * self._active[:, None, :, None]
        asked /= np.abs(asked).sum(axis=(2, 3), keepdims=True) + 1e-9
        return asked.transpose(2, 3, 1, 0).reshape(_PIECE * _BITS, -1)

    def _found(self, agreement: Floats, speed: float, phases: int) -> float:
        """The likeness if this was played at ``speed``, from the agreement of each place with what was asked."""
        agreement = np.ascontiguousarray(np.maximum.reduce(np.split(agreement, phases, axis=1)).T)
        since = np.round((self._starts - self._starts[0]) * speed / _HOP).astype(int)
        near = np.pad(agreement, ((0, 0), (1, 1 + since[-1])))  # each piece may lie a frame beside its place
        near = np.maximum(np.maximum(near[:, :-2], near[:, 1:-1]), near[:, 2:])
        in_a_row = np.zeros((1, agreement.shape[1]), np.float32)
        for piece, start in zip(near, since, strict=True):
            in_a_row += piece[start : start + in_a_row.shape[1]] / len(near)
        return (_beyond_chance(agreement) + _beyond_chance(in_a_row)) / _REPLAYED


def _beyond_chance(agreement: Floats) -> float:
    """By how much the best places exceed what all the others reach by chance, which differs from voice to voice."""
    middle, upper = np.quantile(agreement[:, ::7], [0.5, 0.84], axis=1)
    return float(np.mean(agreement.max(axis=1) - middle - _CHANCE * (upper - middle)))


def _power(speech: Floats) -> Floats:
    """Of what each frame and the change to the one after it cover."""
    hops = speech[: len(speech) // _HOP * _HOP].reshape(-1, _HOP)
    return np.convolve((hops**2).sum(axis=1), np.ones(3, np.float32), "valid")


def _said(power: Floats) -> slice:
    """Samples at which the frames from the first word to the last begin; silence around them is not worth keeping.

    Measured by the loudest tenth and not by the loudest frame, so that a knock does not make silence of the words.
    """
    spoken = np.flatnonzero(power > max(float(np.quantile(power, 0.9)) * _SPEECH_POWER, 1e-6))
    return slice(int(spoken[0]) * _HOP, (int(spoken[-1]) + 2) * _HOP) if len(spoken) else slice(0, 0)


def _pieces(power: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where the pieces with speech begin, at most ``_MOST_PIECES`` spread evenly; and which of their frames have it."""
    found = _louder(power, float(power.max()))
    # Beside one loud knock all that is said is silence: then as the loudest tenth has it.
    return found if len(found[0]) else _louder(power, float(np.quantile(power, 0.9)))


def _louder(power: Floats, loudest: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    speaking = power > max(loudest * _SPEECH_POWER, 1e-6)
    starts = np.arange(0, max(1, len(speaking) - _PIECE + 1), _PIECE // 2)
    active = sliding_window_view(np.pad(speaking, (0, _PIECE)), _PIECE)[starts]
    some = np.flatnonzero(active.sum(axis=1) >= _PIECE // 2)
    chosen = some[np.unique(np.linspace(0, len(some) - 1, _MOST_PIECES).astype(int))] if len(some) else some
    return starts[chosen] * _HOP, active[chosen]


def _fine(frames: Floats) -> Floats:
    """The logarithm of the spectrum over its envelope; shape (frames, bins with a margin at both ends)."""
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32), axis=1)) ** 2
    sums = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    bins = np.arange(_LOW - _MARGIN, _HIGH + _MARGIN)
    envelope = (sums[:, bins + _ENVELOPE + 1] - sums[:, bins - _ENVELOPE]) / (2 * _ENVELOPE + 1)
    return np.asarray(np.log(power[:, bins] / (envelope + 1e-9) + _VALLEY), np.float32)


def _stretched(fine: Floats, speed: float) -> Floats:
    """The same, as it was before it was played at ``speed``; without the margin."""
    at = np.arange(_LOW, _HIGH) * speed - (_LOW - _MARGIN)
    below = at.astype(int)
    share = (at - below).astype(np.float32)
    above = np.minimum(below + 1, fine.shape[-1] - 1)
    stretched: Floats = fine[..., below] * (1 - share) + fine[..., above] * share
    return stretched


def _projections(secret: bytes) -> Floats:
    """Random smooth directions, shape (bins, bits), that only who has the secret can name."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    bins = _HIGH - _LOW
    stream = hashlib.shake_256(SCHEME.encode() + secret).digest(_BITS * bins * 4)
    drawn = np.frombuffer(stream, "<u4").reshape(_BITS, bins).astype(np.float64) / 2**32 - 0.5
    smooth = np.apply_along_axis(np.convolve, 1, drawn, [0.25, 0.5, 1, 0.5, 0.25], "same")
    return np.asarray((smooth - smooth.mean(axis=1, keepdims=True)).T, np.float32)


def _weighed(change: Floats) -> Floats:
    """Signs that count the more the surer they are: a small change may come out as the other sign after a codec."""
    usual = np.float32(np.median(np.abs(change)) + 1e-9)
    return np.asarray(np.clip(change / usual, -1.5, 1.5), np.float32)


def _joined(earlier: Sequence[bytes]) -> Floats:
    """All fingerprints as signs, with zeros between, so that no piece is found across two."""
    gap = np.zeros((_PIECE - 1, _BITS), np.float32)
    parts: list[Floats] = []
    for kept in earlier:
        if kept[: len(_MAGIC)] != _MAGIC or len(kept) % (_BITS // 8):
            raise ValueError("these bytes are no fingerprint of an utterance")
        bits = np.unpackbits(np.frombuffer(kept, np.uint8, offset=len(_MAGIC))).reshape(-1, _BITS)
        parts += [gap, bits.astype(np.float32) * 2 - 1]
    return np.concatenate([*parts, gap]) if parts else np.zeros((0, _BITS), np.float32)
