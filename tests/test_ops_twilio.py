"""Setting a number up, and checking all that calls hang on, against a stand-in made from Twilio's OpenAPI."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from twilio_support import NUMBER, SID, TOKEN, Twilio
from werkzeug.serving import make_server

from bench.faults.processes import make_certificate
from ivr.ops.cli import main
from ivr.ops.twilio import checks
from ivr.ops.twilio.number import changes, wanted
from ivr.settings import Settings
from ivr.settings import settings as process_settings

pytest_plugins = ["people_fixtures", "twilio_fixtures", "payments_fixtures"]

URL = "https://pay.example.com"
LABELS = {field.console.split(" > ")[1].split(":")[0] for field in wanted(URL)}
SET_UP = {field.name: field.value for field in wanted(URL)} | {"voice_caller_id_lookup": False}


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["twilio", *arguments], input=stdin, catch_exceptions=False)


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An operator's environment; names are set without IVR_."""
    for name, value in {
        "DATA_DIR": str(tmp_path), "PUBLIC_URL": URL, "ACCOUNT_SID": SID, "AUTH_TOKEN": TOKEN,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"IVR_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    process_settings.cache_clear()
    yield monkeypatch
    process_settings.cache_clear()


def test_a_number_is_set_up_once_it_is_confirmed(operator: pytest.MonkeyPatch, twilio: Twilio) -> None:
    refused = run("configure", "--number", NUMBER, stdin="n\n")
    assert refused.exit_code == 1
    assert "voice_url" in refused.output
    assert twilio.posts == []
    done = run("configure", "--number", NUMBER, stdin="y\n")
    assert done.exit_code == 0, done.output
    assert {name: twilio.number[name] for name in SET_UP} == SET_UP
    again = run("configure", "--number", NUMBER)
    assert "nothing to change" in again.output
    assert len(twilio.posts) == 1
    assert twilio.faults == []


def test_what_takes_calls_away_from_us_is_shown_and_cleared(operator: pytest.MonkeyPatch, twilio: Twilio) -> None:
    twilio.number |= SET_UP | {"voice_application_sid": "AP" + "1" * 32}
    done = run("configure", "--number", NUMBER, "--yes")
    assert done.exit_code == 0, done.output
    assert twilio.posts == [{"VoiceApplicationSid": ""}]


def test_a_number_for_callers_in_chinese(operator: pytest.MonkeyPatch, twilio: Twilio) -> None:
    assert run("configure", "--number", NUMBER, "--yes", "--locale", "zh").exit_code == 0
    assert twilio.number["voice_url"].startswith(f"{URL}/voice/answer?locale=zh#rc=")


def test_values_are_printed_for_the_console_without_asking_twilio(operator: pytest.MonkeyPatch) -> None:
    operator.delenv("IVR_ACCOUNT_SID")
    process_settings.cache_clear()
    printed = run("configure", "--number", NUMBER, "--print").output
    for field in wanted(URL):
        assert {"False": "Disabled"}.get(field.value, field.value) in printed
    assert NUMBER in printed


def test_a_picture_shows_each_value_in_its_field(operator: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The README's is what the command draws."""
    shown = ("configure", "--number", "+15035550123", "--picture", "console.svg")
    assert run(*shown).exit_code == 2
    assert run(*shown, "--print").exit_code == 0
    drawn = (tmp_path / "console.svg").read_text()
    assert drawn == (Path(__file__).parents[1] / "docs/images/twilio-console.svg").read_text()
    page = ElementTree.fromstring(drawn)
    svg = "{http://www.w3.org/2000/svg}"
    texts = [text.text or "" for text in page.iter(f"{svg}text")]
    for field in wanted(URL):
        shown_as = {"POST": "HTTP POST ▾", "False": "Disabled ▾"}.get(field.value, field.value)
        line = field.console.split(" > ")[1].split(":")[0]
        at = texts.index(line)
        following = [label for label in LABELS if label in texts[at + 1 :]]
        end = min((texts.index(label) for label in following), default=len(texts))
        assert shown_as in texts[at:end], field.name
    width, height = float(page.attrib["width"]), float(page.attrib["height"])
    for box in page.iter(f"{svg}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"IVR_PUBLIC_URL": ""}, "IVR_PUBLIC_URL"),
        ({"IVR_PUBLIC_URL": "http://pay.example.com"}, "https"),
        ({"IVR_ACCOUNT_SID": ""}, "IVR_ACCOUNT_SID"),
        ({"IVR_AUTH_TOKEN": "another"}, "does not take"),
    ],
)
def test_what_is_missing_is_told(
    operator: pytest.MonkeyPatch, twilio: Twilio, change: dict[str, str], said: str
) -> None:
    for name, value in change.items():
        operator.setenv(name, value)
    process_settings.cache_clear()
    result = run("configure", "--number", NUMBER, "--yes")
    assert result.exit_code != 0
    assert said in result.output
    assert TOKEN not in result.output
    assert twilio.posts == []


def test_a_number_of_somebody_else(operator: pytest.MonkeyPatch, twilio: Twilio) -> None:
    result = run("configure", "--number", "+15035550999", "--yes")
    assert (result.exit_code, "no number" in result.output) == (1, True)


def test_the_fragments_are_no_part_of_what_is_compared_by_the_carrier() -> None:
    assert changes(SET_UP, wanted(URL)) == ()
    assert all("#" in f.value for f in wanted(URL) if f.value.startswith("https"))


# --- checks


@pytest.fixture
def served(
    pages: Any, settings: Settings, operator: pytest.MonkeyPatch, tmp_path: Path, bank_url: str
) -> Iterator[str]:
    """The service behind TLS, as the settings say, on this machine."""
    pem = tmp_path / "localhost.pem"
    context = make_certificate(pem)
    server = make_server("127.0.0.1", 0, pages, threaded=True, ssl_context=context)
    url = f"https://localhost:{server.server_port}"
    services = pages.extensions["ivr"]
    live = settings.model_copy(update={"public_url": url, "auth_token": type(settings.auth_token)(TOKEN)})
    pages.extensions["ivr"] = type(services)(**{**vars(services), "settings": live})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "IVR_PUBLIC_URL": url, "IVR_BANK_URL": bank_url, "IVR_DATABASE_URL": settings.sqlalchemy_url(),
        "IVR_REDIS_URL": settings.redis_url, "SSL_CERT_FILE": str(pem), "REQUESTS_CA_BUNDLE": str(pem),
    }.items():  # fmt: skip
        operator.setenv(name, str(value))
    process_settings.cache_clear()
    yield url
    server.shutdown()
    server.server_close()


