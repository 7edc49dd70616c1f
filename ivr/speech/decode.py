"""Recordings that an app sends, as the recogniser and the encoder take them: 8 kHz, mono, int16.

WAV, FLAC and Ogg (Opus, Vorbis) are read by libsndfile, raw PCM by ourselves. Whoever sends them may be an attacker:
the body is bounded, the header is looked at before anything is decoded, and what it says about the length is only
ever believed against the sender. Nothing is written anywhere.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ivr.speech.audio import SAMPLE_RATE, Pcm, to_pcm

LONGEST_BODY_BYTES = 2 * 1024 * 1024
LONGEST_S = 15
MOST_CHANNELS = 2
#: What microphones have; a rate that shares no large factor with ours takes a second to convert.
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
RAW_RATES = (8_000, 16_000, 48_000)
_BLOCK = 16_384  # frames
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's, of a FLAC stream that was not finished

#: Of each media type what libsndfile calls it, and the encodings in it that we read.
_PCM = frozenset({"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})
_CONTAINERS = {
    "wav": (frozenset({"WAV", "WAVEX"}), _PCM),
    "flac": (frozenset({"FLAC"}), frozenset({"PCM_S8", "PCM_16", "PCM_24"})),
    "ogg": (frozenset({"OGG"}), frozenset({"VORBIS", "OPUS"})),
}
_TYPES = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/ogg": "ogg",
    "application/ogg": "ogg",
}
_RAW = "audio/l16"
_OGG_PAGE, _OGG_LAST = 27, 0x04


class AudioRefused(Exception):
    """A recording that is not taken; the message says what is wrong with it, and repeats nothing of it."""


class WrongAudioType(AudioRefused):
    """Not one of the media types that are read."""


class EmptyAudio(AudioRefused):
    """No samples."""


class AudioTooLong(AudioRefused):
    """More bytes or seconds than anybody needs for an answer."""


class NotThatAudio(AudioRefused):
    """Not what the media type says, or damaged."""


class AudioCutOff(NotThatAudio):
    """It ends before its end."""


class UnusableSound(AudioRefused):
    """A rate, a number of channels or samples that are not taken."""


def decode(body: bytes, media_type: str, parameters: dict[str, str] | None = None) -> Pcm:
    """``body`` as int16 at 8 kHz, both channels mixed.

    ``media_type``: lower case, without parameters; ``audio/l16`` (RFC 2586: big-endian samples) needs the parameter
    ``rate`` and may have ``channels``. Raises AudioRefused's kinds.
    """
    kind = _TYPES.get(media_type)
    if kind is None and media_type != _RAW:
        raise WrongAudioType("send audio/wav, audio/flac, audio/ogg (Opus or Vorbis) or audio/L16;rate=16000")
    if not body:
        raise EmptyAudio("the recording is empty")
    if len(body) > LONGEST_BODY_BYTES:
        raise AudioTooLong(f"a recording has {LONGEST_BODY_BYTES} bytes at most")
    samples, rate = _raw(body, parameters or {}) if kind is None else _contained(body, kind)
    if not len(samples):
        raise EmptyAudio("the recording is empty")
    if rate != SAMPLE_RATE:
        common = math.gcd(rate, SAMPLE_RATE)
        samples = resample_poly(samples, SAMPLE_RATE // common, rate // common)
    return to_pcm(samples * 32768)


def _raw(body: bytes, parameters: dict[str, str]) -> tuple[NDArray[np.float64], int]:
    try:
        rate, channels = int(parameters.get("rate", "")), int(parameters.get("channels", "1"))
    except ValueError:
        raise UnusableSound("audio/L16 needs its rate: audio/L16;rate=16000") from None
    if rate not in RAW_RATES:
        raise UnusableSound(f"the rate of audio/L16 is one of {', '.join(map(str, RAW_RATES))}")
    _check(rate, channels)
    if len(body) % (2 * channels):
        raise AudioCutOff("the recording ends within a sample")
    samples = np.frombuffer(body, ">i2").reshape(-1, channels)
    if len(samples) > LONGEST_S * rate:
        raise _too_long()
    return _mono(samples.astype(np.float64) / 32768), rate


def _contained(body: bytes, kind: str) -> tuple[NDArray[np.float64], int]:
    if kind == "ogg":
        _check_pages(body)
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as file:
            formats, encodings = _CONTAINERS[kind]
            if file.format not in formats or file.subtype not in encodings:
                raise NotThatAudio("the recording is not what its Content-Type says")
            _check(file.samplerate, file.channels)
            if file.frames >= _UNKNOWN_FRAMES:
                raise UnusableSound("the recording's header does not say how long it is")
            if file.frames > LONGEST_S * file.samplerate:
                raise _too_long()
            if kind == "wav":
                _check_riff(body)
            blocks = list(_blocks(file))
            samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float64)
            if len(samples) < file.frames:
                raise AudioCutOff("the recording is cut off")
            return samples, file.samplerate
    except soundfile.SoundFileError:  # libsndfile's messages have no use for the sender
        raise NotThatAudio("the recording is damaged, or not what its Content-Type says") from None


def _blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float64]]:
    """What is really there, block by block. Raises AudioTooLong, UnusableSound."""
    left = LONGEST_S * file.samplerate
    while file.tell() < file.frames:  # past its end soundfile asks for a negative number of frames
        block = file.read(_BLOCK, dtype="float64", always_2d=True)
        if not len(block):
            return
        left -= len(block)
        if left < 0:
            raise _too_long()
        if not np.isfinite(block).all():
            raise UnusableSound("the recording holds samples that are no numbers")
        yield _mono(block)


def _check(rate: int, channels: int) -> None:
    if not 1 <= channels <= MOST_CHANNELS:
        raise UnusableSound(f"a recording has {MOST_CHANNELS} channels at most")
    if rate not in RATES:
        raise UnusableSound(f"a recording's rate is one of {', '.join(map(str, RATES))} Hz")


def _mono(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    mono: NDArray[np.float64] = np.clip(samples, -1, 1).mean(axis=1)
    return mono


def _too_long() -> AudioTooLong:
    return AudioTooLong(f"a recording lasts {LONGEST_S} s at most")


def _check_riff(body: bytes) -> None:
    """libsndfile takes what is there of a WAV file; that its header says more shows that it is not whole."""
    if int.from_bytes(body[4:8], "little") + 8 > len(body):
        raise AudioCutOff("the recording is shorter than its header says")


def _check_pages(body: bytes) -> None:
    """An Ogg stream is whole when it ends with a whole page that is marked as the last (RFC 3533)."""
    at, last = 0, False
    with suppress(IndexError):
        while at < len(body):
            if body[at : at + 4] != b"OggS":
                raise NotThatAudio("the recording is damaged, or not what its Content-Type says")
            segments = body[at + _OGG_PAGE - 1]
            lengths = body[at + _OGG_PAGE : at + _OGG_PAGE + segments]
            last = bool(body[at + 5] & _OGG_LAST)
            at += _OGG_PAGE + segments + sum(lengths)
    if at != len(body) or not last:
        raise AudioCutOff("the recording is cut off")
