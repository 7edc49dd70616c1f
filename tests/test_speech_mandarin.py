"""The shipped Mandarin model, heard through the same turns as the English one. The caller is a machine's voice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ivr.locales import LOCALES
from ivr.resources import shipped
from ivr.speech import mandarin
from ivr.speech.audio import FRAME_BYTES, Pcm, pcm_to_ulaw, read_audio
from ivr.speech.cards import candidates
from ivr.speech.expect import EndReason, Expect, Heard
from ivr.speech.numbers import DIGITS, NUMBER_WORDS, WORDS, plainest
from ivr.speech.pan import luhn_valid
from ivr.speech.recogniser import DigitModel, DigitModelError, Grammar
from ivr.speech.turn import Listening

CARD = "6011000990139424"


@pytest.fixture(scope="module")
def model() -> DigitModel:
    return DigitModel(shipped("models/digits-zh"), "zh")


def recording(name: str) -> Pcm:
    return read_audio(shipped("fixtures/audio") / name)


def listen(model: DigitModel, expect: Expect, pcm: Pcm) -> Heard:
    turn = Listening(model, expect)
    ulaw = pcm_to_ulaw(np.concatenate([pcm, np.zeros(12 * 8000, np.int16)]))
    for at in range(0, len(ulaw), FRAME_BYTES):
        if turn.frame(ulaw[at : at + FRAME_BYTES]):
            break
    return turn.close()


def test_no_word_is_in_two_languages() -> None:
    ours = {*mandarin.DIGITS, *mandarin.CORRECTIONS, *mandarin.RESTART, *mandarin.ANSWERS}
    assert not ours & {*WORDS, "yes", "no"}
    assert set(mandarin.DIGITS) < NUMBER_WORDS
    assert set(mandarin.DIGITS.values()) == set(DIGITS.values())


@pytest.mark.parametrize("grammar", list(Grammar))
def test_every_grammar_is_in_every_language_and_hears_other_speech_as_such(grammar: Grammar) -> None:
    for locale in LOCALES:
        assert "[unk]" in grammar.words(locale)
    assert set(grammar.words("en")) & set(grammar.words("zh")) == {"[unk]"}


@pytest.mark.parametrize("take", ["card", "card_2"])
def test_a_card_number_is_heard_in_mandarin(model: DigitModel, take: str) -> None:
    heard = listen(model, Expect.card(), recording(f"wei/{take}.wav"))
    assert heard.end is EndReason.COMPLETE
    assert CARD in candidates(heard.hypotheses)


@pytest.mark.parametrize(("file", "answer"), [("yes", "yes"), ("no", "no")])
def test_yes_and_no(model: DigitModel, file: str, answer: str) -> None:
    assert listen(model, Expect.yes_no(), recording(f"wei/{file}.wav")).answer == answer


@pytest.mark.parametrize(("file", "choice"), [("one", 1), ("two", 2), ("three", 3)])
def test_a_choice(model: DigitModel, file: str, choice: int) -> None:
    assert listen(model, Expect.choice(3), recording(f"wei/{file}.wav")).answer == choice


def test_yes_and_its_opposite_together_are_no_answer() -> None:
    assert Expect.yes_no().spoken_answer(["不", "是"]) is None
    assert Expect.yes_no().spoken_answer(["不是", "不对"]) == "no"
    assert Expect.yes_no().spoken_answer(["对", "好", "是"]) == "yes"


def test_yao_and_yi_are_one_number_in_the_card_graph(model: DigitModel) -> None:
    cards = model.card_recogniser()
    assert cards
    cards.accept(recording("wei/card.wav"))
    whole = cards.finish(30)
    assert all(luhn_valid(plainest(s.texts)) for s in whole)
    assert not any({"幺", "两"} & set(s.texts) for s in whole)
    assert plainest(whole[0].texts) == CARD


def test_the_other_languages_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DigitModelError, match="does not know the words: 零"):
        DigitModel(shipped("models/digits"), "zh")
    copy = shutil.copytree(shipped("models/digits-zh"), tmp_path / "model")
    with pytest.raises(DigitModelError, match="does not know the words: zero"):
        DigitModel(copy)


def test_a_mandarin_model_that_ignores_grammars_is_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(shipped("models/digits-zh"), tmp_path / "model")
    (copy / "graph/HCLr.fst").rename(copy / "graph/HCLG.fst")
    with pytest.raises(DigitModelError, match="ignores grammars"):
        DigitModel(copy, "zh")
