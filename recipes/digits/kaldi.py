"""Write a Vosk model directory: ``final.mdl`` (transition model, nnet3), the two graphs, the configuration.

Formats were read from Kaldi's source (``hmm/transition-model.cc``, ``nnet3/nnet-nnet.cc``); the tests load
the result in Vosk and compare its scores with torch's.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from ivr.speech.confidence import FILE as CONFIDENCE

from .features import BINS, MFCC_CONF, SAMPLE_RATE
from .graphs import Fst, grammar_fst, lexicon_fst
from .lexicon import ENGLISH, Lexicon, Phone
from .network import SUBSAMPLING, Affine

#: Turns are ended by the caller of the recogniser, never by Vosk's endpointer: its rules wait for hours.
_NEVER_S = 36000


def model_conf(min_active: int, beam: float) -> str:
    """Vosk's options: how many states are kept alive at least, and how far (nats) behind the best the others may be."""
    return "\n".join(
        [
            f"--min-active={min_active}",
            # With 1000, a caller's graph of card numbers takes 5.5 MB for eight seconds of speech, with 400 2.3; of
            # 51 numbers of development speakers as many are heard right.
            "--max-active=400",
            f"--beam={beam}",
            "--lattice-beam=5.0",
            # Determinize once, at the end of a turn, within 2 MB: lattices of unclear speech grow exponentially,
            # and a narrower beam there costs only alternatives. Determinizing every two seconds took minutes.
            "--determinize-max-delay=2000",
            "--determinize-min-chunk-size=1000",
            "--max-mem=2000000",
            "--acoustic-scale=1.0",
            f"--frame-subsampling-factor={SUBSAMPLING}",
            "--endpoint.silence-phones=1",
            *(f"--endpoint.rule{i}.min-trailing-silence={_NEVER_S}" for i in range(1, 5)),
            f"--endpoint.rule5.min-utterance-length={_NEVER_S}",
            "",
        ]
    )


#: A wider beam, or more states kept alive in clear speech, takes a quarter more time and changes no result of 84
#: numbers of development speakers. The graph of card numbers may then have no whole number left that fits.
MODEL_CONF = model_conf(min_active=20, beam=10.0)
#: For models that hear less clearly, whose graph of card numbers would often have none left.
WIDE_CONF = model_conf(min_active=200, beam=13.0)


class _Writer:
    """Kaldi's binary serialisation: every number is preceded by its size in bytes."""

    def __init__(self) -> None:
        self.out = BytesIO()
        self.out.write(b"\0B")

    def tokens(self, *tokens: str) -> None:
        self.out.write("".join(t + " " for t in tokens).encode())

    def int32(self, *values: int) -> None:
        for value in values:
            self.out.write(b"\x04" + struct.pack("<i", value))

    def float32(self, value: float) -> None:
        self.out.write(b"\x04" + struct.pack("<f", value))

    def float64(self, value: float) -> None:
        self.out.write(b"\x08" + struct.pack("<d", value))

    def int32_vector(self, values: Sequence[int]) -> None:
        self.int32(len(values))
        self.out.write(np.asarray(values, "<i4").tobytes())

    def vector(self, values: np.ndarray | Sequence[float]) -> None:
        array = np.asarray(values, "<f4")
        self.tokens("FV")
        self.int32(len(array))
        self.out.write(array.tobytes())

    def matrix(self, values: np.ndarray) -> None:
        array = np.ascontiguousarray(values, "<f4")
        self.tokens("FM")
        self.int32(*array.shape)
        self.out.write(array.tobytes())


def _write_transition_model(w: _Writer, phones: Sequence[Phone]) -> None:
    """One emitting state a phone. Its probabilities are never used: the graphs carry all costs."""
    count = len(phones)
    w.tokens("<TransitionModel>", "<Topology>")
    w.int32_vector([p.id for p in phones])
    w.int32_vector([-1] + [0] * count)  # phone -> entry of the topology
    w.int32(1, 2)  # one entry of two states
    w.int32(0, 2, 0)  # state 0: pdf class 0, two transitions: to itself
    w.float32(0.5)
    w.int32(1)  # and to the end
    w.float32(0.5)
    w.int32(-1, 0)  # state 1: emits nothing, no transitions
    w.tokens("</Topology>", "<Triples>")
    w.int32(count)
    for phone in phones:
        w.int32(phone.id, 0, phone.pdf)
    w.tokens("</Triples>", "<LogProbs>")
    w.vector([0.0] + [math.log(0.5)] * (2 * count))  # entry 0 is unused
    w.tokens("</LogProbs>", "</TransitionModel>")


def _descriptor(source: str, offsets: Sequence[int]) -> str:
    terms = [source if o == 0 else f"Offset({source}, {o})" for o in offsets]
    return terms[0] if len(terms) == 1 else f"Append({', '.join(terms)})"


