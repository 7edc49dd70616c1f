"""The report of calls in headless Chromium: axe finds nothing, in the light and in the dark, with every call open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

from ivr.ops.simcarrier import report
from ivr.ops.simcarrier.record import Answered, CallRecord, Ended, Heard, Requested, Streamed, Waveform

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell("no Chromium: this page was not looked at in a browser (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def call(name: str, words: str) -> CallRecord:
    record = CallRecord(name, "CA1", "+14155550101", decisions={1: "again: voice no match -3.2"})
    record.events += [
        Requested(0.0, "POST", "http://localhost/voice/answer", 200, 12.0, "a"),
        Heard(0.1, "card.ask", words),
        Answered(4.0, "speech", "alice/card.wav", 3.0),
        Streamed(8.0, 7.9, 400, "service", 600.0, False),
        Requested(8.0, "POST", "http://localhost/voice/turn/1", 200, 12.0, "b", "sent again"),
        Requested(8.1, "POST", "http://localhost/voice/turn/2", 503, 12.0, "c"),
        Answered(9.0, "keys", "•••• 6467#", 2.0),
        Answered(12.0, "silence", "", 4.0),
        Answered(16.0, "hangup", "", 0.0),
        Ended(16.0, "completed", "caller"),
    ]
    record.waveforms.append(Waveform(4.0, tuple(i % 7 / 7 for i in range(75))))
    return record


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_report(chromium: Browser, scheme: str, tmp_path: Path, now: datetime) -> None:
    right, wrong = call("Right", "Please say your card number."), call("错误", "请说卡号。")
    report.write(tmp_path / "page.html", [(right, []), (wrong, ["pay.done was not heard"])], "Calls", now)
    page = chromium.new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    page.goto(f"file://{tmp_path / 'page.html'}")
    page.evaluate("for (const call of document.querySelectorAll('details')) call.open = true")
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert page.locator("path.wave").count() == 2
    page.close()
