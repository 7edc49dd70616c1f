"""The whole service in processes of its own, called as the carrier would: every scene, and each protection off once."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from rich.console import Console
from sqlalchemy import create_engine, make_url

from ivr.ops.demo import cast
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


class Collector(HTTPServer):
    """Takes OpenTelemetry's spans in, as they come over HTTP."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Taken)

    def spans(self) -> list[Span]:
        sent = (ExportTraceServiceRequest.FromString(body) for body in self.came)
        return [s for one in sent for r in one.resource_spans for scope in r.scope_spans for s in scope.spans]


class _Taken(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_two_web_workers_share_every_call_on_the_defaults_and_trace_it_as_one(collector: Collector) -> None:
    url = f"http://127.0.0.1:{collector.server_port}"
    with stage(workers=2, extra={"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}) as running:
        results = _play(running, "05", "06", "10")
    assert [result.problems for result in results] == [[], [], []]
    paid = results[1].record.call_sid
    spans = [s for s in collector.spans() if any(a.value.string_value == paid for a in s.attributes)]
    assert {span.trace_id for span in spans} == {spans[0].trace_id}
    names = {span.name for span in spans}
    assert {"POST carrier.answer", "listen", "conclude", "embed", "judge", "bank"} <= names  # by the worker
    assert not any(pan.encode() in body for body in collector.came for pan in cast.pans().values())


def test_a_caller_pays_by_saying_everything_in_mandarin_and_the_books_are_in_postgresql(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(database="whole_service")
    with create_engine(postgresql_url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE whole_service")
    mandarin = {"IVR_LOCALE": "zh", "IVR_DATABASE_URL": url.render_as_string(hide_password=False)}
    with stage(extra=mandarin) as running:
        (result,) = _play(running, "20")
    assert result.problems == []


def test_without_a_model_of_her_language_a_caller_pays_by_keys() -> None:
    with stage(extra={"IVR_LOCALE": "zh", "IVR_DIGIT_MODEL_ZH_DIR": "none"}) as running:
        (result,) = _play(running, "21")
    assert result.problems == []
