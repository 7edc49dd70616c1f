"""Guardians and supervisors of the demo: they open the link in the mail that they got, and answer on the page."""

from __future__ import annotations

import re
import threading
import time
from email.message import Message
from typing import TYPE_CHECKING

import requests

from ivr.notifications.texts import templates

if TYPE_CHECKING:
    from ivr.ops.demo.stage import Stage

PIN = "739154"
PATIENCE_S = 60.0
LOOK_S = 0.1
_LINK = re.compile(r"https?://\S+/my/l/\w+")
_TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


class Approver(threading.Thread):
    """One approver at her telephone, who answers the first request that comes, as she was told to."""

    def __init__(self, stage: Stage, address: str, answer: str) -> None:
        super().__init__(daemon=True)
        self._stage, self._address, self._answer = stage, address, answer
        self._read = len(stage.mails)  # mail of earlier scenes is not hers to answer
        self.problem = "no request came"

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if link := self._link():
                self.problem = self._answers(link)
                return
            time.sleep(LOOK_S)

    def _link(self) -> str | None:
        for mail in self._stage.mails[self._read :]:
            asks = mail["To"] == self._address and mail["Subject"] == templates("en")["approval.ask"]["subject"]
            if asks and (found := _LINK.search(_text(mail))):
                return found[0]
        return None

    def _answers(self, link: str) -> str:
        """Open, PIN, answer. What went wrong, or nothing."""
        with requests.Session() as browser:
            opened = browser.get(link, timeout=10)
            shown = browser.post(link, data={"csrf_token": _token(opened.text), "pin": PIN}, timeout=10)
            form = {"csrf_token": _token(shown.text), "pin": PIN, "answer": self._answer}
            answered = browser.post(shown.url, data=form, timeout=10)
        return "" if answered.ok else f"the page answered {answered.status_code}"


def _text(mail: Message) -> str:
    payload = mail.get_payload(decode=True)
    return payload.decode() if isinstance(payload, bytes) else ""


def _token(page: str) -> str:
    found = _TOKEN.search(page)
    return found[1] if found else ""
