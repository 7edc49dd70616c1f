"""Synthetic Mandarin, by espeak-ng: single words and fluent strings in many voices, and phrases without our words.

Some of espeak-ng's voices are for training only, some only choose between checkpoints, some only test. All are
variations of one formant synthesiser, so a test with the last tells little about people.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

from ivr.speech.mandarin import DIGITS
from recipes.digits.clips import SAMPLE_RATE
from recipes.digits.lexicon import UNKNOWN
from recipes.digits.synthetic import Utterance, trim_quiet

from .lexicon import OTHER_WORDS, PINYIN

TRAINING_VOICES = (
    "f1|f2|f4|f5|m1|m2|m3|m4|m6|m7|m8|linda|belinda|Alicia|Andrea|aunty|adam|david|edward|john|max|Michael|paul|"
    "robert|rob|quincy|benjamin|caleb|Lee|Denis|Mike|norbert|klatt2|klatt4|grandma|travis|victor|anika|shelby|Gene|"
    "Diogo|Jacky|Mario|pablo|sandro"
)
DEVELOPMENT_VOICES = ("steph", "Hugo", "Marco", "antonio")
HELD_OUT_VOICES = ("f3", "m5", "Annie", "boris", "zac", "Andy", "grandpa", "klatt3")

#: What callers say besides; none of it is a digit or an answer.
GARBAGE = (
    "我的卡号|喂|你好|您好|请问|等等|稍等|谢谢|再见|没听清|什么|为什么|转人工|客服|付款|密码|账单|多少钱|电话号码|"
    "取消|没有|可以|知道了|我想付钱|麻烦再说|慢点说|今天|明天|上海|北京|有效期|信用卡|银行卡|啊|嗯|那个|这个|然后|"
    "还有|后面|前面|完了|没了|我看看|让我找找|我没带卡|请重复|听不到|声音太小|在吗|哪位|名字|地址|金额|美元|人民币|"
    "明白|没问题|卡号|怎么回事|你说什么|我叫小王|帮帮我|信用卡的号码|人工服务|工商银行|中国银行|开头|末尾|空格|点"
)
_YES_SAID = {"是": "shi4de5", "对": "dui4de5", "好": "hao3de5"}  # "yes, it is" is the same answer


@dataclass(frozen=True)
class Voice:
    """One of espeak-ng's variants at a pitch of its own."""

    variant: str
    pitch: int

    def say(self, text: str, words_a_minute: int) -> np.ndarray:
        """``text`` (pinyin or characters) as float samples at 8 kHz, peak 0.9, without silence around."""
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "speech.wav"
            # Not "cmn": some builds spell its pinyin out in English.
            command = ["espeak-ng", "-v", f"cmn-latn-pinyin+{self.variant}", "-p", str(self.pitch)]
            command += ["-s", str(words_a_minute), "-w", str(wav), text]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            samples, rate = sf.read(wav, dtype="float32")
        samples = resample_poly(samples, SAMPLE_RATE, rate).astype(np.float32)
        return trim_quiet(0.9 * samples / (np.abs(samples).max() + 1e-9))


def voices(variants: Sequence[str], count: int, rng: random.Random) -> list[Voice]:
    """``count`` voices, every variant about as often."""
    return [Voice(variants[i % len(variants)], rng.randint(15, 85)) for i in range(count)]


def _digit(rng: random.Random, keeps: str) -> str:
    """A digit's word; people keep to one of yī and yāo, and hardly ever say liǎng."""
    word = rng.choice(("零", keeps, "二", "三", "四", "五", "六", "七", "八", "九"))
    return "两" if word == "二" and rng.random() < 0.12 else word


def number(rng: random.Random, length: int) -> tuple[str, list[str]]:
    """Pinyin of a number read in groups, each a breath, and its words."""
    keeps = rng.choice("一幺幺")
    words: list[str] = []
    while len(words) < length:
        repeats = words and rng.random() < 0.12
        words.append(words[-1] if repeats else _digit(rng, keeps))
    between = rng.choice(("", "", " "))  # without a space espeak-ng joins the syllables of a group
    group = rng.choice((3, 4, 4, 5, 16))
    groups = [words[i : i + group] for i in range(0, length, group)]
    return rng.choice((", ", " ")).join(between.join(PINYIN[w] for w in g) for g in groups), words


def sentence(rng: random.Random) -> tuple[str, list[str]]:
    """Text for espeak-ng, and its words as the recogniser shall hear them."""
    kind = rng.random()
    if kind < 0.22:
        return ",".join(rng.sample(GARBAGE.split("|"), rng.choice([1, 1, 2, 3]))), [UNKNOWN]
    if kind < 0.36:
        words = [rng.choice(OTHER_WORDS) for _ in range(rng.choice([1, 1, 1, 2]))]
        said = [_YES_SAID[w] if w in _YES_SAID and rng.random() < 0.4 else PINYIN[w] for w in words]
        return ", ".join(said), words
    text, words = number(rng, rng.randint(1, 9))
    if kind < 0.42:  # corrected
        word, (again, corrected) = rng.choice(("不对", "不是", "重来")), number(rng, rng.randint(1, 4))
        return f"{text}, {PINYIN[word]}, {again}", [*words, word, *corrected]
    return text, words


def generate(path: Path, speakers: int, sentences: int, seed: int = 7) -> None:
    """Speak every word by ``speakers`` voices, and ``sentences`` sentences, into ``path`` (npz)."""
    rng = random.Random(seed)
    cast = voices(TRAINING_VOICES.split("|"), speakers, rng)
    said: list[tuple[np.ndarray, list[str], int]] = []
    for speaker, voice in enumerate(cast):
        for word in (*DIGITS, *OTHER_WORDS):
            said.append((voice.say(PINYIN[word], rng.randint(110, 220)), [word], speaker))
    for _ in range(sentences):
        text, words = sentence(rng)
        said.append((rng.choice(cast).say(text, rng.randint(110, 300)), words, -1))
    said = [s for s in said if len(s[0]) > SAMPLE_RATE // 20]
    samples = np.concatenate([(s * 32767).astype(np.int16) for s, _, _ in said])
    labels, by = json.dumps([w for _, w, _ in said]), np.array([i for _, _, i in said])
    np.savez(path, samples=samples, ends=np.cumsum([len(s) for s, _, _ in said]), words=labels, speakers=by)


def load(path: Path) -> tuple[list[Utterance], dict[int, list[Utterance]]]:
    """What :func:`generate` wrote: the sentences, and the single words by speaker."""
    with np.load(path) as data:
        clips = np.split(data["samples"], data["ends"][:-1])
        labels, speakers = json.loads(str(data["words"])), data["speakers"].tolist()
    sentences: list[Utterance] = []
    words: dict[int, list[Utterance]] = {}
    for clip, label, speaker in zip(clips, labels, speakers, strict=True):
        utterance = (clip.astype(np.float32) / 32767, label)
        (sentences if speaker < 0 else words.setdefault(speaker, [])).append(utterance)
    return sentences, words
