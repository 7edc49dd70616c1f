"""The training recipe on invented voices: who is read, what is heard, and that a run ends in a model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recipes import heldout
from recipes.voiceprint.backend import fit_backend
from recipes.voiceprint.backend import halves as drawn_halves
from recipes.voiceprint.calibrate import halves
from recipes.voiceprint.channel import NOISY_TELEPHONE, TELEPHONE, TRAINING, transmit
from recipes.voiceprint.data import DIGITS, CropSampler, Speaker, load_speakers
from recipes.voiceprint.export import averaged_weights, export, fold
from recipes.voiceprint.strings import over_one_line, string
from recipes.voiceprint.train import Architecture, Schedule, StandardisedEncoder, Trainer, train
from voiceprint import Encoder
from voiceprint.backend import Cosine, compare
from voiceprint.calibration import Trials, fit, rates

TINY = Architecture(channels=(16, 16, 16, 16, 32), attention_channels=8, se_channels=8, lin_neurons=12)


def clip(hz: float, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(int(seconds * 8000)) / 8000
    return (sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 9)) * 4000).astype(np.int16)


def speaker(index: int, clips: int = 6) -> Speaker:
    return Speaker(f"s{index}", [clip(100 + 40 * index + i) for i in range(clips)], ["one"] * clips)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A corpus of forty speakers with a silent second around each clip."""
    folder = tmp_path / DIGITS
    folder.mkdir()
    with open(folder / "manifest.tsv", "w", newline="") as file:
        out = csv.writer(file, delimiter="\t")
        out.writerow(["path", "speaker", "text"])
        for i in range(40):
            padded = np.concatenate([np.zeros(8000, np.int16), clip(100 + i), np.zeros(8000, np.int16)])
            soundfile.write(folder / f"{i}.flac", padded, 8000, subtype="PCM_16")
            out.writerow([f"{i}.flac", f"sc_{i}", "one"])
    return tmp_path


def test_held_out_speakers_are_never_read_and_development_is_apart(recordings: Path) -> None:
    training, development = load_speakers(recordings, (DIGITS,))
    buckets = {s.id: heldout.bucket(s.id) for s in training + development}
    held_out = {f"sc_{i}" for i in range(40) if heldout.is_held_out(DIGITS, f"sc_{i}")}
    assert held_out
    assert not held_out & set(buckets)
    assert len(buckets) == 40 - len(held_out)
    assert all(12 <= buckets[s.id] < 18 for s in development)
    assert development
    assert all(buckets[s.id] >= 18 for s in training)


def test_clips_are_trimmed_to_their_speech(recordings: Path) -> None:
    training, _ = load_speakers(recordings, (DIGITS,))
    assert all(0.4 < s.seconds < 0.8 for s in training)


def test_speeds_are_classes_of_their_own_and_shift_the_pitch() -> None:
    sampler, rng = CropSampler([speaker(0), speaker(1)]), np.random.default_rng(0)
    assert sampler.classes == 6
    assert {sampler.draw(rng) for _ in range(300)} == set(range(6))

    def pitch(label: int) -> float:
        crop = sampler.crop(label, 8000, rng)
        assert crop.shape == (8000,)
        return float(np.argmax(np.abs(np.fft.rfft(crop))))

    assert pitch(2) < pitch(0) < pitch(4)


