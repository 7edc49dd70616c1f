"""The digit model and its recognisers: what they refuse to load, and how they hear."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ivr.resources import shipped
from ivr.speech.audio import Pcm, read_audio
from ivr.speech.numbers import edit_distance, plainest
from ivr.speech.pan import luhn_valid
from ivr.speech.recogniser import CARD_GRAPH, DigitModel, DigitModelError, Grammar
from recipes.digits import cards, graphs, kaldi

CARD = "4539148803436467"


@pytest.fixture(scope="module")
def model() -> DigitModel:
    return DigitModel(shipped("models/digits"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped("models/digits"), tmp_path / "model"))


def recording(name: str) -> Pcm:
    return read_audio(shipped("fixtures/audio") / name)


def words(model: DigitModel, pcm: Pcm, grammar: Grammar, piece: int = 800) -> list[str]:
    recogniser = model.recogniser(grammar)
    for at in range(0, len(pcm), piece):
        recogniser.accept(pcm[at : at + piece])
    return recogniser.finish(1)[0].texts


def test_a_model_that_ignores_grammars_is_refused(copy: Path) -> None:
    (copy / "graph/HCLr.fst").rename(copy / "graph/HCLG.fst")
    with pytest.raises(DigitModelError, match="ignores grammars"):
        DigitModel(copy)


def test_a_model_without_our_words_is_refused_and_the_words_are_named(copy: Path) -> None:
    vocabulary = copy / "graph/words.txt"
    vocabulary.write_text(vocabulary.read_text().replace("triple", "treble"))
    with pytest.raises(DigitModelError, match="triple"):
        DigitModel(copy)


def test_a_model_that_hears_nothing_is_refused(copy: Path) -> None:
    conf = copy / "conf/mfcc.conf"
    conf.write_text(conf.read_text().replace("--high-freq", "--low-freq=3000\n--high-freq"))
    with pytest.raises(DigitModelError):
        DigitModel(copy)


def test_what_is_no_model_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(DigitModelError, match="no final.mdl"):
        DigitModel(tmp_path)
    (copy / "am/final.mdl").write_bytes(b"\0B garbage")
    with pytest.raises(DigitModelError, match="no Vosk model that loads"):
        DigitModel(copy)


def test_digits_are_heard_with_times_and_alternatives(model: DigitModel) -> None:
    pcm = recording("alice/card.wav")
    recogniser = model.recogniser(Grammar.CARD)
    recogniser.accept(pcm)
    spoken = recogniser.finish(10)
    assert min(edit_distance(CARD, plainest(alternative.texts)) for alternative in spoken) <= 1
    assert [s.score for s in spoken] == sorted((s.score for s in spoken), reverse=True)
    times = [time for word in spoken[0].words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= len(pcm) / 8000 + 0.1


def test_a_grammar_hears_only_its_words(model: DigitModel) -> None:
    pcm = recording("alice/card.wav")
    for grammar in (Grammar.YES_NO, Grammar.CHOICE):
        assert set(words(model, pcm, grammar)) <= set(grammar.value)


def test_what_is_heard_does_not_depend_on_how_it_is_cut(model: DigitModel) -> None:
    pcm = recording("alice/card.wav")
    assert words(model, pcm, Grammar.DIGITS, 160) == words(model, pcm, Grammar.DIGITS, 5000)


def test_segments_are_joined_and_times_go_on(model: DigitModel) -> None:
    recogniser = model.recogniser(Grammar.DIGITS)
    for name in ("alice/one.wav", "alice/two.wav"):
        recogniser.accept(recording(name))
        recogniser.finish(1)
    recogniser.accept(recording("alice/three.wav"))
    assert recogniser.partial_words()[:2] == ["one", "two"]
    best = recogniser.finish(5)[0]
    assert best.texts == ["one", "two", "three"]
    assert best.words[2].start_s > len(recording("alice/one.wav")) / 8000


def test_nothing_said_is_one_alternative_of_no_words(model: DigitModel) -> None:
    recogniser = model.recogniser(Grammar.CARD)
    assert [s.texts for s in recogniser.finish(5)] == [[]]
    recogniser.accept(np.zeros(8000, np.int16))
    assert recogniser.partial_words() == []
    assert recogniser.finish(5)[0].texts == []


def test_callers_are_heard_at_the_same_time(model: DigitModel) -> None:
    names = [f"alice/{name}.wav" for name in ("one", "two", "three")] * 3
    with ThreadPoolExecutor(3) as threads:
        heard = list(threads.map(lambda name: words(model, recording(name), Grammar.CHOICE), names))
    assert heard == [["one"], ["two"], ["three"]] * 3


def test_a_wide_band_model_is_given_wide_band_audio(copy: Path) -> None:
    # The shipped model resamples by itself; here it is told that it is a model of 16 kHz that does not.
    conf = copy / "conf/mfcc.conf"
    conf.write_text(conf.read_text().replace("=8000", "=16000").replace("--allow-upsample=true", ""))
    pcm = recording("alice/card.wav")
    recogniser = DigitModel(copy).recogniser(Grammar.DIGITS)
    for at in range(0, len(pcm), 160):
        recogniser.accept(pcm[at : at + 160])
    assert len(plainest(recogniser.finish(1)[0].texts)) > 8


def test_nothing_of_what_was_heard_is_shown(model: DigitModel) -> None:
    recogniser = model.recogniser(Grammar.CHOICE)
    recogniser.accept(recording("alice/two.wav"))
    assert "two" not in repr(recogniser.finish(3))


def test_the_card_graph_hears_whole_numbers_only_at_the_scores_of_the_free_loop(model: DigitModel) -> None:
    pcm = recording("alice/card.wav")
    cards, free = model.card_recogniser(), model.recogniser(Grammar.CARD)
    assert cards
    for recogniser in (cards, free):
        recogniser.accept(pcm)
    whole = {plainest(s.texts): s.score for s in reversed(cards.finish(30))}
    heard = {plainest(s.texts): s.score for s in reversed(free.finish(30))}
    assert all(luhn_valid(digits) and 12 <= len(digits) <= 19 for digits in whole)
    both = whole.keys() & heard.keys()
    assert both
    assert all(abs(whole[digits] - heard[digits]) < 0.05 for digits in both)


def test_a_folder_with_another_card_graph_is_refused(copy: Path) -> None:
    any_words = cards.composed(graphs.lexicon_fst(), graphs.grammar_fst())
    (copy / "graph" / CARD_GRAPH).write_bytes(kaldi.openfst(any_words, sort_by_output=False))
    with pytest.raises(DigitModelError, match=CARD_GRAPH):
        DigitModel(copy)
    (copy / "graph" / CARD_GRAPH).unlink()
    assert DigitModel(copy).card_recogniser() is None
