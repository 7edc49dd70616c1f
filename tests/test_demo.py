"""The whole service in processes of its own, called as the carrier would: every scene, and each protection off once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.console import Console
from sqlalchemy import create_engine, make_url

from ivr.ops.demo.scenes import Result, play_all
from ivr.ops.demo.stage import Stage, stage

SPEED = 16.0


def _play(running: Stage, *only: str) -> list[Result]:
    return list(play_all(running, Console(), SPEED, only, datetime.now(UTC)))


def test_every_scene_of_the_demo_is_right() -> None:
    with stage() as running:
        results = _play(running)
    assert len(results) >= 12
    assert {result.name: result.problems for result in results if result.problems} == {}


@pytest.mark.parametrize(
    ("sabotage", "scene", "noticed"),
    [
        ("voice", "02", "heard challenge.ask"),
        ("digits", "03", "heard challenge.ask"),
        ("replay", "15", "heard challenge.ask"),
        ("token", "10", "card.ask was heard"),
        ("idempotency", "01", "payments of the call: paid, "),  # more than the one
    ],
)
def test_a_protection_switched_off_is_noticed_by_its_scene(sabotage: str, scene: str, noticed: str) -> None:
    with stage(sabotage=sabotage) as running:
        *_, result = _play(running, scene)  # the last one, where it goes on from another
    assert noticed in "; ".join(result.problems)


def test_the_same_service_runs_on_postgresql(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(database="whole_service")
    with create_engine(postgresql_url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE whole_service")
    with stage(extra={"IVR_DATABASE_URL": url.render_as_string(hide_password=False)}) as running:
        (result,) = _play(running, "06")
    assert result.problems == []


def test_a_caller_pays_by_saying_everything_in_mandarin() -> None:
    with stage(extra={"IVR_LOCALE": "zh"}) as running:
        (result,) = _play(running, "20")
    assert result.problems == []


def test_without_a_model_of_her_language_a_caller_pays_by_keys() -> None:
    with stage(extra={"IVR_LOCALE": "zh", "IVR_DIGIT_MODEL_ZH_DIR": "none"}) as running:
        (result,) = _play(running, "21")
    assert result.problems == []
