"""The Mandarin recipe: its own words in files that Vosk loads, and voices that are kept apart."""

from __future__ import annotations

import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import vosk

from ivr.speech import mandarin
from recipes.digits import features, graphs, kaldi, lfmmi, warm
from recipes.digits.lexicon import ENGLISH, UNKNOWN
from recipes.digits.network import Network
from recipes.digits.supply import FRAMES, STEPS, Sample
from recipes.digits.train import Settings, Trainer
from recipes.digits_zh import synthetic
from recipes.digits_zh.lexicon import MANDARIN, PINYIN

ROOT = Path(__file__).parents[1]
SMALL = {"width": 32, "bottleneck": 16, "dilations": (1, 2)}


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(16000) * 900 * np.sin(np.arange(16000) / 900) ** 2).astype(np.int16)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(2)
    net = Network(**SMALL, lexicon=MANDARIN)  # type: ignore[arg-type]
    for _ in range(20):
        net(torch.randn(2, 200, features.BINS) * 10 + 3)
    torch.nn.init.normal_(net.last.weight, std=0.3)
    return net.eval()


def test_vosk_finds_the_best_path_of_the_mandarin_loop(network: Network, samples: np.ndarray, tmp_path: Path) -> None:
    kaldi.write_model(tmp_path, network.exported(), MANDARIN)
    with torch.no_grad():
        scores = network(features.mfcc(torch.tensor(samples, dtype=torch.float32)[None]))[0].double().numpy()
    loop = graphs.loop(MANDARIN)
    _, path = lfmmi.best_path(scores, loop)
    entered = [b for a, b in pairwise([0, *path]) if a != b]
    recognizer = vosk.KaldiRecognizer(vosk.Model(str(tmp_path)), 8000)
    recognizer.AcceptWaveform(samples.tobytes())
    heard = json.loads(recognizer.FinalResult())["text"]
    assert heard == " ".join(loop.words[s] for s in entered if loop.words[s])
    assert set(heard.split()) <= set(MANDARIN.words)


def test_the_lexicon_has_every_word_that_the_service_listens_for() -> None:
    wanted = {*mandarin.DIGITS, *mandarin.CORRECTIONS, *mandarin.RESTART, *mandarin.ANSWERS, UNKNOWN}
    assert set(MANDARIN.words) == wanted == {*PINYIN, UNKNOWN}
    assert [mandarin.DIGITS[w] for w in MANDARIN.digits] == list("0123456789")


def test_a_training_starts_from_the_layers_of_another_languages_model(samples: np.ndarray, tmp_path: Path) -> None:
    torch.manual_seed(3)
    english = Network(**SMALL).eval()  # type: ignore[arg-type]
    kaldi.write_model(tmp_path, english.exported())
    inputs = features.mfcc(torch.tensor(samples, dtype=torch.float32)[None])
    started = Network(**SMALL, lexicon=MANDARIN).eval()  # type: ignore[arg-type]
    before = started.last.weight.clone()
    warm.start_from(started, tmp_path, inputs)
    assert torch.equal(started.last.weight, before)  # its words are none of the other's
    ours, theirs = [], []
    started.last.register_forward_hook(lambda _, given, __: ours.append(given[0]))
    english.last.register_forward_hook(lambda _, given, __: theirs.append(given[0]))
    with torch.no_grad():
        assert started(inputs).shape[-1] == len(MANDARIN.pdfs) != len(ENGLISH.pdfs)
        english(inputs)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-3, atol=1e-3)


def test_a_batch_in_which_nobody_knows_where_words_lie_trains_all_the_same() -> None:
    trainer = Trainer(Settings(minutes=1.0, flat_start_steps=0), MANDARIN)
    said = graphs.hmm(graphs.utterance_arcs(["幺", "二"]), MANDARIN)
    unknown = np.full(STEPS, -1)
    sample = Sample(np.zeros((FRAMES, features.BINS), np.float16), said, unknown, unknown)
    loss = trainer._loss(torch.randn(1, STEPS, len(MANDARIN.pdfs)), [sample])
    assert torch.isfinite(loss)


def test_no_voice_that_tests_or_chooses_trains() -> None:
    training = set(synthetic.TRAINING_VOICES.split("|"))
    assert not training & {*synthetic.HELD_OUT_VOICES, *synthetic.DEVELOPMENT_VOICES}
    assert not set(synthetic.HELD_OUT_VOICES) & set(synthetic.DEVELOPMENT_VOICES)


def test_phrases_without_our_words_hold_no_digit() -> None:
    assert not set(synthetic.GARBAGE) & set(mandarin.DIGITS)


def test_sentences_say_what_they_are_labelled_with() -> None:
    rng = random.Random(1)
    syllables = {pinyin: word for word, pinyin in PINYIN.items()}
    for _ in range(300):
        text, words = synthetic.number(rng, rng.randint(1, 16))
        spoken = "".join(ch for ch in text if ch not in ", ")
        for word in words:
            assert spoken.startswith(PINYIN[word])
            spoken = spoken.removeprefix(PINYIN[word])
        assert not spoken
    assert len(syllables) == len(PINYIN)
    for _ in range(300):
        _, words = synthetic.sentence(rng)
        assert words == [UNKNOWN] or set(words) <= set(PINYIN)


def test_the_shipped_files_are_those_of_the_manifest() -> None:
    folder = ROOT / "models/digits-zh"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["words"] == list(MANDARIN.words)
    assert {"am/final.mdl", "graph/HCLG.card.fst"} < manifest["sha256"].keys()
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
