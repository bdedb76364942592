"""Spans for OpenTelemetry (extra `otel`): one trace from a spawn over its runs to what these spawn, across processes.

Three functions for the settings: ``spawn_middleware = ["absurd.tracing:send"]``, ``run_middleware =
["absurd.tracing:observe"]``, ``call_middleware = ["absurd.tracing:receive"]``.  The trace travels in the task's headers
(W3C Trace Context).  A program that has set up OpenTelemetry keeps its own; else it is set up by ``OTEL_*``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

import structlog

from absurd.context import RunContext
from absurd.errors import ConfigurationError
from absurd.middleware import CallNext
from absurd.model import Claim, TaskSpec
from absurd.outcome import Failed, Outcome
from absurd.telemetry import Event

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
except ImportError as error:
    raise ConfigurationError("opentelemetry is missing: this needs `pip install 'absurd[otel]'`") from error

EXPORT_SECONDS = 2.0
"""How long an export is tried: a process that ends waits for it, also where no collector answers."""

log = structlog.get_logger("absurd.tracing")


def send(spec: TaskSpec) -> TaskSpec:
    """Spawn middleware: a span of the spawn, which the task's runs will be part of.

    It belongs to the span at hand, or to the one that the task's headers name.
    """
    headers = dict(spec.headers or {})
    within = _named_by(headers) if "traceparent" in headers else None
    name = getattr(spec.name, "name", spec.name)
    attributes = {"messaging.system": "absurd", "messaging.operation.type": "send", "absurd.executor": str(name)}
    with _tracer().start_as_current_span(
        f"spawn {name}", context=within, kind=SpanKind.PRODUCER, attributes=attributes
    ):
        propagate.inject(headers)
    return replace(spec, headers=headers)


async def observe(claim: Claim, call_next: CallNext) -> Outcome | None:
    """Run middleware: a span of the run, to its outcome; failed runs are errors."""
    attributes: dict[str, str | int] = {
        "messaging.system": "absurd",
        "messaging.operation.type": "process",
        "messaging.destination.name": claim.queue,
        "messaging.message.id": str(claim.task_id),
        "absurd.executor": claim.name,
        "absurd.attempt": claim.attempt,
    }
    with _tracer().start_as_current_span(
        f"run {claim.name}", context=_named_by(claim.headers), kind=SpanKind.CONSUMER, attributes=attributes
    ) as span:
        headers = dict(claim.headers)
        propagate.inject(headers)  # so that it is found where the executor's function is called
        try:
            outcome = await call_next(claim._replace(headers=headers))
        except asyncio.CancelledError:
            span.set_attribute("absurd.outcome", "returned")
            raise
        _tell(span, outcome)
        return outcome


@contextmanager
def receive(ctx: RunContext) -> Iterator[None]:
    """Call middleware: what the executor's function spawns, and its own spans, belong to the span of its run."""
    run = _named_by(ctx.headers)
    if trace.get_current_span(run).get_span_context().span_id == trace.get_current_span().get_span_context().span_id:
        yield  # in the worker's own process the span itself is at hand
        return
    token = context.attach(run)
    try:
        yield
    finally:
        context.detach(token)


def _named_by(headers: Mapping[str, Any]) -> Context:
    """What headers say of a trace; those of others may hold anything."""
    texts = {name: value for name, value in headers.items() if isinstance(value, str)}
    return propagate.extract(texts, context.get_current())


def _tell(span: Span, outcome: Outcome | None) -> None:
    span.set_attribute("absurd.outcome", "lost" if outcome is None else type(outcome).__name__.lower())
    if isinstance(outcome, Failed):
        span.set_attribute("error.type", str(outcome.error.get("code")))
        span.set_status(StatusCode.ERROR, str(outcome.error.get("message")))


_setting_up = threading.Lock()


def _tracer() -> Tracer:
    with _setting_up:
        return _made_tracer()


@cache
def _made_tracer() -> Tracer:
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody has set it up
        _set_up(os.environ.get("OTEL_TRACES_EXPORTER") or "otlp")
    return trace.get_tracer("absurd", version("absurd"))


def _set_up(exporter: str) -> None:
    """Export spans as ``OTEL_*`` says, by OTLP over HTTP unless it says otherwise; what is left is sent at the exit."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    made: SpanExporter
    match exporter:
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            given = {"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"} & os.environ.keys()
            made = OTLPSpanExporter(timeout=None if given else EXPORT_SECONDS)
        case "console":
            made = ConsoleSpanExporter(out=sys.stderr)
        case "none":
            return
        case _:  # no run may fail of it
            log.error(Event.TRACES_NOT_EXPORTED, exporter=exporter, known="otlp, console or none")
            return
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # the standard's name for none given
        resource = resource.merge(Resource({SERVICE_NAME: "absurd"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(made))
    trace.set_tracer_provider(provider)
