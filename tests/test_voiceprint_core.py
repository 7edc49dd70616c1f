"""Audio measures, records as bytes, enrolment, scoring and sealing: no model needed."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from voiceprint import (
    EnrolmentLimits,
    ModelError,
    Outcome,
    PoorQuality,
    Scorer,
    SealError,
    Utterance,
    Voiceprint,
    enrol,
    extend,
    open_sealed,
    seal,
)
from voiceprint.audio import activity, resample, to_float
from voiceprint.backend import Cosine, TwoCovariances, compare
from voiceprint.enrolment import MOST_UTTERANCES
from voiceprint.metrics import TrialScores, all_pairs, figures
from voiceprint.scoring import Calibration, QualityLimits
from voiceprint.sealing import key_id_of
from voiceprint.utterance import unit

RATE = 8000
SCORER = Scorer(
    model_id="m-1",
    verification=Calibration(-10.0, 20.0, 0.0, 0.0, threshold=2.0, most_speech_s=10.0),
    continuity=Calibration(-10.0, 25.0, 0.0, 0.0, threshold=0.0, most_speech_s=4.0),
    quality=QualityLimits(2.0, 6.0, 0.05),
    continuity_quality=QualityLimits(0.7, 6.0, 0.05),
    enrolment_limits=EnrolmentLimits(),
)


def utterance(direction: list[float], seconds: float = 3.0, snr_db: float = 25.0, **other: object) -> Utterance:
    fields = {"model_id": "m-1", "clipped": 0.0} | other
    return Utterance(unit(np.array(direction)), net_speech_s=seconds, snr_db=snr_db, **fields)  # type: ignore[arg-type]


def bursts(noise_db: float, seconds: float = 4.0) -> np.ndarray:
    """Half a second of tone, half a second of nothing, with white noise at ``noise_db`` below the tone."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = 0.1 * np.sqrt(2) * np.sin(2 * np.pi * 440 * t) * (t % 1 < 0.5)
    noise = np.random.default_rng(0).standard_normal(len(t)) * 0.1 * 10 ** (-noise_db / 20)
    return (tone + noise).astype(np.float32)


@pytest.mark.parametrize("noise_db", [10, 20, 30])
def test_activity_measures_net_speech_and_signal_to_noise(noise_db: float) -> None:
    found = activity(bursts(noise_db), RATE)
    assert found.net_speech_s == pytest.approx(2.0, abs=0.15)
    assert found.snr_db == pytest.approx(noise_db, abs=2.5)


def test_silence_and_idle_line_hold_no_speech() -> None:
    idle = np.random.default_rng(1).choice([-8, 0, 8], RATE).astype(np.int16)
    for quiet in (np.zeros(RATE, np.float32), to_float(idle), np.zeros(3, np.float32)):
        assert activity(quiet, RATE).net_speech_s == 0.0


def test_clipping_is_counted() -> None:
    assert activity(np.clip(bursts(30) * 20, -1, 1), RATE).clipped > 0.2
    assert activity(bursts(30), RATE).clipped == 0.0


def test_sixteen_bit_and_float_audio_are_the_same_audio() -> None:
    pcm = (bursts(20) * 32767).astype(np.int16)
    np.testing.assert_allclose(to_float(pcm), to_float(pcm.astype(np.float32) / 32768))
    with pytest.raises(ValueError, match="mono"):
        to_float(np.zeros((2, 100), np.int16))


def test_resampling_doubles_the_samples() -> None:
    assert len(resample(bursts(30), 8000, 16000)) == 2 * len(bursts(30))


def test_records_survive_bytes_and_hide_their_vectors() -> None:
    one = utterance([0.6, 0.8], clipped=0.01)
    again = Utterance.from_bytes(one.to_bytes())
    np.testing.assert_array_equal(again.vector, one.vector)
    assert (again.model_id, again.net_speech_s, again.snr_db, again.clipped) == ("m-1", 3.0, 25.0, 0.01)
    person = enrol([one] * 3)
    back = Voiceprint.from_bytes(person.to_bytes())
    np.testing.assert_array_equal(back.vectors, person.vectors)
    assert (back.model_id, back.utterances, back.net_speech_s) == ("m-1", 3, 9.0)
    for text in (repr(one), repr(person), str([person])):
        assert "0.6" not in text
        assert "array" not in text


@pytest.mark.parametrize("data", [b"", b"VPU1", b"VPU1\x10\x00\x00\x00{}", b"VPV1" + bytes(40)])
def test_damaged_records_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        Utterance.from_bytes(data)


@pytest.mark.parametrize(
    ("recordings", "advice"),
    [
        ([utterance([1, 0])] * 2, "more_recordings"),
        ([utterance([1, 0], seconds=0.3)] + [utterance([1, 0])] * 2, "speak_longer"),
        ([utterance([1, 0], seconds=1.0)] * 3, "speak_longer"),
        ([utterance([1, 0], snr_db=3.0)] + [utterance([1, 0])] * 2, "quieter_place"),
        ([utterance([1, 0], clipped=0.2)] + [utterance([1, 0])] * 2, "speak_softer"),
        ([utterance([0, 1])] + [utterance([1, 0])] * 2, "one_person"),
    ],
)
def test_poor_recordings_are_refused_with_advice(recordings: list[Utterance], advice: str) -> None:
    with pytest.raises(PoorQuality) as refusal:
        enrol(recordings)
    assert refusal.value.advice == advice


