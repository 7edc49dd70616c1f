"""The worked example of docs/debit-confirmation.md is right."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from ivr.api.bank_notices import NoticeBody
from ivr.webhooks.signature import verified

DOC = Path(__file__).parent.parent / "docs" / "debit-confirmation.md"


def test_the_signatures_of_the_example_are_those_of_its_secret() -> None:
    text = DOC.read_text()
    [secret] = re.findall(r"`(whsec_[A-Za-z0-9+/=]+)`", text)
    messages = re.findall(r"(webhook-id: .*?)\n\n(\{.*?\})\n```", text, re.DOTALL)
    assert len(messages) == 2
    for head, body in messages:
        headers = dict(line.split(": ", 1) for line in head.splitlines())
        sent_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert verified(secret, headers, body.encode(), sent_at) == "ntc_1"
    NoticeBody.model_validate_json(messages[0][1])
