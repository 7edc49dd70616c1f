"""The Mandarin words that the service listens for. Data; what they mean is in :mod:`numbers` and :mod:`expect`."""

from __future__ import annotations

#: On the telephone one is mostly yāo, which nobody takes for seven (qī). Two is liǎng before what is counted.
DIGITS = {
    **{"零": "0", "幺": "1", "一": "1", "二": "2", "两": "2", "三": "3"},
    **{"四": "4", "五": "5", "六": "6", "七": "7", "八": "8", "九": "9"},
}
CORRECTIONS = ("不对", "不是")
RESTART = ("重来",)
ANSWERS = {"是": "yes", "对": "yes", "好": "yes", "不是": "no", "不对": "no", "不": "no"}
