"""The digit recipe: features, graphs, loss and files agree with Kaldi and Vosk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import pytest
import soundfile as sf
import torch
import vosk

from recipes.digits import augment, clips, evaluate, features, fluent, graphs, kaldi, lexicon, lfmmi, warm, words
from recipes.digits.mixing import WINDOW_S, Example
from recipes.digits.network import Network
from recipes.heldout import DEFAULT_PERCENT, bucket

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)
vosk.SetLogLevel(-1)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Two seconds of noise bursts, int16."""
    rng = np.random.default_rng(0)
    bursts = np.sin(np.arange(16000) / 900) ** 2
    return (rng.standard_normal(16000) * 900 * bursts).astype(np.int16)


@pytest.fixture(scope="module")
def network() -> Network:
    """Random weights, with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(3)
    net = Network(width=32, bottleneck=16, dilations=(1, 2))
    net.train()
    for _ in range(20):
        net(torch.randn(2, 200, features.BINS) * 10 + 3)
    torch.nn.init.normal_(net.last.weight, std=0.3)
    return net.eval()


@pytest.fixture(scope="module")
def model_dir(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    kaldi.write_model(folder, network.exported())
    kaldi.write_manifest(folder, "test", {})
    return folder


def scores_of(network: Network, samples: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(features.mfcc(torch.tensor(samples, dtype=torch.float32)[None]))[0].double().numpy()


def test_mfcc_equals_kaldi_native_fbank(samples: np.ndarray) -> None:
    options = knf.MfccOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = 8000, 0
    options.mel_opts.num_bins = options.num_ceps = features.BINS
    options.mel_opts.low_freq, options.mel_opts.high_freq = features.LOW_HZ, features.HIGH_HZ
    options.use_energy = False
    reference = knf.OnlineMfcc(options)
    reference.accept_waveform(8000, samples.astype(float).tolist())
    reference.input_finished()
    expected = np.stack([reference.get_frame(i) for i in range(reference.num_frames_ready)])
    ours = features.mfcc(torch.tensor(samples, dtype=torch.float32)[None])[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_vosk_finds_the_best_path_of_the_training_loop(
    network: Network, model_dir: Path, samples: np.ndarray
) -> None:
    """Score of Vosk equals Viterbi over torch's scores: features, network, graphs and costs are exact."""
    scores, loop = scores_of(network, samples), graphs.loop()
    best, path = lfmmi.best_path(scores, loop)
    acoustic = scores[range(len(path)), loop.pdfs[path]].sum()
    recognizer = vosk.KaldiRecognizer(vosk.Model(str(model_dir)), 8000)
    recognizer.SetMaxAlternatives(1)
    recognizer.AcceptWaveform(samples.tobytes())
    result = json.loads(recognizer.FinalResult())["alternatives"][0]
    entered = [b for a, b in pairwise([0, *path]) if a != b]
    assert " ".join(loop.words[s] for s in entered if loop.words[s]) == result["text"]
    # Vosk takes graph costs by 0.9 in the score of an alternative.
    assert result["confidence"] == pytest.approx(acoustic + 0.9 * (best - acoustic), abs=0.02)


def test_a_new_network_does_not_keep_the_confidence_of_the_old_one(network: Network, tmp_path: Path) -> None:
    (tmp_path / "confidence.json").write_text("{}")
    kaldi.write_model(tmp_path, network.exported())
    kaldi.write_manifest(tmp_path, "test", {})
    assert not (tmp_path / "confidence.json").exists()
    assert "confidence.json" not in json.loads((tmp_path / "manifest.json").read_text())["sha256"]


def test_a_runtime_grammar_allows_only_its_words(model_dir: Path, samples: np.ndarray) -> None:
    recognizer = vosk.KaldiRecognizer(vosk.Model(str(model_dir)), 8000, json.dumps(["yes", "no"]))
    recognizer.AcceptWaveform(samples.tobytes())
    assert set(json.loads(recognizer.FinalResult())["text"].split()) <= {"yes", "no"}


