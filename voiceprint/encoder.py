"""From audio to embedding, by any SpeechBrain speaker model in a local folder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import Pcm, activity, resample, to_float
from voiceprint.errors import EncoderBusy, ModelError
from voiceprint.manifest import Manifest, verify
from voiceprint.torchaudio_shim import import_speechbrain
from voiceprint.utterance import Utterance, unit

if TYPE_CHECKING:
    from speechbrain.inference.speaker import SpeakerRecognition

#: What is embedded at most: enough for any voice, and a bound on the time that one call can take.
MOST_SPEECH_S = 40.0
#: Recordings that may wait for the worker; at the longest, each takes it a tenth of a second.
MOST_WAITING = 100
#: Shorter audio is padded to this, because the network needs some frames.
LEAST_AUDIO_S = 0.3


class Encoder:
    """A speaker encoder. Safe to share between threads: it has one worker, which computes on one core.

    Recordings are taken in the order in which they came; beyond ``MOST_WAITING`` they are refused. One encoder a
    process is enough: more workers would only take cores from each other, and from the recogniser. Load it in the
    process that uses it: the worker does not survive a fork.
    """

    def __init__(self, model: SpeakerRecognition, manifest: Manifest) -> None:
        self._model = model
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        import torch  # takes seconds, and many processes that know of voices embed none

        self._torch = torch
        # The number of threads is a setting of the calling thread; more than one only wait for each other.
        self._worker = ThreadPoolExecutor(1, "voiceprint", initializer=torch.set_num_threads, initargs=(1,))
        self.model_id = manifest.model_id
        self.sample_rate = manifest.sample_rate
        self.dim = len(self._vector(np.zeros(self.sample_rate, np.float32)))

    @classmethod
    def load(cls, model_dir: Path) -> Encoder:
        """Loads ``model_dir`` from disk, never from a network, after its checksums were verified.

        Raises ModelError, whose message says what to do, if the folder is missing, incomplete or altered.
        """
        model_dir = Path(model_dir)
        manifest = verify(model_dir)
        return cls(_load_speechbrain(model_dir, manifest), manifest)

    def embed(self, pcm: NDArray[np.generic], sample_rate: int = 8000) -> Utterance:
        """Embeds mono audio of shape (n,), int16 or float in -1..1, of any length and content.

        Silence and snippets give an utterance too, whose ``net_speech_s`` tells that it says nothing.
        Deterministic: the same samples give the same bytes. Raises EncoderBusy if too many recordings wait.
        """
        speech = to_float(pcm)
        active = activity(speech, sample_rate)
        # Pauses tell about the line, not about the voice.
        spoken = speech[active.mask] if active.mask.any() else speech
        spoken = spoken[: int(MOST_SPEECH_S * sample_rate)]
        vector = self._vector(resample(spoken, sample_rate, self.sample_rate))
        return Utterance(
            vector, self.model_id, round(active.net_speech_s, 2), round(active.snr_db, 1), active.clipped
        )

    def _vector(self, speech: Pcm) -> NDArray[np.float32]:
        short = int(LEAST_AUDIO_S * self.sample_rate) - len(speech)
        if short > 0:
            speech = np.pad(speech, (0, short))
        if not self._room.acquire(blocking=False):
            raise EncoderBusy("too many recordings wait to be embedded: run more processes")
        try:
            return self._worker.submit(self._encode, speech).result()
        finally:
            self._room.release()

    def _encode(self, speech: Pcm) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            embedding = self._model.encode_batch(self._torch.from_numpy(speech)[None])
        return unit(embedding.reshape(-1).numpy())


def _load_speechbrain(model_dir: Path, manifest: Manifest) -> SpeakerRecognition:
    import_speechbrain()
    from speechbrain.inference.speaker import SpeakerRecognition
    from speechbrain.utils.fetching import FetchConfig, LocalStrategy

    # The official yaml names the hub in `pretrained_path`: left alone, a local copy asks the network.
    names_a_path = "pretrained_path" in (model_dir / "hyperparams.yaml").read_text(encoding="utf-8")
    overrides: dict[str, Any] = {"pretrained_path": str(model_dir)} if names_a_path else {}
    try:
        return SpeakerRecognition.from_hparams(
            source=str(model_dir),
            overrides=overrides,
            local_strategy=LocalStrategy.NO_LINK,
            fetch_config=FetchConfig(allow_network=False, allow_updates=False),
            run_opts={"device": "cpu"},
        )
    except Exception as error:  # speechbrain raises whatever yaml, torch or the file system raised
        raise ModelError(
            f"{model_dir} ({manifest.model_id}) cannot be loaded by speechbrain:"
            f" {type(error).__name__}: {error}"
        ) from error
