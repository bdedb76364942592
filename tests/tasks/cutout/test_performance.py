"""Measurements: what is counted, how exact percentiles are, that memory does not grow, what Prometheus is told."""

from __future__ import annotations

import gc
import json
import math
import re
import tracemalloc
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ticking import Clock

from absurd.tasks.cutout.cache import CacheKey, CacheManager
from absurd.tasks.cutout.circuit import Recoveries
from absurd.tasks.cutout.errors import BandNotFoundError, ButlerConfigError, PerformanceError
from absurd.tasks.cutout.performance import BOUNDS, PerformanceMonitor, SilentMonitor, Threshold, Violation
from absurd.tasks.cutout.prometheus import CONTENT_TYPE, serve_metrics


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(clock: Clock) -> PerformanceMonitor:
    return PerformanceMonitor(clock=clock, resident=lambda: 12345)


def spend(monitor: PerformanceMonitor, clock: Clock, seconds: float, name: str = "read") -> None:
    with monitor.measure(name):
        clock.tick(seconds)


def test_what_is_counted(monitor: PerformanceMonitor, clock: Clock) -> None:
    """Calls, errors by code, bytes and items that were known before or found on the way, and the time."""
    with monitor.measure("read", bytes=100) as measured:
        clock.tick(1)
        measured.bytes += 20
        measured.items = 3
    clock.tick(2)
    for error in (BandNotFoundError("no r"), OSError("disk"), OSError("again")):
        with pytest.raises(type(error)), monitor.measure("read"):
            clock.tick(3)
            raise error
    with pytest.raises(KeyboardInterrupt), monitor.measure("query"):
        raise KeyboardInterrupt

    metrics = monitor.metrics()

    read = metrics.operations["read"]
    assert (read.count, read.errors, read.error_rate, read.bytes, read.items) == (4, 3, 0.75, 120, 3)
    assert read.errors_by_code == {"cutout_band_not_found": 1, "OSError": 2}
    assert (read.total, read.mean, read.slowest, read.elapsed) == (10, 2.5, 3, 12)
    assert (read.per_second, read.items_per_second, read.bytes_per_second) == (4 / 12, 3 / 12, 120 / 12)
    assert metrics.operations["query"].errors == 0
    assert (metrics.count, metrics.errors, metrics.error_rate) == (5, 3, 0.6)
    assert (metrics.memory_bytes, metrics.cache_hit_rate) == (12345, None)
    monitor.reset()
    assert monitor.metrics().count == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-5, 900), min_size=1, max_size=200))
def test_percentiles_are_right_to_their_bucket(times: list[float]) -> None:
    """Against the sorted times themselves: within 7.5 %, whatever their number and spread."""
    clock = Clock(0.0)
    monitor = PerformanceMonitor(clock=clock)
    taken = []
    for seconds in times:
        before = clock()
        spend(monitor, clock, seconds)
        taken.append(clock() - before)
    taken.sort()

    read = monitor.metrics().operations["read"]

    for share, found in ((0.5, read.p50), (0.95, read.p95), (0.99, read.p99)):
        exact = taken[math.ceil(share * len(taken)) - 1]
        assert exact / 1.075 <= found <= exact * 1.075
    assert read.slowest == taken[-1]


def test_times_beyond_all_buckets(monitor: PerformanceMonitor, clock: Clock) -> None:
    """Longer than the last bound, and none at all: counted, and the percentiles stay between."""
    clock.now = 0.0
    spend(monitor, clock, 5000)
    assert monitor.metrics().operations["read"].p99 == 5000
    spend(monitor, clock, 0, "query")
    assert monitor.metrics().operations["query"].p50 == 0


