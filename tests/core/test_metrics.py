"""The text that Prometheus reads: its parts, and one that is read back."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable

import pytest
from scraping import parse

from absurd.errors import DatabaseUnavailableError, PortInUseError
from absurd.metrics import BOUNDS, CONTENT_TYPE, METRICS, Histogram, Sample, exposition
from absurd.metrics_server import answering


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    """Counters end in _total and others do not, durations are seconds, sizes bytes; each help is a sentence."""
    for name, metric in METRICS.items():
        assert re.fullmatch(r"absurd_[a-z_]+", name)
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.kind != "histogram" or name.endswith("_seconds")
        assert metric.help.endswith("."), name
        assert "le" not in metric.labels


def test_a_histogram_is_told_in_cumulative_buckets() -> None:
    """A bucket holds what took as long as its bound or less; the last all, as the count; a bound is in its bucket."""
    histogram = Histogram("absurd_run_seconds")
    for seconds in (0.0, BOUNDS[0], 0.01, 1e9):
        histogram.observe(seconds, 'say "hi"\\\n')
    page = exposition(histogram.samples())

    found = parse(page)
    labels = {"executor": 'say "hi"\\\n'}
    buckets = [found["absurd_run_seconds_bucket", frozenset((labels | {"le": f"{b:g}"}).items())] for b in BOUNDS]
    assert buckets[:3] == [2, 2, 3]
    assert buckets == sorted(buckets)
    assert found["absurd_run_seconds_bucket", frozenset((labels | {"le": "+Inf"}).items())] == 4
    assert found["absurd_run_seconds_count", frozenset(labels.items())] == 4
    assert math.isclose(found["absurd_run_seconds_sum", frozenset(labels.items())], 1e9 + 0.011)
    assert page.count("# TYPE absurd_run_seconds histogram") == page.count("# HELP absurd_run_seconds ") == 1


def test_samples_of_one_metric_stand_together() -> None:
    """Whatever order they come in: Prometheus takes a metric that begins twice for an error."""
    page = exposition([Sample("absurd_queue_paused", True, {"queue": "a"}), Sample("absurd_slots", 1.5),
                       Sample("absurd_queue_paused", False, {"queue": "b"})])  # fmt: skip

    assert [line for line in page.splitlines() if line[0] != "#"] == [
        'absurd_queue_paused{queue="a"} 1', 'absurd_queue_paused{queue="b"} 0', "absurd_slots 1.5",
    ]  # fmt: skip
    with pytest.raises(KeyError):
        exposition([Sample("absurd_sloths", 1)])


async def _ask(port: int, request: bytes) -> tuple[int, str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


async def test_a_daemon_answers_as_much_of_http_as_a_scrape_needs(unused_port: int) -> None:
    """The page, 404, 405, 503 without a database, 500 after a mistake; a closed or mad connection harms no other."""
    told: list[Callable[[], Awaitable[str]]] = []

    async def page() -> str:
        return "a 1\n"

    async def away() -> str:
        raise DatabaseUnavailableError("gone")

    async def broken() -> str:
        raise ZeroDivisionError

    async def last() -> str:
        return await told[-1]()

    async with answering(f"127.0.0.1:{unused_port}", last):
        told.append(page)
        _, silent = await asyncio.open_connection("127.0.0.1", unused_port)
        status, head, body = await _ask(unused_port, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, body) == (200, "a 1\n")
        assert f"Content-Type: {CONTENT_TYPE}" in head
        assert await _ask(unused_port, b"HEAD /metrics HTTP/1.1\r\n\r\n") == (200, head, "")
        assert (await _ask(unused_port, b"GET / HTTP/1.1\r\n\r\n"))[0] == 404
        assert (await _ask(unused_port, b"POST /metrics HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await _ask(unused_port, b"\r\n\r\n"))[0] == 405
        reader, mad = await asyncio.open_connection("127.0.0.1", unused_port)
        mad.write(b"x" * 100_000)
        assert await reader.read() == b""
        mad.close()
        told.append(away)
        assert (await _ask(unused_port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 503
        told.append(broken)
        assert (await _ask(unused_port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 500
        silent.close()
        with pytest.raises(PortInUseError, match=str(unused_port)):
            async with answering(f"127.0.0.1:{unused_port}", page):
                pass


@pytest.fixture
def unused_port(unused_tcp_port: int) -> int:
    """A port that nobody listens on."""
    return unused_tcp_port
