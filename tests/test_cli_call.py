"""What ``ivr call`` says when there is nothing to call, or nobody who knows its token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Response, request
from simcarrier_stub import SID, TOKEN, Service, serving

from ivr.call import prompts
from ivr.call.prompts import Line
from ivr.ops.cli import main
from ivr.settings import settings

Call = Callable[..., Result]
SCENARIO = """
name = "Keys a code"
[caller]
from = "+14155550111"
[[turn]]
expect = "card.ask"
keys = "{code}#"
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    file = tmp_path / "call.toml"
    file.write_text(SCENARIO)

    def run(*options: str, token: str = TOKEN) -> Result:
        monkeypatch.setenv("IVR_AUTH_TOKEN", token)
        monkeypatch.setenv("IVR_ACCOUNT_SID", SID)
        settings.cache_clear()
        return CliRunner().invoke(main, ["call", str(file), "--speed", "50", *options], catch_exceptions=False)

    yield run
    settings.cache_clear()


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.mark.parametrize(("token", "says"), [(TOKEN, "ivr serve"), ("", "IVR_AUTH_TOKEN is not set")])
def test_nothing_to_call(call: Call, token: str, says: str) -> None:
    result = call("--url", "http://127.0.0.1:9", token=token)
    assert result.exit_code == 2
    assert says in result.stderr


def test_another_token(call: Call, service: Service) -> None:
    service.on("/voice/status", Response(status=403))
    result = call("--url", service.url, token="another")
    assert result.exit_code == 2
    assert "not the token that the service was started with" in result.stderr
    assert "another" not in result.stderr.replace("another address", "")


def test_a_value_that_no_prompt_tells_is_given_on_the_command_line(call: Call, service: Service) -> None:
    service.on("/voice/status", Response(status=204))
    asked = prompts.render(Line("card.ask"), "en")
    service.on("/voice/answer", f'<Gather numDigits="7" action="/voice/turn/1"><Say>{asked}</Say></Gather>')
    service.on("/voice/turn/1", "<Hangup/>")
    without = call("--url", service.url)
    assert without.exit_code == 2
    assert "Keys a code: " in without.stderr
    assert "--value code=" in without.stderr
    given = call("--url", service.url, "--value", "code=481516", "--from", "+14155550123")
    assert given.exit_code == 0, given.output
    assert service.forms("/voice/turn/1")[-1]["Digits"] == "481516#"[:6]
    assert service.forms("/voice/answer")[-1]["From"] == "+14155550123"


@pytest.mark.parametrize(
    ("locales", "options", "rung"),
    [("", [], None), ('locales = ["zh", "en"]', [], "zh"), ("", ["--locale", "zh"], "zh")],
)
def test_the_number_that_is_rung_speaks_the_scenarios_language(
    call: Call, service: Service, tmp_path: Path, locales: str, options: list[str], rung: str | None
) -> None:
    (tmp_path / "call.toml").write_text(f'name = "x"\n{locales}\n[caller]\nfrom = "+14155550111"\n')
    asked: list[str | None] = []
    service.on("/voice/answer", lambda _form: asked.append(request.args.get("locale")) or "<Hangup/>")
    service.on("/voice/status", Response(status=204))
    assert call("--url", service.url, *options).exit_code == 0
    assert asked == [rung]
