"""Fingerprints of utterances: recordings run into them, living speech does not, and they give no digits back."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import istft, resample, stft

from ivr.resources import shipped
from ivr.speech.audio import Pcm, read_audio
from ivr.speech.numbers import edit_distance, hypotheses
from ivr.speech.recogniser import DigitModel, Grammar
from voiceprint import replay
from voiceprint.replay import Sound

SECRET = bytes(range(32))
CARD = "4539148803436467"


def string(voice: str, digits: str, takes: tuple[int, ...], seed: int) -> Pcm:
    """The digits in a person's clips, with gaps; other takes are other clips."""
    rng = random.Random(seed)
    parts: list[Pcm] = []
    for digit in digits:
        parts.append(read_audio(shipped(f"fixtures/audio/{voice}/digits/{digit}_{rng.choice(takes)}.wav")))
        parts.append(np.zeros(int(rng.uniform(0.05, 0.2) * 8000), np.int16))
    return np.concatenate(parts)


def coded(pcm: Pcm, subtype: str) -> Pcm:
    file = io.BytesIO()
    soundfile.write(file, pcm, 8000, format="WAV", subtype=subtype)
    file.seek(0)
    decoded: Pcm = soundfile.read(file, dtype="int16")[0]
    return decoded


def likeness(pcm: NDArray[np.generic], earlier: list[Pcm], secret: bytes = SECRET) -> float:
    found = Sound(pcm).likeness(secret, [Sound(before).fingerprint(SECRET) for before in earlier])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def before() -> list[Pcm]:
    """What a person said in earlier calls, in two takes of every digit."""
    return [string("alice", digits, (1, 2), seed) for seed, digits in enumerate([CARD, "4719", "80352664", "9087"])]


