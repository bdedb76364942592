"""How many requests are taken of one caller: a bucket of permits for each, in this process (no clock of its own)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

BURST = 4.0
"""How many seconds' worth of permits a bucket holds."""
MOST = 10_000
"""How many callers are remembered; of more, who was not heard of for longest is forgotten, and begins anew."""


class Throttle:
    """A bucket for each key, filled with `rate` permits a second up to `BURST` seconds' worth; None: no limit."""

    def __init__(self, rate: float | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # permits, and when there were so many

    def take(self, key: str) -> float:
        """Take a permit; gives 0.0, or in how many seconds there is one."""
        return self._permits(key, 1.0)

    def look(self, key: str) -> float:
        """As `take`, and takes none."""
        return self._permits(key, 0.0)

    def _permits(self, key: str, taken: float) -> float:
        if self._rate is None:
            return 0.0
        now, full = self._clock(), max(1.0, self._rate * BURST)
        permits, at = self._buckets.pop(key, (full, now))
        permits = min(full, permits + (now - at) * self._rate)
        wait = max(0.0, (1.0 - permits) / self._rate)
        self._buckets[key] = (permits - taken if wait == 0.0 else permits, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return wait
