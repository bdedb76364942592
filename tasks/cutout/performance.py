"""How long operations take, how many fail, how much goes through: in memory that does not grow.

Times go into a histogram with 16 buckets for each factor of ten, so percentiles above 10 microseconds are right to
7.5 %, whatever the number of operations.  `prometheus` tells all of it in the text format of Prometheus.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from absurd.errors import AbsurdError
from absurd.tasks.cutout.cache_statistics import CacheStatistics
from absurd.tasks.cutout.circuit import Recoveries
from absurd.tasks.cutout.errors import ButlerConfigError, PerformanceError
from absurd.tasks.cutout.memory import resident_bytes

PER_DECADE = 16
BOUNDS: Sequence[float] = tuple(10 ** (step / PER_DECADE) for step in range(-5 * PER_DECADE, 3 * PER_DECADE + 1))
"""Upper bounds of the buckets but the last, from 10 microseconds to 1000 s."""
OTHER = "other"
"""Where operations and errors go beyond the first `MOST_NAMES` names: who names them by position fills no memory."""
MOST_NAMES = 64


@dataclass(frozen=True, slots=True)
class OperationMetrics:
    """Of one operation; times in seconds."""

    count: int
    errors: int
    bytes: int
    items: int
    total: float
    """Time of all calls together; more than the clock's, where threads work side by side."""
    mean: float
    p50: float
    p95: float
    p99: float
    fastest: float
    slowest: float
    elapsed: float
    """From the begin of the first call to the end of the last."""
    errors_by_code: Mapping[str, int] = field(default_factory=dict)
    """By code, or by class for errors of other packages."""
    buckets: Sequence[int] = ()
    """Calls by `BOUNDS`, and one number more for those that took longer than the last."""

    @property
    def error_rate(self) -> float:
        """Share of calls that failed, 0 to 1."""
        return self.errors / self.count

    @property
    def per_second(self) -> float:
        """Calls per second of `elapsed`."""
        return self.count / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def items_per_second(self) -> float:
        """Cut-outs, rows or whatever was counted, per second of `elapsed`."""
        return self.items / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes per second of `elapsed`."""
        return self.bytes / self.elapsed if self.elapsed > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PerformanceMetrics:
    """Everything that a monitor knows, at one moment."""

    operations: Mapping[str, OperationMetrics]
    memory_bytes: int
    """Of the process."""
    cache: CacheStatistics | None = None
    recoveries: Mapping[str, Recoveries] = field(default_factory=dict)
    """By source."""

    @property
    def count(self) -> int:
        return sum(each.count for each in self.operations.values())

    @property
    def errors(self) -> int:
        return sum(each.errors for each in self.operations.values())

    @property
    def error_rate(self) -> float:
        """Share of calls that failed, 0 to 1."""
        return self.errors / self.count if self.count else 0.0

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of hits, 0 to 1; None without a cache."""
        return None if self.cache is None else self.cache.hit_rate

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and manifests, without the buckets."""
        operations = {
            name: {key: value for key, value in asdict(each).items() if key != "buckets"}
            | {"error_rate": each.error_rate, "per_second": each.per_second}
            for name, each in self.operations.items()
        }
        return {
            "operations": operations,
            "count": self.count,
            "errors": self.errors,
            "error_rate": self.error_rate,
            "memory_bytes": self.memory_bytes,
            "cache_hit_rate": self.cache_hit_rate,
            "recoveries": {name: asdict(each) | {"mean": each.mean} for name, each in self.recoveries.items()},
        }


Quantity = Literal[
    "mean", "p50", "p95", "p99", "fastest", "slowest", "error_rate", "per_second", "items_per_second",
    "bytes_per_second", "memory_bytes", "cache_hit_rate",
]  # fmt: skip
_OF_ALL = ("memory_bytes", "cache_hit_rate")
_UNITS = {"per_second": "/s", "items_per_second": " items/s", "bytes_per_second": " bytes/s", "memory_bytes": " bytes"}


@dataclass(frozen=True, slots=True)
class Threshold:
    """What must hold of an operation, or of the whole: at most, or at least, so much."""

    quantity: Quantity
    operation: str | None = None
    """None for memory and cache, which are nobody's alone."""
    most: float = math.inf
    least: float = -math.inf
    after: int = 20
    """Calls (lookups for the cache) before which nothing is judged."""

    def __post_init__(self) -> None:
        if (self.operation is None) != (self.quantity in _OF_ALL):
            wanted = "names no operation" if self.quantity in _OF_ALL else "needs the name of an operation"
            raise ButlerConfigError(f"a threshold for {self.quantity} {wanted}")

    def broken_by(self, metrics: PerformanceMetrics) -> Violation | None:
        """What `metrics` show that must not be."""
        value: float
        if self.operation is None:
            seen = metrics.cache.hits + metrics.cache.misses if metrics.cache else 0
            if self.quantity == "cache_hit_rate" and (metrics.cache is None or seen < self.after):
                return None
            value = getattr(metrics, self.quantity)
        else:
            operation = metrics.operations.get(self.operation)
            if operation is None or operation.count < self.after:
                return None
            value = getattr(operation, self.quantity)
        return None if self.least <= value <= self.most else Violation(self, value)


@dataclass(frozen=True, slots=True)
class Violation:
    """A threshold does not hold."""

    threshold: Threshold
    value: float

    def __str__(self) -> str:
        wanted = self.threshold
        unit = _UNITS.get(wanted.quantity, "" if wanted.quantity.endswith("_rate") else " s")
        limit = f"at most {wanted.most:g}" if self.value > wanted.most else f"at least {wanted.least:g}"
        of = f" of {wanted.operation}" if wanted.operation else ""
        return f"{wanted.quantity}{of} is {self.value:.4g}{unit}; it must be {limit}{unit}"


