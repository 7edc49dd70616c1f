"""The scenes of the demo: who is needed for each, and what must be true after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from ivr.customers.enrolment import issue_code
from ivr.ops.demo import cast
from ivr.ops.demo.stage import Stage
from ivr.ops.simcarrier.checks import problems_of
from ivr.ops.simcarrier.ladder import ladder
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import Scenario, load
from ivr.resources import shipped

SPEED = 8.0
CHALLENGE = "challenge.ask"


@dataclass(frozen=True)
class Result:
    """One scene, played."""

    name: str
    problems: list[str]