def test_numerator_never_exceeds_denominator() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 70, len(lexicon.PDFS)) * 3
    arcs = [
        graphs.utterance_arcs(["four", "two", lexicon.UNKNOWN, "yes"]),
        graphs.utterance_arcs([]),
        graphs.number_arcs("0077788"),
        graphs.utterance_arcs([lexicon.UNKNOWN, lexicon.UNKNOWN]),
    ]
    numerator = lfmmi.log_sum(scores, lfmmi.HmmBatch([graphs.hmm(a) for a in arcs]))
    denominator = lfmmi.log_sum(scores, lfmmi.HmmBatch([graphs.loop()]))
    assert torch.isfinite(numerator).all()
    assert (numerator < denominator).all()


def test_gradient_of_the_log_sum_is_exact() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 6, len(lexicon.PDFS), dtype=torch.float64, requires_grad=True)
    batch = lfmmi.HmmBatch([graphs.hmm(graphs.utterance_arcs(w)) for w in (["oh"], ["oh", "oh"])])
    assert torch.autograd.gradcheck(lambda s: lfmmi.log_sum(s, batch), (scores,), atol=1e-4)


def test_a_number_may_be_said_with_double_and_oh() -> None:
    words = {w for _, _, w in graphs.number_arcs("0077788")}
    assert words == {"zero", "oh", "seven", "eight", "double", "triple"}


FOLDERS = (
    *("speech_commands_digits", "speech_commands_voices", "speech_commands_words", "digit_strings_mx"),
    *("phone_numbers", "librispeech_resemblyzer", "librispeech_deepspeaker", "noise_rir"),
)


def test_no_recording_of_a_held_out_speaker_is_read(tmp_path: Path, samples: np.ndarray) -> None:
    speakers = [f"sc_{i:08x}" for i in range(300)]
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manifest.tsv").write_text("path\tspeaker\ttext\tnotes\n")
    with (tmp_path / "speech_commands_digits/manifest.tsv").open("a") as manifest:
        manifest.writelines(f"{s}.flac\t{s}\ttwo\t\n" for s in speakers)
    burst = np.pad(samples[1000:4000], 2000)
    for speaker in speakers:
        sf.write(tmp_path / "speech_commands_digits" / f"{speaker}.flac", burst, 8000)
    training, development = (set(clips.load(tmp_path, development=d).digits) for d in (False, True))
    held_out = {s for s in speakers if bucket(s) < DEFAULT_PERCENT}
    assert held_out
    assert training | development | held_out == set(speakers)
    assert not training & development
    assert not (training | development) & held_out


def test_the_shipped_files_are_those_of_the_manifest() -> None:
    folder = Path(__file__).parents[1] / "models/digits"
    digests = json.loads((folder / "manifest.json").read_text())["sha256"]
    assert "am/final.mdl" in digests
    for name, digest in digests.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_what_ships_of_a_warm_start_lies_between_it_and_the_shipped_model(network: Network, model_dir: Path) -> None:
    layers = network.exported()
    further = [replace(layer, weight=layer.weight + 2, bias=layer.bias - 4) for layer in layers]
    mean = warm.averaged(further, model_dir, 0.25)
    for found, began in zip(mean, layers, strict=True):
        np.testing.assert_allclose(found.weight, began.weight + 1.5, rtol=1e-5)
        np.testing.assert_allclose(found.bias, began.bias - 3, rtol=1e-5)


def test_a_training_may_start_from_a_shipped_model(network: Network, model_dir: Path, samples: np.ndarray) -> None:
    started = Network(width=32, bottleneck=16, dilations=(1, 2))
    warm.start_from(started, model_dir, features.mfcc(torch.randn(4, 16000) * 500))
    np.testing.assert_allclose(
        scores_of(started.eval(), samples), scores_of(network, samples), atol=2e-3 * np.ptp(scores_of(network, samples))
    )
    with pytest.raises(ValueError, match="another shape"):
        warm.start_from(Network(width=48, bottleneck=16, dilations=(1, 2)), model_dir, torch.randn(1, 200, 40))


class Noisy:
    """In place of recordings: noise, in which the words are said to be."""

    def __init__(self, *words: str) -> None:
        self._rng, self._words = np.random.default_rng(4), list(words)

    def example(self) -> Example:
        samples = (self._rng.standard_normal(int(WINDOW_S * clips.SAMPLE_RATE)) * 900).astype(np.float32)
        return Example(samples, graphs.utterance_arcs(self._words), None)

    spoken = unknown = example