DISGUISES = {
    "alaw": lambda pcm: coded(pcm, "ALAW"),
    "gsm": lambda pcm: coded(pcm, "GSM610"),
    "gsm twice": lambda pcm: coded(coded(pcm, "GSM610"), "GSM610"),
    "softer": lambda pcm: coded((pcm / 5).astype(np.int16), "ULAW"),
    "cut": lambda pcm: pcm[1777:-1333],
    "noisy": lambda pcm: (pcm + np.random.default_rng(0).normal(0, pcm.std() / 15, len(pcm))).astype(np.int16),
    "slower": lambda pcm: resample(pcm, int(len(pcm) * 1.02)).astype(np.int16),
    "faster": lambda pcm: resample(pcm, int(len(pcm) * 0.985)).astype(np.int16),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("which", [0, 1], ids=["card", "challenge"])
def test_a_recording_is_known_again_in_every_disguise(before: list[Pcm], which: int, disguise: str) -> None:
    assert likeness(DISGUISES[disguise](before[which]), before) >= 1


def test_digits_cut_out_of_earlier_calls_and_joined_are_known_again(before: list[Pcm]) -> None:
    assert likeness(string("alice", "5307", (1, 2), 99), before) >= 1


def late(digits: str, seed: int) -> Pcm:
    """Eight seconds after the tone."""
    return np.concatenate([np.zeros(8 * 8000, np.int16), string("alice", digits, (1, 2), seed)])


def slow(digits: str, seed: int) -> Pcm:
    """A second and a half between digits: half a minute for a card number."""
    parts = [(string("alice", digit, (1, 2), seed + i), np.zeros(12_000, np.int16)) for i, digit in enumerate(digits)]
    return np.concatenate([part for pair in parts for part in pair])


@pytest.mark.parametrize("said", [late, slow])
def test_the_end_of_what_is_said_late_or_slowly_is_known_again(said: Callable[[str, int], Pcm]) -> None:
    whole = said(CARD, 5)
    end = coded(whole[len(whole) * 3 // 4 :], "GSM610")
    assert likeness(end, [whole]) >= 1


def test_silence_around_the_words_takes_no_room(before: list[Pcm]) -> None:
    quiet = np.zeros(10 * 8000, np.int16)
    kept = [len(Sound(pcm).fingerprint(SECRET)) for pcm in (before[0], np.concatenate([quiet, before[0], quiet]))]
    assert abs(kept[0] - kept[1]) <= 2 * 2  # a frame at either end


def test_a_knock_at_the_receiver_does_not_make_silence_of_the_words(before: list[Pcm]) -> None:
    knock = np.random.default_rng(0).integers(-32000, 32000, 1200).astype(np.int16)
    assert likeness(before[1], [np.concatenate([knock, before[1] // 4])]) >= 1


@pytest.mark.parametrize("softer", [20, 60, 200])
def test_a_knock_that_is_louder_than_a_recording_does_not_hide_it(before: list[Pcm], softer: float) -> None:
    knock = (np.hanning(400) * 30_000).astype(np.int16)
    played = np.concatenate([(before[0] / softer).astype(np.int16), knock])
    assert likeness(played, before) >= 1


def test_a_fingerprint_of_before_is_compared_as_ever(before: list[Pcm]) -> None:
    """Then the first 12 s after the tone were kept, silence and all."""
    lead = np.concatenate([np.zeros(3 * 8000, np.int16), before[0]])
    windows = np.lib.stride_tricks.sliding_window_view(replay.to_float(lead), 512)[::256][:375]
    change = np.diff(replay._stretched(replay._fine(windows), 1.0), axis=0)
    kept = b"VPR1" + np.packbits(change @ replay._projections(SECRET) > 0).tobytes()
    found = Sound(coded(before[0][1777:], "ALAW")).likeness(SECRET, [kept])
    assert found is not None
    assert found >= 1


@pytest.mark.parametrize("voice", ["alice", "bob", "carol", "frank", "gus"])
def test_the_same_number_said_anew_is_no_recording(voice: str) -> None:
    first, second = (read_audio(shipped(f"fixtures/audio/{voice}/{name}.wav")) for name in ("card", "card_2"))
    assert likeness(second, [first]) < 1
    assert likeness(second, [first, second]) >= 1


def test_without_the_persons_secret_nothing_can_be_compared(before: list[Pcm]) -> None:
    assert likeness(before[0], before, secret=bytes(32)) < 1
    assert likeness(before[0], before) >= 1


@pytest.mark.parametrize("samples", [0, 1, 511, 4000])
def test_silence_of_any_length_is_compared_with_nothing(before: list[Pcm], samples: int) -> None:
    silence = Sound(np.zeros(samples, np.int16))
    assert silence.likeness(SECRET, [Sound(before[0]).fingerprint(SECRET)]) is None
    assert silence.fingerprint(SECRET).startswith(b"VPR1")


def test_with_nothing_kept_nothing_is_compared(before: list[Pcm]) -> None:
    assert Sound(before[0]).likeness(SECRET, []) is None


def test_a_fingerprint_is_small_bounded_and_the_same_each_time(before: list[Pcm]) -> None:
    hour = np.tile(before[0], 20)
    assert len(Sound(hour).fingerprint(SECRET)) <= 64 * replay.MOST_KEPT_S
    assert Sound(before[0]).fingerprint(SECRET) == Sound(before[0].copy()).fingerprint(SECRET)


@pytest.mark.parametrize("damage", [b"", b"VPR1x", b"VPS1" + bytes(8)])
def test_bytes_that_are_no_fingerprint_are_refused(before: list[Pcm], damage: bytes) -> None:
    with pytest.raises(ValueError, match="no fingerprint"):
        Sound(before[0]).likeness(SECRET, [damage])


# ---- what somebody who has a fingerprint, and even the secret, can make of it ----------------------------


def spoken(log_power: NDArray[np.float64]) -> Pcm:
    """Audio with this log power, of shape (frames, bins of the fine structure), by Griffin and Lim's iteration."""
    magnitude = np.zeros((257, len(log_power)))
    magnitude[replay._LOW : replay._HIGH] = np.exp(log_power.T / 2)
    magnitude *= (1 / (1 + (np.arange(257) / 40) ** 2))[:, None]  # speech, on the average
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, magnitude.shape)
    for _ in range(40):
        _, wave = istft(magnitude * np.exp(1j * phase), 8000, nperseg=512, noverlap=256)
        phase = np.angle(stft(wave, 8000, nperseg=512, noverlap=256)[2][:, : magnitude.shape[1]])
    return (wave / np.abs(wave).max() * 16000).astype(np.int16)


def inverted(fingerprint: bytes) -> Pcm:
    """The likeliest audio behind a fingerprint, for whoever has the secret too."""
    bits = np.unpackbits(np.frombuffer(fingerprint, np.uint8, offset=4)).reshape(-1, replay._BITS)
    change = (bits * 2.0 - 1) @ np.linalg.pinv(replay._projections(SECRET))
    return spoken(np.cumsum(change, axis=0) * 0.5)


def heard(model: DigitModel, pcm: Pcm) -> str:
    recogniser = model.recogniser(Grammar.CARD)
    for at in range(0, len(pcm), 800):
        recogniser.accept(pcm[at : at + 800])
    found = hypotheses((spoken.texts, spoken.score) for spoken in recogniser.finish(10))
    return found[0].digits if found else ""


def test_no_digits_come_back_out_of_a_fingerprint_even_with_its_secret() -> None:
    model = DigitModel(shipped("models/digits"))
    rng = random.Random(4)
    truths = ["".join(rng.choice("0123456789") for _ in range(16)) for _ in range(6)]
    voices = ["alice", "bob", "carol", "frank", "gus", "alice"]
    recordings = [string(voice, truth, (1, 2), i) for i, (voice, truth) in enumerate(zip(voices, truths, strict=True))]

    def right(readings: list[str], against: list[str]) -> float:
        wrong = sum(min(16, edit_distance(a, b)) for a, b in zip(readings, against, strict=True))
        return 1 - wrong / (16 * len(against))

    # The way back works: with the whole spectrum of the same band, most digits are heard.
    whole = []
    for pcm in recordings:
        frames = np.lib.stride_tricks.sliding_window_view(pcm / 32768, 512)[::256] * np.hanning(512)
        whole.append(np.log(np.abs(np.fft.rfft(frames, axis=1))[:, replay._LOW : replay._HIGH] ** 2 + 1e-6))
    assert right([heard(model, spoken(power)) for power in whole], truths) > 0.5

    back = [heard(model, inverted(Sound(pcm).fingerprint(SECRET))) for pcm in recordings]
    by_chance = [right(back, truths[i:] + truths[:i]) for i in range(1, len(truths))]
    assert right(back, truths) <= max(by_chance) + 0.05
