"""Recordings from outside: what is read, and what is refused, by a type that says why."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ivr.resources import shipped
from ivr.speech.audio import read_audio
from ivr.speech.decode import (
    LONGEST_BODY_BYTES,
    LONGEST_S,
    AudioCutOff,
    AudioRefused,
    AudioTooLong,
    EmptyAudio,
    NotThatAudio,
    UnusableSound,
    WrongAudioType,
    decode,
)

SPEECH = read_audio(shipped("fixtures/audio/alice/card_2.wav"))


def tone(rate: int = 16_000, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    t = np.arange(int(rate * seconds)) / rate
    wave = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    return np.repeat(wave[:, None], channels, axis=1)


def file(samples: np.ndarray, rate: int, kind: str, encoding: str) -> bytes:
    made = io.BytesIO()
    channels = samples.shape[1] if samples.ndim > 1 else 1
    with soundfile.SoundFile(made, "w", rate, channels, encoding, format=kind) as out:
        for at in range(0, len(samples), rate):  # libsndfile's Vorbis encoder overflows its stack on much at once
            out.write(samples[at : at + rate])
    return made.getvalue()


WAV = file(tone(), 16_000, "WAV", "PCM_16")
FLAC = file(tone(), 16_000, "FLAC", "PCM_16")
VORBIS = file(tone(), 16_000, "OGG", "VORBIS")
OPUS = file(tone(), 16_000, "OGG", "OPUS")


@pytest.mark.parametrize(
    ("kind", "encoding", "media_type", "rate", "channels"),
    [
        ("WAV", "PCM_16", "audio/wav", 8_000, 1),
        ("WAV", "ULAW", "audio/x-wav", 8_000, 1),
        ("WAV", "FLOAT", "audio/wav", 44_100, 2),
        ("WAVEX", "PCM_24", "audio/wav", 48_000, 2),
        ("FLAC", "PCM_16", "audio/flac", 16_000, 1),
        ("OGG", "OPUS", "audio/ogg", 48_000, 1),
        ("OGG", "VORBIS", "application/ogg", 22_050, 2),
        ("WAV", "PCM_16", "audio/wav", 11_025, 1),
    ],
)
def test_reads_what_apps_send(kind: str, encoding: str, media_type: str, rate: int, channels: int) -> None:
    pcm = decode(file(tone(rate, channels=channels), rate, kind, encoding), media_type)
    assert pcm.dtype == np.int16
    assert abs(len(pcm) - 8_000) < 200
    spectrum = np.abs(np.fft.rfft(pcm[1000:5000].astype(float)))
    assert np.argmax(spectrum) * 2 == pytest.approx(440, abs=3)
    assert np.abs(pcm[1000:7000]).max() == pytest.approx(0.3 * 32768, rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_reads_raw_samples_in_network_byte_order(rate: int) -> None:
    raw = (tone(rate)[:, 0] * 32767).astype(">i2").tobytes()
    pcm = decode(raw, "audio/l16", {"rate": str(rate)})
    assert len(pcm) == 8_000
    assert np.abs(pcm[1000:7000]).max() == pytest.approx(0.3 * 32768, rel=0.1)


def test_a_recording_at_our_own_rate_is_not_changed() -> None:
    assert np.array_equal(decode(file(SPEECH, 8_000, "WAV", "PCM_16"), "audio/wav"), SPEECH)
    assert np.array_equal(decode(SPEECH.astype(">i2").tobytes(), "audio/l16", {"rate": "8000"}), SPEECH)


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("yes.wav", WAV)
    return made.getvalue()


def says_hours(body: bytes) -> bytes:
    """The length in the header is that of five hours."""
    changed = bytearray(body)
    if body.startswith(b"RIFF"):
        changed[4:8], changed[40:44] = struct.pack("<I", 2**31 + 36), struct.pack("<I", 2**31)
    else:
        info = int.from_bytes(body[18:26], "big")
        changed[18:26] = (info & ~((1 << 36) - 1) | 5 * 3600 * 16_000).to_bytes(8, "big")
    return bytes(changed)


def with_sample(value: float) -> bytes:
    samples = tone()
    samples[5_000] = value
    return file(samples, 16_000, "WAV", "FLOAT")


@pytest.mark.parametrize(
    ("body", "media_type", "kind"),
    [
        (b"", "audio/wav", EmptyAudio),
        (file(tone(seconds=0), 16_000, "WAV", "PCM_16"), "audio/wav", EmptyAudio),
        (WAV, "text/plain", WrongAudioType),
        (WAV, "audio/mpeg", WrongAudioType),
        (WAV, "audio/flac", NotThatAudio),
        (FLAC, "audio/wav", NotThatAudio),
        (zipped(), "audio/wav", NotThatAudio),
        (file(tone(), 16_000, "AIFF", "PCM_16"), "audio/wav", NotThatAudio),
        (file(tone(), 8_000, "WAV", "GSM610"), "audio/wav", NotThatAudio),
        (WAV[: len(WAV) // 2], "audio/wav", AudioCutOff),
        (FLAC[: len(FLAC) // 2], "audio/flac", NotThatAudio),
        (VORBIS[: len(VORBIS) // 2], "audio/ogg", AudioCutOff),
        (VORBIS[: VORBIS.rindex(b"OggS")], "audio/ogg", AudioCutOff),
        (OPUS[:-1], "audio/ogg", AudioCutOff),
        (OPUS[:20], "audio/ogg", AudioCutOff),
        (file(tone(channels=10), 16_000, "WAV", "PCM_16"), "audio/wav", UnusableSound),
        (file(tone(192_000), 192_000, "WAV", "PCM_16"), "audio/wav", UnusableSound),
        (file(tone(4_000), 4_000, "WAV", "PCM_16"), "audio/wav", UnusableSound),
        (file(tone(47_999), 47_999, "WAV", "PCM_16"), "audio/wav", UnusableSound),
        (with_sample(float("nan")), "audio/wav", UnusableSound),
        (with_sample(float("inf")), "audio/wav", UnusableSound),
        (says_hours(WAV), "audio/wav", AudioCutOff),
        (says_hours(FLAC), "audio/flac", AudioTooLong),
        (file(tone(8_000, LONGEST_S + 1), 8_000, "WAV", "PCM_16"), "audio/wav", AudioTooLong),
        (file(tone(8_000, LONGEST_S + 1), 8_000, "OGG", "OPUS"), "audio/ogg", AudioTooLong),
        (bytes(LONGEST_BODY_BYTES + 1), "audio/wav", AudioTooLong),
    ],
    ids=lambda value: "audio" if isinstance(value, bytes) else None,  # an Ogg stream's number is random
)
def test_refuses_by_name(body: bytes, media_type: str, kind: type[AudioRefused]) -> None:
    with pytest.raises(kind) as refused:
        decode(body, media_type)
    assert type(refused.value) is kind
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(
    ("body", "parameters", "kind"),
    [
        (bytes(200), {}, UnusableSound),
        (bytes(200), {"rate": "x"}, UnusableSound),
        (bytes(200), {"rate": "44100"}, UnusableSound),
        (bytes(200), {"rate": "8000", "channels": "0"}, UnusableSound),
        (bytes(200), {"rate": "8000", "channels": "10"}, UnusableSound),
        (bytes(201), {"rate": "8000"}, AudioCutOff),
        (bytes(2 * 8_000 * (LONGEST_S + 1)), {"rate": "8000"}, AudioTooLong),
    ],
)
def test_refuses_raw_samples_by_name(body: bytes, parameters: dict[str, str], kind: type[AudioRefused]) -> None:
    with pytest.raises(kind):
        decode(body, "audio/l16", parameters)


def test_much_sound_in_few_bytes_takes_little_memory() -> None:
    """Ten minutes of silence are 6 kB of FLAC or Ogg."""
    silence = np.zeros((600 * 48_000, 2), np.int16)
    for body, media_type in (
        (file(silence, 48_000, "FLAC", "PCM_16"), "audio/flac"),
        (file(silence, 48_000, "OGG", "VORBIS"), "audio/ogg"),
    ):
        tracemalloc.start()
        with pytest.raises(AudioTooLong):
            decode(body, media_type)
        most_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most_bytes < 30_000_000


KINDS = [(WAV, "audio/wav"), (FLAC, "audio/flac"), (VORBIS, "audio/ogg"), (OPUS, "audio/ogg")]


@settings(max_examples=400, deadline=None)
@given(
    which=st.sampled_from(KINDS),
    cut=st.integers(0, 20_000),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    more=st.binary(max_size=40),
)
def test_damage_of_any_kind_is_refused_or_read(
    which: tuple[bytes, str], cut: int, changes: list[tuple[int, int]], more: bytes
) -> None:
    body = bytearray(which[0][: len(which[0]) - cut] if cut % 2 else which[0])
    for at, value in changes:
        if at < len(body):
            body[at] = value
    try:
        pcm = decode(bytes(body) + more, which[1])
    except AudioRefused:
        return
    assert 0 < len(pcm) <= LONGEST_S * 8_000 + 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(["audio/wav", "audio/flac", "audio/ogg", "audio/l16"]))
def test_any_bytes_are_refused_or_read(body: bytes, media_type: str) -> None:
    try:
        pcm = decode(body, media_type, {"rate": "8000"})
    except AudioRefused:
        return
    assert len(pcm)
