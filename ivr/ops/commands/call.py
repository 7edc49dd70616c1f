"""``ivr call``: recorded callers ring a running service, as the carrier would."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import requests
from rich.console import Console
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from ivr.clock import utc_now
from ivr.locales import LOCALES, Locale
from ivr.ops.simcarrier import junit, rehearsal, report
from ivr.ops.simcarrier.ladder import ladder
from ivr.ops.simcarrier.line import authorities
from ivr.ops.simcarrier.record import CallRecord
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import Scenario, ScenarioError, load
from ivr.resources import shipped
from ivr.settings import Settings, settings

if TYPE_CHECKING:
    from ivr.ops.simcarrier.checks import Inside

LOCAL_URL = "http://127.0.0.1:8400"


@click.command()
@click.argument("files", metavar="SCENARIO.toml...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--url", help="A deployed service; default: the one on this machine, which is looked into, too."
)
@click.option("--from", "from_", metavar="NUMBER", help="Who calls, instead of the scenario's number.")
@click.option(
    "--value", "values", metavar="NAME=VALUE", multiple=True, help="What {NAME} stands for: an enrolment code, say."
)
@click.option("--locale", type=click.Choice(LOCALES), help="Of the number that is rung; default: as the scenario says.")
@click.option("--speed", default=1.0, show_default=True, type=click.FloatRange(min=0.1, max=200))
@click.option("--audio", type=click.Path(path_type=Path), help="Recordings; default: those that ship.")
@click.option(
    "--log", type=click.Path(path_type=Path), help="Log file, or folder of *.log, to search for cards."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the calls there, as JSON.")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write a JUnit report there.")
@click.option("--report", "page", type=click.Path(path_type=Path), help="Write a page with ladders there, as HTML.")
def command(
    files: tuple[Path, ...],
    url: str | None,
    from_: str | None,
    values: tuple[str, ...],
    locale: Locale | None,
    speed: float,
    audio: Path | None,
    log: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    page: Path | None,
) -> None:
    """Play recorded callers into a running service, as the carrier would; one TOML file is one call.

    Requests are signed with IVR_AUTH_TOKEN, the token of the account that the service knows. On this machine
    the database, Redis and the sandbox bank's books are checked after each call. With --url only what the
    carrier sees is. The service is asked first, and no call is placed that could be about a customer who was not
    added with --test.

    The exit status is 1 when anything was not as a scenario says, 2 when a scenario cannot be played.
    """
    console = Console(highlight=False)
    try:
        scenarios = [_as_given(load(file), from_, locale) for file in files]
        given = dict(_pair(value) for value in values)
        known = {f"card.{name}": number for name, number in fixture_cards().items()} | given
        base_url, token = url or settings().public_url or LOCAL_URL, settings().auth_token.get_secret_value()
        _check_answers(base_url)
        # About all of them, before the first call is placed.
        asked = [rehearsal.check(scenario, known, base_url, token, deployed=url is not None) for scenario in scenarios]
        inside = None if url else _inside(settings(), log)
        drawn = inside is not None and all(asked)  # of a live service nothing of what was said is kept
        calls = [_call(scenario, base_url, speed, audio, inside, known, console, drawn) for scenario in scenarios]
    except ScenarioError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    if json_file:
        plain = [{**record.as_json(), "problems": problems} for record, problems in calls]
        json_file.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if junit_file:
        junit.write(junit_file, calls)
    if page:
        report.write(page, calls, f"Calls to {url or 'the service of this machine'}", utc_now())
    wrong = sum(bool(problems) for _, problems in calls)
    console.print(f"{len(calls) - wrong} of {len(calls)} calls as they should be")
    sys.exit(1 if wrong else 0)


def _call(
    scenario: Scenario,
    base_url: str,
    speed: float,
    audio: Path | None,
    inside: Inside | None,
    values: dict[str, str],
    console: Console,
    waveforms: bool,
) -> tuple[CallRecord, list[str]]:
    from ivr.ops.simcarrier.checks import look, problems_of, unchecked

    before = look(inside) if inside else None
    try:
        record = run_call(
            scenario,
            base_url=base_url,
            account_sid=settings().account_sid,
            auth_token=settings().auth_token.get_secret_value(),
            speed=speed,
            audio=audio or shipped("fixtures/audio"),
            values=values,
            waveforms=waveforms,
            locale=scenario.locales[0] if "locales" in scenario.model_fields_set else None,
        )
    except ScenarioError as error:
        raise ScenarioError(f"{scenario.name}: {error}") from None
    problems = problems_of(scenario, record, inside, before)
    console.print(ladder(record))
    for problem in problems:
        console.print(f"[red]WRONG[/] {problem}")
    if not inside and (keys := unchecked(scenario.end)):
        console.print(f"not visible from outside, and not checked: {', '.join(keys)}")
    return record, problems


def _as_given(scenario: Scenario, number: str | None, locale: Locale | None) -> Scenario:
    """The scenario with what the command line says in place of what it says itself."""
    if number is not None:
        scenario = scenario.model_copy(update={"caller": scenario.caller.model_copy(update={"from_": number})})
    return scenario if locale is None else scenario.model_copy(update={"locales": (locale,)})


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals:
        raise ScenarioError(f"--value {name}: write NAME=VALUE")
    return name, value


def _check_answers(base_url: str) -> None:
    """Whether a service is there that knows our token. Raises ScenarioError, which says what to do."""
    base_url = base_url.rstrip("/")
    token = settings().auth_token.get_secret_value()
    if not token:
        raise ScenarioError("IVR_AUTH_TOKEN is not set: calls are signed with the token that the service was given")
    status, form = f"{base_url}/voice/status", {"CallSid": "CA" + "0" * 32, "CallStatus": "ringing"}  # changes nothing
    signature = RequestValidator(token).compute_signature(status, form)
    try:
        headers = {"X-Twilio-Signature": signature}
        answer = requests.post(status, form, headers=headers, timeout=15, verify=authorities())
    except requests.exceptions.SSLError:
        raise ScenarioError(
            f"the certificate of {base_url} is not trusted: name the file of its authority in SSL_CERT_FILE"
        ) from None
    except requests.ConnectionError:
        raise ScenarioError(f"no service answers at {base_url}: start `ivr serve`, or name one by --url") from None
    except requests.RequestException as error:
        raise ScenarioError(f"{base_url} does not answer as it should: {type(error).__name__}") from None
    if answer.status_code == 403:
        raise ScenarioError(
            f"{base_url} refuses the signature: IVR_AUTH_TOKEN is not the token that the service was started with, "
            "or the service's IVR_PUBLIC_URL is another address"
        )
    if not answer.ok:
        raise ScenarioError(f"{status} answered {answer.status_code}: is this the service, and the right address?")


def fixture_cards() -> dict[str, str]:
    """The card numbers of the fixtures by name."""
    cards: dict[str, str] = tomllib.loads(shipped("fixtures/cards.toml").read_text(encoding="utf-8"))["cards"]
    return cards


def _inside(settings: Settings, log: Path | None) -> Inside:
    """The service of this machine, as its settings name it."""
    from ivr.ops.simcarrier.checks import Inside
    from ivr.store import redis
    from ivr.store.db import Database

    def books() -> Any:
        key = {"X-Api-Key": settings.bank_api_key.get_secret_value()}
        try:
            answer = requests.get(f"{settings.bank_url}/_books", headers=key, timeout=10)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise ScenarioError(
                f"the bank at {settings.bank_url} does not show its books ({type(error).__name__}): start it with "
                "`python -m ivr.payments.sandbox`, or set IVR_BANK_URL and IVR_BANK_API_KEY"
            ) from None
        return answer.json()

    database = Database(settings.sqlalchemy_url())
    return Inside(database, redis.connect(settings), books, fixture_cards(), log)
