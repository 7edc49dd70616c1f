"""The training recipe on invented voices: who is read, what is heard, and that a run ends in a model."""

from __future__ import annotations

import csv
from importlib.util import find_spec
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
from recipes.voiceprint.export import averaged_weights, export, fold, weights_of
from recipes.voiceprint.strings import over_one_line, string
from recipes.voiceprint.teacher import targets
from recipes.voiceprint.train import Architecture, Schedule, StandardisedEncoder, Trainer, pair_loss, train
from voiceprint import Encoder
from voiceprint.backend import Cosine, compare
from voiceprint.calibration import Trials, fit, rates

TINY = Architecture(channels=(16, 16, 16, 16, 32), attention_channels=8, se_channels=8, lin_neurons=12)
#: What a teacher said of the six classes of two speakers.
TARGETS = np.random.default_rng(0).standard_normal((6, 20)).astype(np.float32)


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
    assert {label for _ in range(100) for label in sampler.draw(3, rng)} == set(range(6))
    assert sorted(sampler.draw(9, rng)) == list(range(6))  # none twice

    def pitch(label: int) -> float:
        crop, _ = sampler.pair(label, 8000, rng)
        assert crop.shape == (8000,)
        return float(np.argmax(np.abs(np.fft.rfft(crop))))

    assert pitch(2) < pitch(0) < pitch(4)


def test_the_crops_of_a_pair_share_no_clip() -> None:
    clips = [np.full(4000, level, np.int16) for level in (1000, 2000, 3000, 4000)]
    sampler, rng = CropSampler([Speaker("s", clips, [""] * 4)]), np.random.default_rng(0)
    for _ in range(20):
        one, other = (set(np.round(crop[crop > 0] * 32768)) for crop in sampler.pair(0, 12000, rng))
        assert one
        assert other
        assert not one & other


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
    schedule = Schedule(crops=60, batch=4, short_s=(0.5,), long_s=(0.8,))
    trainer = Trainer(TINY, schedule, TARGETS, checkpoint)
    train(trainer, sampler, [], workers=0)
    resumed = Trainer(TINY, schedule, TARGETS, checkpoint)
    assert resumed.crops == trainer.crops == 60
    assert resumed.done == 1
    export(TINY, averaged_weights(checkpoint), tmp_path / "model")
    encoder = Encoder.load(tmp_path / "model")
    assert encoder.dim == 12
    assert np.isfinite(encoder.embed(clip(120, 2.0)).vector).all()


def test_training_further_starts_with_the_embeddings_that_there_were(tmp_path: Path) -> None:
    torch.manual_seed(1)
    export(TINY, TINY.network().state_dict(), tmp_path)
    sampler = CropSampler([speaker(0), speaker(1)])
    trainer = Trainer(TINY, Schedule.further(60), TARGETS, tmp_path / "run.pt")
    trainer.start_from(weights_of(tmp_path), sampler, [])
    trainer.save()
    folded = averaged_weights(tmp_path / "run.pt")
    for name, weight in weights_of(tmp_path).items():
        torch.testing.assert_close(folded[name], weight, rtol=1e-3, atol=1e-4)
    assert trainer.margin.centres.norm(dim=1).max() <= 1 + 1e-5  # means of unit vectors
    assert trainer.schedule.margin_at(0.05) == trainer.schedule.margin


def test_the_pairs_of_a_batch_are_told_apart_the_better_the_nearer_they_lie() -> None:
    torch.manual_seed(0)
    voices = torch.randn(6, 12)
    near, far = (torch.cat([voices, voices + distance * torch.randn(6, 12)]) for distance in (0.1, 3.0))
    assert pair_loss(near, 30.0) < 0.05 < pair_loss(far, 30.0)


@pytest.mark.skipif(find_spec("resemblyzer") is None, reason="the recipe needs the extra `bench`")
def test_a_teacher_hears_every_class() -> None:
    heard = targets(CropSampler([speaker(0), speaker(3)]))
    assert heard.shape == (6, 256)
    np.testing.assert_allclose(np.linalg.norm(heard, axis=1), 1, rtol=1e-5)
    assert np.abs(heard[0] - heard[1]).max() > 0.01