@dataclass(slots=True)
class Measured:
    """What a measured call says of itself while it goes on."""

    bytes: int = 0
    items: int = 0
    """Cut-outs, rows or whatever the operation counts."""
    counts: bool = True
    """False where nothing was to be done: no call is counted then."""


@dataclass(slots=True)
class _Operation:
    count: int = 0
    errors: int = 0
    bytes: int = 0
    items: int = 0
    total: float = 0.0
    fastest: float = math.inf
    slowest: float = 0.0
    begun: float = math.inf
    ended: float = -math.inf
    codes: Counter[str] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


class PerformanceMonitor:
    """Measures operations: ``with monitor.measure("read", bytes=4096):``; safe for threads.

    `thresholds` are judged by `check`, which calls `on_violation` for each that does not hold or, without one, raises
    PerformanceError.  `cache` gives the statistics of a cache, `recoveries` how often which source came back: both
    are told along.
    """

    def __init__(
        self,
        thresholds: Sequence[Threshold] = (),
        *,
        on_violation: Callable[[Violation], object] | None = None,
        cache: Callable[[], CacheStatistics] | None = None,
        recoveries: Callable[[], Mapping[str, Recoveries]] = dict,
        clock: Callable[[], float] = time.perf_counter,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self.thresholds = tuple(thresholds)
        self._on_violation = on_violation
        self._cache = cache
        self._recoveries = recoveries
        self._clock = clock
        self._resident = resident
        self._lock = threading.Lock()
        self._operations: dict[str, _Operation] = {}

    @contextmanager
    def measure(self, operation: str, *, bytes: int = 0, items: int = 0) -> Iterator[Measured]:
        """Time what is done inside; what is not known before may be added to what it gives.

        An Exception counts as an error, an interruption does not.
        """
        measured = Measured(bytes, items)
        begun = self._clock()
        code = None
        try:
            yield measured
        except Exception as error:
            code = error.code if isinstance(error, AbsurdError) else type(error).__name__
            raise
        finally:
            if measured.counts:
                self._record(operation, begun, self._clock(), measured, code)

    def metrics(self) -> PerformanceMetrics:
        """Everything so far."""
        cache = self._cache() if self._cache is not None else None
        with self._lock:
            operations = {name: _metrics(each) for name, each in sorted(self._operations.items())}
        return PerformanceMetrics(operations, self._resident(), cache, self._recoveries())

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._operations.clear()

    def violations(self) -> list[Violation]:
        """The thresholds that do not hold now."""
        if not self.thresholds:
            return []
        metrics = self.metrics()
        return [found for each in self.thresholds if (found := each.broken_by(metrics)) is not None]

    def check(self) -> None:
        """Judge all thresholds; see the class."""
        found = self.violations()
        if self._on_violation is not None:
            for each in found:
                self._on_violation(each)
        elif found:
            raise PerformanceError(
                "; ".join(map(str, found)),
                advice="ask for fewer bands or planes, smaller batches, or raise the threshold",
                values={f"{each.threshold.operation or 'all'}.{each.threshold.quantity}": each.value for each in found},
            )

    def prometheus(self) -> str:
        """Everything so far in the text format of Prometheus."""
        from absurd.tasks.cutout.prometheus import exposition

        return exposition(self.metrics())

    def _record(self, name: str, begun: float, ended: float, measured: Measured, code: str | None) -> None:
        seconds = max(0.0, ended - begun)
        with self._lock:
            if name not in self._operations and len(self._operations) >= MOST_NAMES:
                name = OTHER
            into = self._operations.setdefault(name, _Operation())
            into.count += 1
            into.bytes += measured.bytes
            into.items += measured.items
            into.total += seconds
            into.fastest = min(into.fastest, seconds)
            into.slowest = max(into.slowest, seconds)
            into.begun = min(into.begun, begun)
            into.ended = max(into.ended, ended)
            into.buckets[bisect_left(BOUNDS, seconds)] += 1
            if code is not None:
                into.errors += 1
                into.codes[code if code in into.codes or len(into.codes) < MOST_NAMES else OTHER] += 1


class SilentMonitor(PerformanceMonitor):
    """A monitor that measures nothing, where monitoring is not wanted."""

    @contextmanager
    def measure(self, operation: str, *, bytes: int = 0, items: int = 0) -> Iterator[Measured]:
        """Give what a call may write to, and forget it."""
        yield Measured()


def _metrics(of: _Operation) -> OperationMetrics:
    p50, p95, p99 = (_percentile(of, share) for share in (0.5, 0.95, 0.99))
    return OperationMetrics(
        count=of.count,
        errors=of.errors,
        bytes=of.bytes,
        items=of.items,
        total=of.total,
        mean=of.total / of.count,
        p50=p50,
        p95=p95,
        p99=p99,
        fastest=of.fastest,
        slowest=of.slowest,
        elapsed=max(0.0, of.ended - of.begun),
        errors_by_code=dict(of.codes),
        buckets=tuple(of.buckets),
    )


def _percentile(of: _Operation, share: float) -> float:
    """The geometric middle of the bucket that holds the call of that rank, between the fastest and the slowest."""
    rank, seen = max(1, math.ceil(share * of.count)), 0
    for place, count in enumerate(of.buckets):
        seen += count
        if seen >= rank:
            if place == len(BOUNDS):
                break
            return min(max(BOUNDS[place] * 10 ** (-0.5 / PER_DECADE), of.fastest), of.slowest)
    return of.slowest