def lines(result: Result) -> dict[str, tuple[str, str]]:
    found = {}
    for line in result.output.splitlines():
        if line[:4].strip() in ("ok", "look", "FAIL"):
            found[line[5:27].strip()] = (line[:4].strip(), line[28:])
    return found


def test_everything_is_checked_through_the_proxy(served: str, twilio: Twilio) -> None:
    twilio.number |= {field.name: field.value for field in wanted(served)} | {"voice_caller_id_lookup": False}
    result = run("check", "--number", NUMBER)
    found = lines(result)
    expected = {
        "public URL": "ok", "reachable": "ok", "signature": "ok", "websocket": "ok", "credentials": "ok",
        "clock": "ok", "number": "ok", "digit model": "ok", "voice model": "ok", "Redis": "ok", "bank": "ok",
        "keys": "look", "PCI mode": "look", "voice trace": "ok", "call recording": "ok",
        "certificate": "FAIL",  # the test's own lasts a day
    }  # fmt: skip
    assert {name: found[name][0] for name in expected} == expected, result.output
    assert result.exit_code == 1
    assert "renew" in found["certificate"][1]
    assert TOKEN not in result.output


def test_our_own_answer_tells_no_time_to_compare_with(served: str, settings: Settings) -> None:
    here = settings.model_copy(update={"public_url": served})
    [clock] = [found for found in checks.run(here, None, None, checks.WAY_IN) if found.name == "clock"]
    assert (clock.state, "NTP" in clock.said) == (checks.State.LOOK, True)


def test_each_fault_is_found_and_says_what_to_do(served: str, twilio: Twilio, operator: pytest.MonkeyPatch) -> None:
    twilio.voice["voice_trace"] = True
    twilio.recorded = [1]
    twilio.account["status"] = "suspended"
    operator.setenv("IVR_BANK_URL", "http://127.0.0.1:1")
    process_settings.cache_clear()
    found = lines(run("check", "--number", NUMBER))
    for name in ("number", "bank", "voice trace", "call recording", "credentials"):
        assert found[name][0] == "FAIL", (name, found)
    assert "ivr twilio configure" in found["number"][1]
    operator.setenv("IVR_AUTH_TOKEN", "another-token-of-enough-characters")
    process_settings.cache_clear()
    found = lines(run("check"))
    assert "IVR_AUTH_TOKEN" in found["signature"][1]
    assert found["websocket"][0] == "FAIL"
    assert found["credentials"][0] == "FAIL"


def test_a_text_message_is_taken_in_silence(pages: Any, settings: Settings) -> None:
    from twilio.request_validator import RequestValidator

    form = {"MessageSid": "SM" + "1" * 32, "From": "+14155550101", "Body": "hello"}
    signature = RequestValidator(settings.auth_token.get_secret_value()).compute_signature(f"{URL}/voice/message", form)
    given = pages.test_client().post("/voice/message", data=form, headers={"X-Twilio-Signature": signature})
    assert (given.status_code, given.text.split("?>")[1].strip()) == (200, "<Response />")
    assert pages.test_client().post("/voice/message", data=form).status_code == 403
