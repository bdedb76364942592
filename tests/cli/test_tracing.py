"""Spans of OpenTelemetry: real processes, exported by OTLP to a collector that listens here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from cli.conftest import Run

SPAWNING = """
from absurd import SyncAbsurdClient
with SyncAbsurdClient.from_env() as client:
    client.spawn("traced.spawning", {}, queue="q", headers={"mine": 7})
"""


class Collector:
    """What was exported: spans by name."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Any]] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in group.scope_spans:
                        for span in scope.spans:
                            collector.spans.setdefault(span.name, []).append(span)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def one(self, name: str) -> Any:
        (span,) = self.spans[name]
        return span


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector for the time of the test."""
    made = Collector()
    with made.server:
        thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.server.shutdown()
        thread.join()


def test_one_trace_joins_spawn_run_and_child_run_across_processes(program: Run, collector: Collector) -> None:
    """The program that spawns, the worker, and a process of the worker's: each span is within that which led to it."""
    tracing = {
        "ABSURD_IMPORTS": "traced_executors",
        "ABSURD_SPAWN_MIDDLEWARE": "absurd.tracing:send",
        "ABSURD_RUN_MIDDLEWARE": "absurd.tracing:observe",
        "ABSURD_CALL_MIDDLEWARE": "absurd.tracing:receive",
        "ABSURD_QUEUE_NAME": "q",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server.server_address[1]}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    done = program("python", "-c", SPAWNING, **tracing)
    assert done.code == 0, done.err
    worked = program("absurd-worker", "--queue", "q", "--drain", **tracing)
    assert worked.code == 0, worked.err

    names = {"spawn traced.spawning", "run traced.spawning", "spawn traced.spawned", "run traced.spawned", "own",
             "spawn traced.in_loop", "run traced.in_loop"}  # fmt: skip
    assert names == collector.spans.keys()
    assert 1 == len({span.trace_id for spans in collector.spans.values() for span in spans})
    root = collector.one("spawn traced.spawning")
    assert root.parent_span_id == b""
    failed, completed = sorted(collector.spans["run traced.spawning"], key=lambda span: int(span.start_time_unix_nano))
    assert [root.span_id] * 2 == [failed.parent_span_id, completed.parent_span_id]
    told = [{each.key: each.value for each in span.attributes} for span in (failed, completed)]
    assert ["failed", "completed"] == [each["absurd.outcome"].string_value for each in told]
    assert [1, 2] == [each["absurd.attempt"].int_value for each in told]
    assert (2, "not the first time") == (failed.status.code, failed.status.message)
    for name in ("spawned", "in_loop"):
        spawned = collector.one(f"spawn traced.{name}")
        assert completed.span_id == spawned.parent_span_id
        assert spawned.span_id == collector.one(f"run traced.{name}").parent_span_id
    assert collector.one("run traced.spawned").span_id == collector.one("own").parent_span_id
    assert "seen" in {each.key for each in collector.one("run traced.in_loop").attributes}
    assert root.start_time_unix_nano < completed.end_time_unix_nano