def test_memory_does_not_grow_with_what_is_measured() -> None:
    """Ten thousand calls under ever new names, failing in ever new ways: names are folded and nothing is listed."""
    monitor = PerformanceMonitor()

    def work(begin: int) -> None:
        for number in range(begin, begin + 10_000):
            error = type(f"Error{number}", (Exception,), {}) if number % 100 == 0 else OSError
            with suppress(error), monitor.measure(f"cut {number}"):
                raise error
        gc.collect()

    work(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work(10_000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    metrics = monitor.metrics()
    assert grown < 100_000
    assert len(metrics.operations) <= 65
    assert metrics.count == metrics.errors == 20_000
    assert len(metrics.operations["other"].errors_by_code) <= 65
    assert sum(metrics.operations["other"].errors_by_code.values()) == metrics.operations["other"].count


def test_threads_are_all_counted(monitor: PerformanceMonitor) -> None:
    """Eight threads, no call lost, and time that adds up."""

    def work(_: int) -> None:
        for number in range(500):
            with monitor.measure("read", bytes=number, items=1):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    read = monitor.metrics().operations["read"]
    assert (read.count, read.items, read.bytes, sum(read.buckets)) == (4000, 4000, 8 * 499 * 250, 4000)


def test_a_silent_monitor_measures_nothing() -> None:
    """The code that is measured is the same; errors go through."""
    monitor = SilentMonitor()
    with pytest.raises(OSError, match="disk"), monitor.measure("read", bytes=5) as measured:
        measured.items = 5
        raise OSError("disk")

    assert monitor.metrics().count == 0


# Thresholds -------------------------------------------------------------------------------------------


def test_thresholds_that_do_not_hold_are_an_error(clock: Clock, tmp_path: Path) -> None:
    """All of them in one, with what they are and must be; of calls and of the whole."""
    cache = CacheManager(clock=clock)
    monitor = PerformanceMonitor(
        [
            Threshold("p95", "read", most=0.5),
            Threshold("error_rate", "read", most=0.1),
            Threshold("per_second", "read", least=100),
            Threshold("mean", "query", most=0),
            Threshold("memory_bytes", most=1000),
            Threshold("cache_hit_rate", least=0.5, after=1),
        ],
        clock=clock, resident=lambda: 12345, cache=cache.statistics,
    )  # fmt: skip
    cache.get(CacheKey.of("wcs", str(tmp_path)))
    for _ in range(19):
        spend(monitor, clock, 1)
    assert [each.threshold.quantity for each in monitor.violations()] == ["memory_bytes", "cache_hit_rate"]
    spend(monitor, clock, 1)

    with pytest.raises(PerformanceError) as caught:
        monitor.check()

    assert str(caught.value) == (
        "p95 of read is 1 s; it must be at most 0.5 s; per_second of read is 1/s; it must be at least 100/s; "
        "memory_bytes is 1.234e+04 bytes; it must be at most 1000 bytes; cache_hit_rate is 0; it must be at least 0.5: "
        "ask for fewer bands or planes, smaller batches, or raise the threshold"
    )
    assert caught.value.details["values"]["read.per_second"] == 1.0


def test_thresholds_may_warn_instead(clock: Clock) -> None:
    """Whoever is told decides; nothing is raised."""
    told: list[Violation] = []
    threshold = Threshold("slowest", "read", most=1, after=1)
    monitor = PerformanceMonitor([threshold], clock=clock, on_violation=told.append)
    monitor.check()
    spend(monitor, clock, 2)

    monitor.check()

    assert told == [Violation(threshold, 2.0)]


def test_a_threshold_that_cannot_be_meant_is_refused() -> None:
    """Times are an operation's, memory is nobody's."""
    with pytest.raises(ButlerConfigError, match="a threshold for p95 needs the name of an operation"):
        Threshold("p95", most=1)
    with pytest.raises(ButlerConfigError, match="a threshold for memory_bytes names no operation"):
        Threshold("memory_bytes", "read", most=1)


# Prometheus -------------------------------------------------------------------------------------------

LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([0-9.e+-]+|NaN|[+-]Inf)")
HEAD = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)")


def samples_of(text: str) -> dict[str, dict[str, float]]:
    """Samples by name and labels, after every rule of the text format has been checked."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    types: dict[str, str] = {}
    helped = set()
    current = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        head = HEAD.fullmatch(line)
        if head is not None:
            what, current, rest = head.groups()
            if what == "HELP":
                assert current not in helped
                helped.add(current)
            else:
                assert current not in types
                assert rest in ("counter", "gauge", "histogram")
                types[current] = rest
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        name, labels, value = sample.groups()
        assert name.startswith("absurd_cutout_")
        suffixes = ("_bucket", "_sum", "_count") if types[current] == "histogram" else ("",)
        assert name in {current + suffix for suffix in suffixes}, line
        assert types[current] != "counter" or current.endswith("_total")
        assert (labels or "") not in found[name], line
        found[name][labels or ""] = float(value)
    assert helped == set(types)
    return found


def test_prometheus_is_told_everything(clock: Clock) -> None:
    """In its text format: HELP and TYPE once, before the samples; cumulative buckets; the numbers of the metrics."""
    cache = CacheManager(clock=clock)
    away = {"server": Recoveries(count=2, seconds=70.5, last=30.0)}
    monitor = PerformanceMonitor(clock=clock, resident=lambda: 12345, cache=cache.statistics, recoveries=lambda: away)
    cache.put(CacheKey.of("psf", 1), np.zeros(872, np.uint8))
    cache.get(CacheKey.of("psf", 1))
    cache.get(CacheKey.of("psf", 2))
    for seconds in (0.002, 0.002, 0.5, 4000):
        with monitor.measure("read", bytes=1000, items=2):
            clock.tick(seconds)
    with pytest.raises(BandNotFoundError), monitor.measure('odd "name"\\\n'):
        raise BandNotFoundError("no r")

    text = monitor.prometheus()

    found = samples_of(text)
    buckets = [value for labels, value in found["absurd_cutout_operation_seconds_bucket"].items() if '"read"' in labels]
    assert buckets == sorted(buckets)
    assert found["absurd_cutout_operation_seconds_bucket"]['operation="read",le="0.01"'] == 2
    assert found["absurd_cutout_operation_seconds_bucket"]['operation="read",le="1"'] == 3
    assert found["absurd_cutout_operation_seconds_bucket"]['operation="read",le="1000"'] == 3
    assert found["absurd_cutout_operation_seconds_bucket"]['operation="read",le="+Inf"'] == 4
    assert found["absurd_cutout_operation_seconds_count"]['operation="read"'] == 4
    assert found["absurd_cutout_operation_seconds_sum"]['operation="read"'] == pytest.approx(4000.504)
    assert found["absurd_cutout_errors_total"] == {
        r'operation="odd \"name\"\\\n",code="cutout_band_not_found"': 1
    }  # fmt: skip
    assert found["absurd_cutout_bytes_total"]['operation="read"'] == 4000
    assert found["absurd_cutout_items_total"]['operation="read"'] == 8
    assert found["absurd_cutout_memory_bytes"] == {"": 12345}
    assert found["absurd_cutout_recoveries_total"] == {'source="server"': 2}
    assert found["absurd_cutout_recovery_seconds_total"] == {'source="server"': 70.5}
    assert found["absurd_cutout_cache_hits_total"]['kind="psf"'] == 1
    assert found["absurd_cutout_cache_misses_total"]['kind="psf"'] == 1
    assert found["absurd_cutout_cache_entries"]['kind="psf"'] == 1
    assert found["absurd_cutout_cache_bytes"]['kind="psf"'] == 1000
    assert found["absurd_cutout_cache_disk_bytes"] == {"": 0}


def test_before_anything_was_measured(monitor: PerformanceMonitor) -> None:
    """The text is well formed, and JSON holds no number that is none."""
    assert samples_of(monitor.prometheus())["absurd_cutout_memory_bytes"] == {"": 12345}
    spend(monitor, Clock(), 0)
    told = json.dumps(monitor.metrics().to_json(), allow_nan=False)
    assert json.loads(told)["operations"]["read"]["count"] == 1


def test_buckets_are_even() -> None:
    """Sixteen for each factor of ten, from 10 microseconds to 1000 s."""
    assert BOUNDS[0] == 1e-5
    assert BOUNDS[-1] == 1000
    ratios = [high / low for low, high in pairwise(BOUNDS)]
    assert ratios == pytest.approx([10 ** (1 / 16)] * 128)


def get(address: str) -> tuple[int, str | None, str]:
    """Status, type and text of what is answered at an address."""
    place = urlsplit(address)
    connection = HTTPConnection(place.netloc, timeout=30)
    with closing(connection):
        connection.request("GET", place.path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


def test_metrics_are_served(monitor: PerformanceMonitor, clock: Clock) -> None:
    """A scrape over HTTP gets what stands at that moment; other paths are not found, and in the end nobody answers."""
    with serve_metrics(monitor.prometheus, port=0) as address:
        for calls in (1, 2):
            spend(monitor, clock, 0.25)
            status, kind, text = get(address)
            assert (status, kind) == (200, CONTENT_TYPE)
            assert samples_of(text)["absurd_cutout_operation_seconds_count"] == {'operation="read"': calls}
        assert get(address.replace("/metrics", "/"))[0] == 404
        taken = urlsplit(address).port
        assert taken is not None
        with pytest.raises(OSError, match="in use"), serve_metrics(monitor.prometheus, port=taken):
            pass
    with pytest.raises(ConnectionRefusedError):
        get(address)
