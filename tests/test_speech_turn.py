"""Listening turns on real audio, heard by the shipped model: when they end, and what was heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ivr.resources import shipped
from ivr.speech.audio import FRAME_BYTES, Pcm, pcm_to_ulaw, read_audio
from ivr.speech.cards import candidates
from ivr.speech.expect import EndReason, Expect, Heard
from ivr.speech.numbers import edit_distance
from ivr.speech.pan import is_complete
from ivr.speech.recogniser import DigitModel, Recogniser
from ivr.speech.turn import Listening

SILENCE = b"\xff" * FRAME_BYTES
CARD = "4539148803436467"


@pytest.fixture(scope="module")
def model() -> DigitModel:
    return DigitModel(shipped("models/digits"))


def recording(name: str) -> Pcm:
    return read_audio(Path(shipped("fixtures/audio")) / name)


def spoken(pcm: Pcm, from_db: float = -35.0) -> slice:
    """Where the speech of a clean recording lies, to 20 ms."""
    frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160).astype(float)
    level = 10 * np.log10((frames**2).mean(1) + 1)
    loud = np.flatnonzero(level > level.max() + from_db)
    return slice(loud[0] * 160, (loud[-1] + 1) * 160)


def listen(model: DigitModel, expect: Expect, pcm: Pcm, silence_s: float = 12) -> tuple[Heard, int]:
    """Feed frames, then silence: what was heard, and how many ms after ``pcm`` the turn ended."""
    turn = Listening(model, expect)
    ulaw = pcm_to_ulaw(pcm) + SILENCE * int(silence_s * 50)
    fed = 0
    while fed < len(ulaw) and not turn.frame(ulaw[fed : fed + FRAME_BYTES]):
        fed += FRAME_BYTES
    return turn.close(), (fed + FRAME_BYTES - len(pcm)) // 8


def said(name: str) -> Pcm:
    pcm = recording(name)
    return pcm[: spoken(pcm).stop]


def test_a_card_number_ends_the_turn_half_a_second_after_its_last_digit(model: DigitModel) -> None:
    heard, quiet_ms = listen(model, Expect.card(), said("alice/card.wav"))
    assert heard.end is EndReason.COMPLETE
    assert CARD in candidates(heard.hypotheses)
    assert heard.confidence
    assert 0.5 < heard.confidence <= 1
    assert all((h.confidence or 0.0) > 0 if is_complete(h.digits) else h.confidence == 0 for h in heard.hypotheses)
    assert 300 <= quiet_ms <= 750


def test_half_a_number_is_waited_for(model: DigitModel) -> None:
    whole = said("alice/card.wav")
    heard, quiet_ms = listen(model, Expect.card(), whole[: len(whole) // 2])
    assert heard.end is EndReason.QUIET
    assert 2000 <= quiet_ms <= 3000


def test_a_pause_between_groups_does_not_end_the_turn(model: DigitModel) -> None:
    whole = said("alice/card.wav")
    frames = whole[: len(whole) // 160 * 160].reshape(-1, 160).astype(float)
    middle = len(frames) // 2
    quietest = (middle - 25 + int(np.argmin((frames[middle - 25 : middle + 25] ** 2).mean(1)))) * 160
    paused = np.concatenate([whole[:quietest], np.zeros(12_000, np.int16), whole[quietest:]])
    heard, quiet_ms = listen(model, Expect.card(), paused)
    assert heard.end is EndReason.COMPLETE
    assert CARD in candidates(heard.hypotheses)
    assert 300 <= quiet_ms <= 750


def test_what_was_asked_for_decides_when_digits_are_enough(model: DigitModel) -> None:
    digits = np.concatenate([recording("alice/one.wav"), recording("alice/two.wav"), recording("alice/three.wav")])
    enough, quiet_ms = listen(model, Expect.digits(3), digits[: spoken(digits).stop])
    assert enough.end is EndReason.COMPLETE
    assert "123" in [h.digits for h in enough.hypotheses[:3]]
    assert quiet_ms <= 750
    too_few, _ = listen(model, Expect.digits(6), digits)
    assert too_few.end is EndReason.QUIET


def test_digits_said_slowly_are_not_cut(model: DigitModel) -> None:
    pauses = [np.zeros(8 * ms, np.int16) for ms in (1500, 350, 350)]
    names = ("one", "two", "three")
    slow = [part for pause, name in zip(pauses, names, strict=True) for part in (pause, recording(f"alice/{name}.wav"))]
    said = np.concatenate(slow)
    heard, _ = listen(model, Expect.digits(3), said)
    assert heard.end is EndReason.COMPLETE
    assert len(heard.pcm) >= len(said)  # the turn went on to the last of them


@pytest.mark.parametrize("before_s", [0.2, 0.9, 1.4, 3.0])
def test_an_answer_may_come_late(model: DigitModel, before_s: float) -> None:
    waited = np.concatenate([np.zeros(int(8000 * before_s), np.int16), recording("alice/yes.wav")])
    heard, _ = listen(model, Expect.yes_no(), waited)
    assert (heard.end, heard.answer) == (EndReason.COMPLETE, "yes")


@pytest.mark.parametrize(
    ("name", "expect", "answer"),
    [
        ("alice/yes.wav", Expect.yes_no(), "yes"),
        ("alice/no.wav", Expect.yes_no(), "no"),
        ("alice/two.wav", Expect.choice(3), 2),
        ("alice/three.wav", Expect.choice(3), 3),
    ],
)
def test_a_word_is_an_answer(model: DigitModel, name: str, expect: Expect, answer: str | int) -> None:
    heard, quiet_ms = listen(model, expect, said(name))
    assert (heard.end, heard.answer) == (EndReason.COMPLETE, answer)
    assert heard.hypotheses == ()
    assert quiet_ms <= 750


@pytest.mark.parametrize("level", [0, 30, 1000])
def test_silence_and_noise_are_nothing(model: DigitModel, level: int) -> None:
    noise = np.random.default_rng(3).normal(0, level, 10 * 8000).astype(np.int16)
    heard, _ = listen(model, Expect.card(), noise, silence_s=0)
    assert heard.end is EndReason.NOTHING
    assert 6 * 8000 <= len(heard.pcm) <= 9 * 8000


def test_noise_after_the_last_digit_does_not_hold_the_turn_open(model: DigitModel) -> None:
    number = said("alice/card.wav")
    noise = np.random.default_rng(3).normal(0, 300, len(number) + 4 * 8000)
    noise[: len(number)] += number
    heard, _ = listen(model, Expect.card(), noise.astype(np.int16))
    assert heard.end is EndReason.COMPLETE
    assert len(heard.pcm) - len(number) <= 1.2 * 8000


def test_a_monologue_is_cut_off_after_a_minute(model: DigitModel) -> None:
    number = said("alice/card.wav")
    heard, _ = listen(model, Expect.digits(1000), np.tile(number, 1 + 62 * 8000 // len(number)))
    assert heard.end is EndReason.TIMEOUT
    assert len(heard.pcm) == 60 * 8000


def test_a_hangup_keeps_what_was_said(model: DigitModel) -> None:
    turn = Listening(model, Expect.digits(8))
    ulaw = pcm_to_ulaw(said("alice/two.wav"))
    for at in range(0, len(ulaw), FRAME_BYTES):
        turn.frame(ulaw[at : at + FRAME_BYTES])
    heard = turn.close()
    assert heard.end is EndReason.HANGUP
    assert heard.hypotheses[0].digits == "2"
    assert heard.speech_ms > 100


def test_keys_win_over_speech(model: DigitModel) -> None:
    turn = Listening(model, Expect.card())
    ulaw = pcm_to_ulaw(said("alice/two.wav"))
    for at in range(0, len(ulaw), FRAME_BYTES):
        turn.frame(ulaw[at : at + FRAME_BYTES])
    assert [turn.key(key) for key in CARD] == [False] * 15 + [True]
    heard = turn.close()
    assert (heard.end, heard.keys, heard.hypotheses) == (EndReason.KEYS, CARD, ())


@pytest.mark.parametrize("size", [1, 7, 159, 161, 400, 1600, 8000])
def test_frames_of_any_size_are_heard(model: DigitModel, size: int) -> None:
    turn = Listening(model, Expect.choice(3))
    ulaw = pcm_to_ulaw(said("alice/two.wav")) + SILENCE * 100
    over = any(turn.frame(ulaw[at : at + size]) for at in range(0, len(ulaw), size))
    assert over
    assert turn.close().answer == 2


def test_garbage_neither_ends_a_turn_nor_breaks_it(model: DigitModel) -> None:
    turn = Listening(model, Expect.choice(3))
    for garbage in (b"", b"\x00" * 100_000, None, "text", 7, b"\x00\xff" * 40, b"\x80" * 160):
        assert turn.frame(garbage) is False  # type: ignore[arg-type]
    assert turn.key("\x00") is False
    ulaw = pcm_to_ulaw(said("alice/two.wav")) + SILENCE * 100
    assert any(turn.frame(ulaw[at : at + FRAME_BYTES]) for at in range(0, len(ulaw), FRAME_BYTES))
    assert turn.close().answer == 2


def test_nothing_of_what_was_heard_is_shown(model: DigitModel) -> None:
    heard, _ = listen(model, Expect.card(), said("alice/card.wav"))
    shown = repr(heard) + repr(heard.hypotheses) + str(heard)
    assert not any(digits in shown for digits in ("4539", "6467", "4880"))


@pytest.mark.parametrize("expect", [Expect.card(), Expect.digits(4, frozenset())])
def test_a_turn_that_keys_cannot_answer_needs_a_model(expect: Expect) -> None:
    with pytest.raises(ValueError, match="needs a digit model"):
        Listening(None, expect)


def test_without_a_model_keys_are_taken_and_speech_is_not() -> None:
    turn = Listening(None, Expect.choice(3))
    assert not any(turn.frame(pcm_to_ulaw(said("alice/two.wav"))[at : at + 160]) for at in range(0, 1600, 160))
    assert turn.key("2")
    assert turn.close().answer == 2


class Failing(DigitModel):
    """The shipped model, but for the recogniser of card numbers, which fails when a turn ends."""

    proved = False

    def card_recogniser(self) -> Recogniser | None:
        recogniser = super().card_recogniser()
        if recogniser and self.proved:
            recogniser.finish = lambda n: [][n]  # type: ignore[method-assign]
        return recogniser


def test_a_recogniser_that_fails_at_the_end_leaves_what_the_other_heard() -> None:
    model = Failing(shipped("models/digits"))
    model.proved = True
    heard, _ = listen(model, Expect.card(), said("alice/card.wav"))
    assert heard.end is EndReason.COMPLETE
    assert edit_distance(CARD, heard.hypotheses[0].digits) <= 1
