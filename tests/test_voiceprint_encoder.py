"""The encoder on real model folders: the shipped one, and one in the layout of the official ECAPA."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from voiceprint import Encoder, ModelError, PoorQuality, Scorer, backend, enrol, extend, manifest
from voiceprint.errors import EncoderBusy
from voiceprint.torchaudio_shim import import_speechbrain

SHIPPED = Path(__file__).parents[1] / "models" / "voice"
AUDIO = Path(__file__).parents[1] / "fixtures" / "audio"

OFFICIAL_LAYOUT = """
pretrained_path: speechbrain/spkrec-ecapa-voxceleb
n_mels: 80
out_n_neurons: 4
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    groups: [1, 1, 1, 1, 1]
    attention_channels: 8
    lin_neurons: 24
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 24
    out_neurons: !ref <out_n_neurons>
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        mean_var_norm_emb: !ref <mean_var_norm_emb>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


def hum(hz: float, seconds: float = 3.0) -> np.ndarray:
    """A buzzing voice at ``hz`` in syllables, int16 at 8 kHz."""
    t = np.arange(int(seconds * 8000)) / 8000
    buzz = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, int(3400 / hz)))
    return (buzz * (np.sin(2 * np.pi * 3 * t) > -0.3) * 6000).astype(np.int16)