def test_enrolment_refuses_to_mix_models() -> None:
    with pytest.raises(ModelError):
        enrol([utterance([1, 0]), utterance([1, 0]), utterance([1, 0], model_id="m-2")])


def test_owner_matches_and_another_does_not() -> None:
    person = enrol([utterance([1, 0.1]), utterance([1, 0]), utterance([1, -0.1])])
    assert SCORER.score(person, [utterance([1, 0.2])]).outcome is Outcome.MATCH
    refused = SCORER.score(person, [utterance([0.2, 1])])
    assert refused.outcome is Outcome.NO_MATCH
    assert refused.llr < 0


@pytest.mark.parametrize("direction", [[1, 0], [0, 1]])
@pytest.mark.parametrize("quality", [{"seconds": 1.0}, {"snr_db": 2.0}, {"clipped": 0.2}])
def test_poor_quality_is_inconclusive_whatever_the_score(direction: list[float], quality: dict[str, float]) -> None:
    person = enrol([utterance([1, 0])] * 3)
    assert SCORER.score(person, [utterance(direction, **quality)]).outcome is Outcome.INCONCLUSIVE
    assert SCORER.score(person, []).outcome is Outcome.INCONCLUSIVE


def test_turns_too_short_alone_count_together() -> None:
    person = enrol([utterance([1, 0])] * 3)
    turns = [utterance([1, 0], seconds=1.5), utterance([1, 0], seconds=1.0)]
    assert SCORER.score(person, turns[:1]).outcome is Outcome.INCONCLUSIVE
    assert SCORER.score(person, turns).outcome is Outcome.MATCH


def test_no_speech_at_all_is_inconclusive_and_does_not_divide_by_zero() -> None:
    lenient = QualityLimits(0.0, 0.0, 1.0)
    assert lenient.objection([utterance([1, 0], seconds=0.0)]) is not None


def test_later_recordings_of_the_same_voice_join_and_others_do_not() -> None:
    person = enrol([utterance([1, 0.1]), utterance([1, 0]), utterance([1, -0.1])])
    limits = EnrolmentLimits()
    later = enrol([utterance([1, 0.5], seconds=1.0)], limits.of_an_addition())
    joined = extend(person, later)
    assert (joined.utterances, joined.net_speech_s) == (4, 10.0)
    np.testing.assert_array_equal(joined.vectors[:3], person.vectors)
    with pytest.raises(PoorQuality, match="one_person"):
        extend(person, enrol([utterance([0, 1])], limits.of_an_addition()))
    with pytest.raises(ModelError, match="enrol again"):
        extend(person, enrol([utterance([1, 0], model_id="m-2")] * 3))
    for _ in range(40):
        joined = extend(joined, later)
    assert joined.utterances == MOST_UTTERANCES
    np.testing.assert_array_equal(joined.vectors[-1], later.vectors[0])
    with pytest.raises(PoorQuality, match="speak_longer"):
        enrol([utterance([1, 0], seconds=0.5)], limits.of_an_addition())


def test_the_nearest_of_a_few_known_voices_is_found() -> None:
    known = {"x": enrol([utterance([1, 0.3])] * 3), "y": enrol([utterance([1, 0])] * 3)}
    found = SCORER.best_match(known, [utterance([1, 0])])
    assert found is not None
    assert (found[0], found[1].outcome) == ("y", Outcome.MATCH)
    assert SCORER.best_match(known, [utterance([0, 1])]) is None
    assert SCORER.best_match(known, [utterance([1, 0], seconds=0.5)]) is None  # cannot be told
    assert SCORER.best_match({}, [utterance([1, 0])]) is None


def two_covariances() -> TwoCovariances:
    """Voices that lie further apart along one axis than along the other."""
    projection = np.array([[2.0, 0.5], [0.0, 1.0]], np.float32)
    return TwoCovariances(np.array([0.1, -0.2], np.float32), projection, np.array([3.0, 0.5], np.float32))


def test_a_score_is_the_log_likelihood_ratio_of_one_voice_and_two() -> None:
    fitted = two_covariances()
    between, total = np.diag(fitted.between), np.diag(fitted.between + 1)
    one_voice = multivariate_normal(cov=np.block([[total, between], [between, total]]))
    two_voices = multivariate_normal(cov=np.block([[total, 0 * total], [0 * total, total]]))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 2)).astype(np.float32)
    length = np.sqrt((fitted.between + 1).sum())
    both = np.concatenate([fitted.project(side) * length for side in (a, b)], axis=1)
    # What both hypotheses have as a constant is left to the calibration.
    expected = one_voice.logpdf(both) - two_voices.logpdf(both)
    score = compare(fitted.sides(a), fitted.sides(b * 7))
    np.testing.assert_allclose(score - score[0], expected - expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score, compare(fitted.sides(b), fitted.sides(a)), rtol=1e-5)


