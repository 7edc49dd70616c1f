"""Telephone audio: mu-law and recordings of any kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ivr.speech.audio import AudioError, pcm_to_ulaw, read_audio, ulaw_to_pcm


@pytest.mark.parametrize(
    ("code", "sample"),
    [
        (0x00, -32124),
        (0x80, 32124),
        (0x7F, 0),
        (0xFF, 0),
        (0xF0, 120),
        (0x70, -120),
        (0x8F, 16764),
        (0x1A, -10876),
    ],
)  # ITU-T G.711, table 2b, on the scale of 16 bits
def test_mu_law_decodes_as_g711_says(code: int, sample: int) -> None:
    assert ulaw_to_pcm(bytes([code])).tolist() == [sample]


def test_every_mu_law_code_but_negative_zero_survives_the_round_trip() -> None:
    codes = bytes(range(256))
    assert pcm_to_ulaw(ulaw_to_pcm(codes)) == codes.replace(b"\x7f", b"\xff")


def test_mu_law_encodes_every_sample_to_the_nearest_code() -> None:
    samples = np.arange(-32768, 32768).astype(np.int16)
    heard = ulaw_to_pcm(pcm_to_ulaw(samples)).astype(int)
    error = np.abs(heard - samples.astype(int))
    step = 8 << (np.frexp(np.minimum(np.abs(samples.astype(int)), 32635) + 132.0)[1] - 8)
    assert (error <= step / 2)[np.abs(samples.astype(int)) <= 32635].all()


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
@pytest.mark.parametrize(("suffix", "channels"), [("wav", 1), ("flac", 2)])
def test_recordings_of_any_rate_become_mono_at_8_khz(tmp_path: Path, rate: int, suffix: str, channels: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / f"tone.{suffix}", np.stack([tone] * channels, 1), rate)
    pcm = read_audio(tmp_path / f"tone.{suffix}")
    assert pcm.dtype == np.int16
    assert abs(len(pcm) - 8000) <= 1
    assert np.argmax(np.abs(np.fft.rfft(pcm[:8000]))) == 440
    assert abs(np.abs(pcm[1000:7000]).max() - 16384) < 200


def test_full_scale_stays_within_16_bits(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.tile([1.0, 1.0, -1.0, -1.0], 4000), 16000, subtype="FLOAT")
    pcm = read_audio(tmp_path / "loud.wav")
    assert pcm.max() > 0 > pcm.min()


def test_what_is_no_recording_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    for name, reason in [
        ("none.wav", "no such file"),
        ("text.wav", "not a readable"),
        ("empty.wav", "empty"),
    ]:
        with pytest.raises(AudioError, match=f"{name}.*{reason}"):
            read_audio(tmp_path / name)
    with pytest.raises(AudioError, match="not a readable"):
        read_audio(tmp_path)
