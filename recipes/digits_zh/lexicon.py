"""The Mandarin words, their states and their costs; see :mod:`recipes.digits.lexicon`."""

from __future__ import annotations

from recipes.digits.lexicon import UNKNOWN, Lexicon


def _syllable(name: str) -> list[str]:
    return [f"{name}{i}" for i in range(1, 4)]


_BU = ["bu1", "bu2"]

STATES: dict[str, list[str]] = {
    "零": _syllable("ling"),
    "幺": _syllable("yao"),
    "一": _syllable("yi"),
    "二": _syllable("er"),
    "两": _syllable("liang"),
    "三": _syllable("san"),
    "四": _syllable("si"),
    "五": _syllable("wu"),
    "六": _syllable("liu"),
    "七": _syllable("qi"),
    "八": _syllable("ba"),
    "九": _syllable("jiu"),
    "是": _syllable("shi"),
    "对": _syllable("dui"),
    "好": _syllable("hao"),
    "不": _BU,
    "不是": [*_BU, *_syllable("shi")],
    "不对": [*_BU, *_syllable("dui")],
    "重来": [*_syllable("chong"), *_syllable("lai")],
    UNKNOWN: _syllable("unk"),
}
#: How espeak-ng is to say each word: pinyin with tones.
PINYIN = {
    **{"零": "ling2", "幺": "yao1", "一": "yi1", "二": "er4", "两": "liang3", "三": "san1", "四": "si4"},
    **{"五": "wu3", "六": "liu4", "七": "qi1", "八": "ba1", "九": "jiu3", "是": "shi4", "对": "dui4", "好": "hao3"},
    **{"不": "bu4", "不是": "bu2shi4", "不对": "bu2dui4", "重来": "chong2lai2"},
}
OTHER_WORDS = ("是", "对", "好", "不", "不是", "不对", "重来")
EXTRA_COST = dict.fromkeys(STATES, 0.0) | dict.fromkeys(("两", *OTHER_WORDS), 1.5) | {UNKNOWN: 2.0}

MANDARIN = Lexicon(STATES, EXTRA_COST, ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九"))