def test_without_a_back_end_a_score_is_the_cosine() -> None:
    a, b = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    assert compare(Cosine().sides(a), Cosine().sides(a * 3)) == pytest.approx(1.0)
    assert compare(Cosine().sides(a), Cosine().sides(b * 7)) == pytest.approx(0.0)


def test_many_pairs_score_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    people = [enrol([utterance([*rng.normal(size=2)])] * 3) for _ in range(4)]
    tested = [utterance([*rng.normal(size=2)], seconds=s) for s in (1.0, 3.0, 20.0)]
    for scorer in (SCORER, replace(SCORER, backend=two_covariances())):
        test, person = (i.ravel() for i in np.indices((3, 4)))
        together = scorer.pairs(people, tested).llr(person, test)
        alone = [scorer.score(people[p], [tested[t]]).llr for t, p in zip(test, person, strict=True)]
        np.testing.assert_allclose(together, alone, rtol=1e-4)
        with pytest.raises(ModelError):
            scorer.pairs(people, [utterance([1, 0], model_id="m-2")])


def test_a_calibration_of_earlier_versions_still_loads() -> None:
    earlier = {
        "bias": -3.587, "cosine_weight": 14.5905, "by_log_s": -0.5643, "cosine_by_log_s": 2.0745, "threshold": 5.92,
        "most_speech_s": 14.02,
    }  # fmt: skip
    read = Calibration.from_json(earlier)
    assert read == Calibration(-3.587, 14.5905, -0.5643, 2.0745, 5.92, 14.02)
    expected = -3.587 - 0.5643 * np.log(5) + (14.5905 + 2.0745 * np.log(5)) * 0.6
    assert read.llr(np.array([0.6]), np.array([5.0])) == pytest.approx(expected)


def test_turns_of_one_call_are_compared_with_each_other() -> None:
    card = utterance([1, 0], seconds=6.0)
    assert SCORER.same_speaker(card, utterance([1, 0.1], seconds=1.5)).outcome is Outcome.MATCH
    assert SCORER.same_speaker(card, utterance([0, 1], seconds=1.5)).outcome is Outcome.NO_MATCH
    assert SCORER.same_speaker(card, utterance([1, 0], seconds=0.3)).outcome is Outcome.INCONCLUSIVE


def test_embeddings_of_different_models_are_never_compared() -> None:
    person = enrol([utterance([1, 0])] * 3)
    with pytest.raises(ModelError, match="enrol again"):
        SCORER.score(person, [utterance([1, 0], model_id="m-2")])
    with pytest.raises(ModelError):
        SCORER.same_speaker(utterance([1, 0]), utterance([1, 0], model_id="m-2"))


def test_sealed_bytes_open_with_their_key_and_context_only() -> None:
    key, other = os.urandom(32), os.urandom(32)
    sealed = seal(key, "2026-11", b"voice", b"customer 7|m-1")
    assert b"voice" not in sealed
    assert key_id_of(sealed) == "2026-11"
    assert open_sealed({"2026-11": key, "2025-01": other}, sealed, b"customer 7|m-1") == b"voice"
    assert seal(key, "2026-11", b"voice", b"") != seal(key, "2026-11", b"voice", b"")
    for keys, data, context in (
        ({"2026-11": key}, sealed, b"customer 8|m-1"),
        ({"2026-11": other}, sealed, b"customer 7|m-1"),
        ({"2025-01": key}, sealed, b"customer 7|m-1"),
        ({"2026-11": key}, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"customer 7|m-1"),
        ({"2026-11": key}, sealed[:20], b"customer 7|m-1"),
        ({"2026-11": key}, b"", b""),
    ):
        with pytest.raises(SealError):
            open_sealed(keys, data, context)
    with pytest.raises(SealError, match="32 bytes"):
        seal(b"short", "k", b"", b"")


def trials(genuine: list[float], impostor: list[float]) -> TrialScores:
    scores = np.array(genuine + impostor)
    same = np.arange(len(scores)) < len(genuine)
    return TrialScores(scores, same, np.arange(len(scores)) % 5, np.arange(len(scores)) % 5)


def test_error_rates_of_separable_scores_are_zero() -> None:
    found = figures(trials([2.0, 3.0] * 10, [0.0, 1.0] * 50))
    assert (found.eer.value, found.eer.high, found.fnmr_at_fmr_1pct.value) == (0.0, 0.0, 0.0)


def test_error_rates_count_what_lies_on_the_wrong_side() -> None:
    found = figures(trials([0.5] + [2.0] * 9, [1.0] * 10 + [0.0] * 90))
    fnmr = found.fnmr_at_fmr_1pct
    assert found.eer.value == pytest.approx(0.1)  # at a threshold of 1
    assert fnmr.value == pytest.approx(0.1)
    assert fnmr.low <= fnmr.value <= fnmr.high


def test_all_pairs_knows_which_pairs_are_genuine() -> None:
    pairs = all_pairs(np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), enrolled=[0, 1], tested=[0, 1, 0])
    assert (pairs.genuine, pairs.impostor) == (3, 3)
    assert sorted(pairs.score[pairs.same]) == [0.7, 0.8, 0.9]
