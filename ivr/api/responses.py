"""Problems as answers of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, json

from ivr.api.problems import MEDIA_TYPE, Problem


def refusal(problem: Problem) -> Response:
    return answer(problem.document(), problem.status, problem.headers)


def answer(document: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status, dict(headers or {}), mimetype=MEDIA_TYPE)