def test_words_are_added_and_the_others_heard_as_before(tmp_path: Path) -> None:
    shipped = ROOT / "models/digits"
    new = ("confirm", "pay")
    assert lexicon.WORDS[-2:] == new
    before = lexicon.Lexicon(
        {w: s for w, s in lexicon.LEXICON.items() if w not in new}, lexicon.EXTRA_COST, lexicon.DIGITS
    )
    known = warm.read_layers((shipped / "am/final.mdl").read_bytes())
    known[-1] = tuple(x[: len(before.pdfs)] for x in known[-1])
    layers = [replace(at, weight=w, bias=b) for at, (w, b) in zip(Network().exported(), known, strict=True)]
    kaldi.write_model(tmp_path / "old", layers, before)
    added = words.train(tmp_path / "old", Noisy("pay", "confirm"), updates=2)  # type: ignore[arg-type]
    kaldi.write_model(tmp_path / "new", added)

    assert len(added[-1].weight) == len(lexicon.PDFS) == len(before.pdfs) + 8
    assert (added[-1].weight[-1] != added[-1].weight[-2]).any()
    speech = sf.read(ROOT / "ivr/speech/proof.wav", dtype="int16")[0]
    heard = []
    for name in ("old", "new"):
        recognizer = vosk.KaldiRecognizer(vosk.Model(str(tmp_path / name)), 8000, evaluate.GRAMMAR)
        recognizer.SetMaxAlternatives(8)
        recognizer.AcceptWaveform(speech.tobytes())
        heard.append(json.loads(recognizer.FinalResult())["alternatives"])
    assert heard[0] == heard[1]
    assert len(heard[0]) > 1


def test_words_of_a_fluent_number_are_found_in_order() -> None:
    samples, rate = sf.read("ivr/speech/proof.wav", dtype="float32")
    assert rate == clips.SAMPLE_RATE
    shipped = Network()
    warm.start_from(shipped, Path("models/digits"), features.mfcc(torch.from_numpy(samples * 32768)[None]))
    loop = graphs.hmm([(0, 0, word) for word in lexicon.DIGITS])
    digits = evaluate.digits_of(evaluate.best_words(shipped.eval(), samples * 32768, loop))
    number = digits, clips.find_speech(samples)
    places = fluent.align(shipped, *number)
    assert [lexicon.DIGITS[int(d)] for d in digits] == [w.replace("oh", "zero") for w, _, _ in places]
    assert all(a[2] <= b[1] < b[2] for a, b in pairwise(places))
    (cut,) = fluent.cut([number], [places])
    assert [w for w, _ in cut] == [w for w, _, _ in places]
    assert all(0.08 < len(clip.cut()) / clips.SAMPLE_RATE < 0.8 for _, clip in cut)


def test_lost_packets_are_whole_and_few() -> None:
    speech = np.sin(np.arange(40000) / 3).astype(np.float32)
    lost = augment.lose_packets(speech, np.random.default_rng(1))
    changed = (lost != speech).reshape(-1, 160).any(1)
    assert 0 < changed.mean() < 0.3
    assert not (lost != speech)[~np.repeat(changed, 160)].any()


def test_recordings_of_ones_own_are_added(tmp_path: Path, samples: np.ndarray) -> None:
    (tmp_path / "callers").mkdir()
    said = {"a": "4539148803436467", "b": "seven", "c": "good morning"}
    for name in said:
        sf.write(tmp_path / "callers" / f"{name}.wav", samples[:6000], 8000)
    speakers = (f"caller{i}" for i in range(1000))
    speaker = next(s for s in speakers if bucket(s) >= DEFAULT_PERCENT + clips.DEVELOPMENT_BUCKETS)
    rows = "".join(f"{name}.wav\t{speaker}\t{text}\n" for name, text in said.items())
    (tmp_path / "callers" / "manifest.tsv").write_text("path\tspeaker\ttext\n" + rows)
    corpus = clips.Corpus()
    for row, heard in clips._clips(tmp_path, "callers", development=False):
        clips._add_own(corpus, row, clips.find_speech(heard))
    assert [text for text, _ in corpus.numbers] == [said["a"]]
    assert [word for word, _ in corpus.digits[speaker]] == ["seven"]
    assert len(corpus.sentences) == 1
    sf.write(tmp_path / "callers" / "c.wav", samples, 16000)
    with pytest.raises(ValueError, match="16000 Hz"):
        list(clips._clips(tmp_path, "callers", development=False))
