"""OpenTelemetry traces: one a call, whichever processes it passes.

The id of a call's trace is made of the call's, so that webhooks, the stream and the worker need hand nothing to each
other. A span holds names of ours and ids of calls and payments: no address (some hold one-time links), nothing said.

Without the packages of the extra ``traces`` and an address in ``OTEL_EXPORTER_OTLP_ENDPOINT``, spans cost nothing and
go nowhere. What else is set (headers, sampling, the service's name) are OpenTelemetry's own ``OTEL_`` variables.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, g, request
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_tracer = trace.get_tracer("ivr")


def configure() -> bool:
    """Send spans to the collector that the environment names; whether it names one. Once the process forks no more.

    Raises RuntimeError when it does and the packages are not there.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise RuntimeError("OTEL_EXPORTER_OTLP_ENDPOINT is set: pip install '.[traces]', or unset it") from None
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        os.environ.setdefault("OTEL_SERVICE_NAME", "pay-by-voice")
        provider = TracerProvider(resource=Resource.create())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    return True


@contextmanager
def span(name: str, call: str | None = None, **about: str | int) -> Iterator[trace.Span]:
    """Time what happens inside, as a part of the trace of ``call`` or of the span around it.

    An error that passes is told by its type alone: its words may hold what a caller said.
    """
    attributes = {f"ivr.{key}": value for key, value in about.items()} | ({"ivr.call": call} if call else {})
    with _tracer.start_as_current_span(
        name, _of_call(call), attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def install(app: Flask) -> None:
    """A span for each request, by the name of its endpoint. A stream has spans of its turns instead."""

    @app.before_request
    def begin() -> None:
        if request.headers.get("Upgrade") is None:
            call = request.form.get("CallSid", "") if request.blueprint == "carrier" else ""
            g.span = span(f"{request.method} {request.endpoint}", call[:64] or None)
            g.span.__enter__()

    @app.after_request
    def answered(response: Response) -> Response:
        trace.get_current_span().set_attribute("http.response.status_code", response.status_code)
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        if (begun := g.pop("span", None)) is not None:
            begun.__exit__(type(error) if error else None, error, None)


def _of_call(call: str | None) -> Context | None:
    """What a span of the call has above it; None: whatever span is around."""
    around = trace.get_current_span().get_span_context()
    if call is None or around.trace_id == (trace_id := _trace_id(call)):
        return None
    above = SpanContext(trace_id, trace_id & (2**64 - 1), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(above))


def _trace_id(call: str) -> int:
    return int.from_bytes(hashlib.sha256(call.encode()).digest()[:16]) | 1