def _write_network(w: _Writer, layers: Sequence[Affine]) -> None:
    nodes = [f"input-node name=input dim={BINS}"]
    components: list[tuple[str, Affine | None, int]] = []
    source, block_input = "input", ""
    for i, layer in enumerate(layers):
        parts: list[tuple[str, str]] = [(f"affine{i}", _descriptor(source, layer.offsets))]
        components.append((f"affine{i}", layer, len(layer.bias)))
        if layer.relu:
            parts.append((f"relu{i}", f"affine{i}"))
            components.append((f"relu{i}", None, len(layer.bias)))
        if layer.residual:
            parts.append((f"sum{i}", f"Sum({block_input}, relu{i})"))
            components.append((f"sum{i}", None, len(layer.bias)))
        nodes += [f"component-node name={n} component={n} input={d}" for n, d in parts]
        source = parts[-1][0]
        if i == 0 or layer.residual:
            block_input = source
    nodes.append(f"output-node name=output input={source} objective=linear")
    w.tokens("<Nnet3>")
    w.out.write(("\n" + "\n".join(nodes) + "\n\n").encode())
    w.tokens("<NumComponents>")
    w.int32(len(components))
    for name, affine, size in components:
        w.tokens("<ComponentName>", name)
        if affine is not None:
            w.tokens("<FixedAffineComponent>", "<LinearParams>")
            w.matrix(affine.weight)
            w.tokens("<BiasParams>")
            w.vector(affine.bias)
            w.tokens("</FixedAffineComponent>")
        elif name.startswith("relu"):
            w.tokens("<RectifiedLinearComponent>", "<Dim>")
            w.int32(size)
            w.tokens("<ValueAvg>")
            w.vector([])
            w.tokens("<DerivAvg>")
            w.vector([])
            w.tokens("<Count>")
            w.float64(0.0)
            w.tokens("</RectifiedLinearComponent>")
        else:
            w.tokens("<NoOpComponent>", "<Dim>")
            w.int32(size)
            w.tokens("<BackpropScale>")
            w.float32(1.0)
            w.tokens("</NoOpComponent>")
    w.tokens("</Nnet3>")


def final_mdl(layers: Sequence[Affine], lexicon: Lexicon = ENGLISH) -> bytes:
    """``am/final.mdl``. Contexts are recomputed by Kaldi on loading; no priors: LF-MMI scores need none."""
    w = _Writer()
    _write_transition_model(w, lexicon.phones)
    _write_network(w, layers)
    w.tokens("<LeftContext>")
    w.int32(0)
    w.tokens("<RightContext>")
    w.int32(0)
    w.tokens("<Priors>")
    w.vector([])
    return w.out.getvalue()


def openfst(fst: Fst, sort_by_output: bool) -> bytes:
    """OpenFst's ``vector`` file with ``standard`` arcs, sorted by input or output label.

    Written here because OpenFst's Python wheels and Vosk's library, each with OpenFst inside, crash together.
    """
    states: list[list[tuple[int, int, int, int, float]]] = [[] for _ in range(fst.states)]
    for arc in fst.arcs:
        states[arc[0]].append(arc)
    expanded_mutable, sorted_by_input, sorted_by_output = 0x3, 0x10000000, 0x40000000  # property bits
    properties = expanded_mutable | (sorted_by_output if sort_by_output else sorted_by_input)
    out = [struct.pack("<i", 2125659606)]
    out += [struct.pack("<i", len(name)) + name for name in (b"vector", b"standard")]
    out.append(struct.pack("<iiQqqq", 2, 0, properties, 0, fst.states, len(fst.arcs)))
    for state, arcs in enumerate(states):
        out.append(struct.pack("<fq", 0.0 if state in fst.final else math.inf, len(arcs)))
        for _, target, input_id, output_id, cost in sorted(arcs, key=lambda a: a[3 if sort_by_output else 2]):
            out.append(struct.pack("<iifi", input_id, output_id, cost, target))
    return b"".join(out)


def write_model(
    folder: Path, layers: Sequence[Affine], lexicon: Lexicon = ENGLISH, conf: str = MODEL_CONF
) -> None:
    """Write the files that ``vosk.Model(folder)`` loads. The confidence of a network that was there before goes."""
    (folder / CONFIDENCE).unlink(missing_ok=True)
    for name in ("am", "conf", "graph/phones"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "am/final.mdl").write_bytes(final_mdl(layers, lexicon))
    (folder / "conf/mfcc.conf").write_text(MFCC_CONF)
    (folder / "conf/model.conf").write_text(conf)
    graph = folder / "graph"
    (graph / "words.txt").write_text("<eps> 0\n" + "".join(f"{w} {i}\n" for w, i in lexicon.word_id.items()))
    (graph / "phones/word_boundary.int").write_text("".join(f"{p.id} {p.boundary}\n" for p in lexicon.phones))
    (graph / "disambig_tid.int").write_text("")  # must exist; ours has none
    (graph / "HCLr.fst").write_bytes(openfst(lexicon_fst(lexicon), sort_by_output=True))
    (graph / "Gr.fst").write_bytes(openfst(grammar_fst(lexicon), sort_by_output=False))


def write_manifest(
    folder: Path, model_id: str, training: Mapping[str, object], lexicon: Lexicon = ENGLISH
) -> None:
    """``manifest.json``: what the model is, how it was trained, and the digest of every other file."""
    about = ("manifest.json", "MODEL_CARD.md", "reliability.png")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in about)
    manifest = {
        "id": model_id,
        "format": "vosk",
        "sample_rate": SAMPLE_RATE,
        "words": list(lexicon.words),
        "training": training,
        "sha256": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