@pytest.mark.parametrize("channels", [TRAINING, TELEPHONE, NOISY_TELEPHONE])
def test_channels_repeat_by_seed_and_differ_between_draws(channels: object) -> None:
    speech, noises = clip(150, 1.0).astype(np.float32) / 32768, [clip(50, 3.0)]
    heard = [transmit(speech, channels, np.random.default_rng(seed), noises) for seed in (1, 1, 2)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(heard[0], heard[1])
    assert np.abs(heard[0] - heard[2]).max() > 0.01
    assert all(h.shape == speech.shape and np.abs(h).max() <= 1 and h.dtype == np.float32 for h in heard)


def test_a_telephone_line_passes_the_voice_band_only() -> None:
    white = np.random.default_rng(0).standard_normal(80000).astype(np.float32) * 0.1
    power = np.abs(np.fft.rfft(transmit(white, TELEPHONE, np.random.default_rng(3), []))) ** 2
    hz = np.fft.rfftfreq(80000, 1 / 8000)
    band = power[(hz > 500) & (hz < 3000)].mean()
    assert power[hz < 100].mean() < band / 100
    assert power[hz > 3800].mean() < band / 10


def test_the_sides_of_a_genuine_trial_share_no_clip() -> None:
    one, other = halves(speaker(0, 7), np.random.default_rng(0))
    assert len(one) + len(other) == 7
    assert not {c.tobytes() for c in one} & {c.tobytes() for c in other}


def test_the_halves_of_a_draw_share_no_clip_and_one_clip_makes_one_string() -> None:
    rng = np.random.default_rng(0)
    clips = [np.full(4000, level, np.int16) for level in (1000, 2000, 3000)]
    one, other = (set(np.round(half[half > 0] * 32768)) for half in drawn_halves(Speaker("s", clips, [""] * 3), rng))
    assert (len(one), len(other)) == (2, 1)
    assert not one & other
    assert len(drawn_halves(Speaker("s", clips[:1], [""]), rng)) == 1


def test_strings_of_a_call_come_back_apart() -> None:
    rng = np.random.default_rng(0)
    strings = [string(speaker(0).clips, n, rng) for n in (16, 4)]
    heard = over_one_line(strings, False, [], rng)
    assert [len(h) - len(s) for h, s in zip(heard, strings, strict=True)] == [4000, 4000]


def test_calibration_gives_likelihood_ratios_and_keeps_the_false_match_rate() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(20000) < 4000
    score = rng.normal(np.where(same, 0.6, 0.0), 0.12)
    trials = Trials(score, rng.uniform(2, 10, 20000), same)
    calibration = fit(trials, 0.002)
    counts = rates(trials, calibration)
    assert counts["impostor_accepted"] / counts["impostor"] == pytest.approx(0.002, abs=0.0005)
    assert counts["genuine_rejected"] / counts["genuine"] < 0.05
    half_way, low, high = calibration.llr(np.array([0.3, 0.5, 0.7]), np.array([5.0, 2.0, 2.0]))
    assert half_way == pytest.approx(0.0, abs=0.7)  # between two equal normals
    assert high > low


def test_the_back_end_finds_what_tells_speakers_apart() -> None:
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(300), 2)
    voices = rng.normal(size=(300, 16)) * ([1.0] * 8 + [0.05] * 8)  # half of the numbers tell of the voice,
    vectors = voices[numbers] + rng.normal(size=(600, 16)) * ([0.1] * 8 + [0.8] * 8)  # the rest of the line
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    fitted = fit_backend(numbers, vectors)
    one, other = vectors[::2], vectors[1::2]
    rows, columns = (i.ravel() for i in np.indices((300, 300)))

    def confused(comparing: Cosine) -> float:
        scores = compare(comparing.sides(one)[rows], comparing.sides(other)[columns]).reshape(300, 300)
        return float((scores.argmax(axis=1) != np.arange(300)).mean())

    assert confused(fitted) < 0.7 * confused(Cosine())
    assert (fitted.between[:8] > 5 * fitted.between[8:].max()).all()  # the first half, and how much further apart


def test_folding_the_standardisation_into_the_network_keeps_its_embeddings() -> None:
    torch.manual_seed(0)
    encoder, mels = StandardisedEncoder(TINY), torch.randn(8, 60, TINY.n_mels)
    encoder(mels)
    encoder.eval()
    folded = TINY.network().eval()
    folded.load_state_dict(fold(encoder.state_dict()))
    expected = encoder.standardise(encoder.network(mels).squeeze(1))
    torch.testing.assert_close(folded(mels).squeeze(1), expected, rtol=1e-3, atol=1e-4)


def test_a_short_run_ends_in_a_model_that_loads_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    sampler, checkpoint = CropSampler([speaker(0), speaker(1)]), tmp_path / "run.pt"
    schedule = Schedule(minutes=0.02, batch=4, short_s=(0.5,), long_s=(0.8,))
    trainer = Trainer(TINY, schedule, sampler.classes, checkpoint)
    train(trainer, sampler, [], workers=0)
    resumed = Trainer(TINY, schedule, sampler.classes, checkpoint)
    assert resumed.crops == trainer.crops > 0
    assert resumed.done >= 1
    export(TINY, averaged_weights(checkpoint), tmp_path / "model")
    encoder = Encoder.load(tmp_path / "model")
    assert encoder.dim == 12
    assert np.isfinite(encoder.embed(clip(120, 2.0)).vector).all()
