"""Metrics in the text format of Prometheus, version 0.0.4: names ``absurd_cutout_*``, units seconds and bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any, Literal

from absurd.tasks.cutout.performance import BOUNDS, PER_DECADE, PerformanceMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "absurd_cutout_"
_EVERY = PER_DECADE // 2
"""Of the buckets for one factor of ten, two are told."""

Sample = tuple[str, dict[str, str], float]
"""What follows the name of the metric, labels, value."""


def exposition(metrics: PerformanceMetrics) -> str:
    """All metrics, each with its HELP and TYPE."""
    return "".join(f"{line}\n" for line in _lines(metrics))


@contextmanager
def serve_metrics(tell: Callable[[], str], *, host: str = "127.0.0.1", port: int = 9464) -> Iterator[str]:
    """Answer Prometheus at ``/metrics`` with what `tell` gives, such as ``fetcher.monitor.prometheus``, until the end.

    Gives the address; port 0 takes a free one.  Whoever reaches the host can read it: there is nothing secret in it.
    Raises OSError for a port that is taken.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = tell().encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a scrape every few seconds is no news."""

    with ThreadingHTTPServer((host, port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics", daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}/metrics"
        finally:
            server.shutdown()
            thread.join()


def _lines(metrics: PerformanceMetrics) -> Iterator[str]:
    operations = metrics.operations.items()
    yield from _metric("operation_seconds", "histogram", "Time that operations took.", _histograms(metrics))
    yield from _metric(
        "errors_total",
        "counter",
        "Operations that failed, by code.",
        (
            ("", {"operation": name, "code": code}, n)
            for name, of in operations
            for code, n in of.errors_by_code.items()
        ),
    )
    for what, help_text in (("bytes", "Bytes that went through."), ("items", "Cut-outs or rows that were handled.")):
        samples = [("", {"operation": name}, float(getattr(of, what))) for name, of in operations]
        yield from _metric(f"{what}_total", "counter", help_text, samples)
    yield from _metric("memory_bytes", "gauge", "Memory of the process.", [("", {}, metrics.memory_bytes)])
    for what, of_recovery, help_text in (
        ("recoveries_total", "count", "How often a source came back."),
        ("recovery_seconds_total", "seconds", "How long sources had been away until a call of theirs succeeded."),
    ):
        away = [("", {"source": name}, float(getattr(of, of_recovery))) for name, of in metrics.recoveries.items()]
        yield from _metric(what, "counter", help_text, away)
    if metrics.cache is None:
        return
    for what, help_text in (
        ("hits", "Values that were found in the cache."),
        ("misses", "Values that were not found in the cache."),
        ("evictions", "Values that went from memory for room."),
        ("expirations", "Values that were too old when they were asked for."),
        ("invalidations", "Values that went by call, or because a file had changed."),
        ("refused", "Values that were too large to be kept."),
    ):
        yield from _metric(f"cache_{what}_total", "counter", help_text, _by_kind(metrics, what))
    yield from _metric("cache_entries", "gauge", "Values in memory.", _by_kind(metrics, "entries"))
    yield from _metric("cache_bytes", "gauge", "Bytes of the values in memory.", _by_kind(metrics, "bytes"))
    yield from _metric(
        "cache_disk_bytes", "gauge", "Bytes of the values on disk.", [("", {}, metrics.cache.disk_bytes)]
    )
    yield from _metric("cache_corrupt_total", "counter", "Damaged files.", [("", {}, metrics.cache.corrupt)])


def _histograms(metrics: PerformanceMetrics) -> Iterator[Sample]:
    for name, of in metrics.operations.items():
        below = list(accumulate(of.buckets))
        for place in range(0, len(BOUNDS), _EVERY):
            yield "_bucket", {"operation": name, "le": f"{BOUNDS[place]:.6g}"}, below[place]
        yield "_bucket", {"operation": name, "le": "+Inf"}, of.count
        yield "_sum", {"operation": name}, of.total
        yield "_count", {"operation": name}, of.count


def _by_kind(metrics: PerformanceMetrics, what: str) -> Iterator[Sample]:
    if metrics.cache is not None:
        for kind, of in metrics.cache.kinds.items():
            yield "", {"kind": kind}, getattr(of, what)


def _metric(
    name: str, kind: Literal["counter", "gauge", "histogram"], help_text: str, samples: Iterable[Sample]
) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {help_text}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    for suffix, labels, value in samples:
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{_PREFIX}{name}{suffix}{f'{{{told}}}' if told else ''} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