@pytest.fixture(scope="module")
def shipped() -> Encoder:
    return Encoder.load(SHIPPED)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A small 16 kHz model with the files and the yaml of speechbrain/spkrec-ecapa-voxceleb."""
    import_speechbrain()
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier

    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(OFFICIAL_LAYOUT)
    network = ECAPA_TDNN(80, channels=[16, 16, 16, 16, 48], attention_channels=8, lin_neurons=24)
    torch.save(network.state_dict(), folder / "embedding_model.ckpt")
    torch.save(Classifier(24, out_neurons=4).state_dict(), folder / "classifier.ckpt")
    statistics = {"count": 1, "glob_mean": torch.zeros(24), "glob_std": torch.ones(24)}
    torch.save(
        statistics | {"spk_dict_mean": {}, "spk_dict_std": {}, "spk_dict_count": {}},
        folder / "mean_var_norm_emb.ckpt",
    )
    labels = "".join(f"'s{i}' => {i}\n" for i in range(4))
    (folder / "label_encoder.txt").write_text(labels + "================\n'starting_index' => 0\n")
    return folder


def test_embedding_is_of_unit_length_and_tells_the_quality(shipped: Encoder) -> None:
    heard = shipped.embed(hum(120))
    assert heard.vector.shape == (shipped.dim,)
    assert heard.vector.dtype == np.float32
    assert np.linalg.norm(heard.vector) == pytest.approx(1.0, abs=1e-5)
    assert heard.model_id == shipped.model_id
    assert 1.5 < heard.net_speech_s < 2.6


def test_embedding_is_deterministic_across_threads_and_loads(shipped: Encoder) -> None:
    voices = [hum(hz) for hz in (100, 130, 170, 210)] * 3
    alone = [shipped.embed(v).vector for v in voices]
    with ThreadPoolExecutor(4) as pool:
        together = [u.vector for u in pool.map(shipped.embed, voices)]
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(Encoder.load(SHIPPED).embed(voices[0]).vector, alone[0])


def test_embedding_leaves_the_threads_of_its_caller_alone(shipped: Encoder) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    shipped.embed(hum(120))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_more_recordings_than_can_wait_are_refused_and_the_rest_served(
    shipped: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_room", threading.BoundedSemaphore(2))
    going, go_on = threading.Event(), threading.Event()
    encode = shipped._encode

    def slow(speech: np.ndarray) -> np.ndarray:
        going.set()
        assert go_on.wait(30)
        return encode(speech)

    monkeypatch.setattr(shipped, "_encode", slow)
    with ThreadPoolExecutor(2) as callers:
        served = [callers.submit(shipped.embed, hum(hz)) for hz in (100, 130)]
        assert going.wait(30)
        while shipped._room._value:  # type: ignore[attr-defined]
            time.sleep(0.01)
        with pytest.raises(EncoderBusy, match="run more processes"):
            shipped.embed(hum(170))
        go_on.set()
        assert [s.result().vector.shape for s in served] == [(shipped.dim,)] * 2
    assert shipped.embed(hum(170)).net_speech_s > 1  # there is room again


def test_level_and_sample_format_do_not_change_the_embedding(shipped: Encoder) -> None:
    pcm = hum(140)
    quieter = (pcm.astype(np.float32) / 32768) * 0.3
    assert shipped.embed(pcm).vector @ shipped.embed(quieter).vector > 0.999


@pytest.mark.parametrize(
    "pcm", [np.zeros(0, np.int16), np.zeros(40000, np.int16), hum(120, 0.02), np.full(9, np.nan)]
)
def test_silence_and_snippets_give_an_utterance_that_says_nothing(shipped: Encoder, pcm: np.ndarray) -> None:
    heard = shipped.embed(pcm)
    assert heard.net_speech_s < 0.1
    assert np.isfinite(heard.vector).all()


def test_sixteen_kilohertz_audio_is_resampled(shipped: Encoder) -> None:
    from scipy.signal import resample_poly

    twice = resample_poly(hum(120).astype(np.float32) / 32768, 2, 1)
    assert shipped.embed(twice, 16000).vector @ shipped.embed(hum(120)).vector > 0.98


def test_official_layout_loads_from_its_folder_without_network(official: Path, no_network: None) -> None:
    manifest.write(official, "official", 16000)
    encoder = Encoder.load(official)
    heard = encoder.embed(hum(120), 8000)
    assert encoder.sample_rate == 16000
    assert heard.vector.shape == (24,)
    assert heard.model_id.startswith("official-")
    assert np.isfinite(heard.vector).all()
    assert {p.name for p in official.iterdir()} == {
        "hyperparams.yaml", "embedding_model.ckpt", "classifier.ckpt", "mean_var_norm_emb.ckpt",
        "label_encoder.txt", "manifest.json",
    }  # fmt: skip


def test_missing_folder_is_an_error_and_no_download(no_network: None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        Encoder.load(tmp_path / "speechbrain" / "spkrec-ecapa-voxceleb")


def test_unpinned_folder_is_refused_with_the_command_that_pins_it(official: Path) -> None:
    with pytest.raises(ModelError, match="python -m voiceprint.manifest"):
        Encoder.load(official)


@pytest.mark.parametrize("name", ["hyperparams.yaml", "embedding_model.ckpt", "calibration.json"])
def test_altered_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "voice"))
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    with pytest.raises(ModelError, match="altered"):
        Encoder.load(copy)
    (copy / name).unlink()
    with pytest.raises(ModelError, match="lacks"):
        Encoder.load(copy)


def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "voice"))
    pins = json.loads((copy / "manifest.json").read_text())
    pins["files"]["../voice/hyperparams.yaml"] = pins["files"]["hyperparams.yaml"]
    (copy / "manifest.json").write_text(json.dumps(pins))
    with pytest.raises(ModelError, match="lacks"):
        Encoder.load(copy)


def test_scorer_is_refused_without_a_calibration_of_its_model(official: Path, tmp_path: Path) -> None:
    manifest.write(official, "official", 16000)
    with pytest.raises(ModelError, match="calibrate"):
        Scorer.load(official)
    shutil.copy(SHIPPED / "calibration.json", official)
    manifest.write(official, "official", 16000)
    with pytest.raises(ModelError, match="is of model"):
        Scorer.load(official)


def test_a_back_end_belongs_to_the_calibration_made_with_it(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    fitted = backend.load(folder, manifest.verify(folder))
    assert isinstance(fitted, backend.TwoCovariances)
    backend.save(folder, replace(fitted, between=fitted.between * 2))
    with pytest.raises(ModelError, match="calibrate again"):
        Scorer.load(folder)
    (folder / "backend.npz").write_bytes(b"not one")
    with pytest.raises(ModelError, match="was altered"):
        Scorer.load(folder)
    manifest.add(folder, json_manifest(folder), "backend.npz", b"not one")
    with pytest.raises(ModelError, match="no back end"):
        Scorer.load(folder)


def json_manifest(folder: Path) -> manifest.Manifest:
    return manifest.Manifest(**json.loads((folder / "manifest.json").read_text()))


def test_a_back_end_that_is_not_pinned_is_not_read(official: Path, tmp_path: Path) -> None:
    pinned = manifest.write(official, "official", 16000)
    (official / "backend.npz").write_bytes(b"planted")
    assert type(backend.load(official, pinned)) is backend.Cosine


def test_shipped_folder_states_where_its_threshold_comes_from(shipped: Encoder) -> None:
    scorer = Scorer.load(SHIPPED)
    record = json.loads((SHIPPED / "calibration.json").read_text())
    assert scorer.model_id == shipped.model_id
    assert record["sample_rate"] == shipped.sample_rate
    counts = record["verification"]["all"]
    assert counts["impostor"] > 3000
    assert counts["impostor_accepted"] / counts["impostor"] <= 0.003
    assert (SHIPPED / "embedding_model.ckpt").stat().st_size < 15_000_000


def test_whether_one_person_spoke_is_decided_by_the_calibrated_score(shipped: Encoder) -> None:
    scorer = Scorer.load(SHIPPED)
    limits = scorer.enrolment_limits
    heard = {
        voice: [shipped.embed(*soundfile.read(AUDIO / voice / f"enrol_{i}.wav")) for i in (1, 2, 3)]
        for voice in ("alice", "carol")
    }
    alice, carol = (enrol(own, limits, scorer.llr) for own in heard.values())
    assert extend(alice, carol, limits).utterances == 6  # by the cosine alone she would be the same woman
    with pytest.raises(PoorQuality, match="one_person"):
        extend(alice, carol, limits, scorer.llr)
    with pytest.raises(PoorQuality, match="one_person"):
        enrol([*heard["alice"][:2], heard["carol"][0]], limits, scorer.llr)
    assert extend(alice, alice, limits, scorer.llr).utterances == 6


def test_speechbrain_imports_whatever_torchaudio_is_installed() -> None:
    code = "from voiceprint.torchaudio_shim import import_speechbrain as i; i(); i()\n"
    code += "import speechbrain.inference.speaker"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIPPED.parents[1], capture_output=True)


def test_a_native_torchaudio_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("from torchaudio import _extension")
    (tmp_path / "torchaudio" / "_extension.py").write_text("")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from voiceprint.torchaudio_shim import ensure_torchaudio
assert not ensure_torchaudio() and not hasattr(sys.modules["torchaudio._extension"], "is_stub")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIPPED.parents[1], capture_output=True)


def test_nothing_in_sys_modules_raises_when_it_is_looked_at(shipped: Encoder) -> None:
    assert shipped.dim
    for module in list(sys.modules.values()):
        getattr(module, "__file__", None)
