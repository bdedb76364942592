"""How fast a worker's slots become free, and so how many runs to claim ahead without hoarding."""

from __future__ import annotations

import math
import time

MAX_BATCH = 500
"""Most runs of one claim."""
HOARD_SECONDS = 0.1
"""How much work, at the pace measured, may be claimed ahead: what a crash repeats at most of short tasks."""
STALL_SECONDS = 1.0
"""How long claims may wait for a slot while none becomes free; then others may have them."""


class Pace:
    """Measures how long runs take.  With a `prefetch` given, that many are claimed ahead whatever they take."""

    def __init__(self, prefetch: int | None) -> None:
        self._prefetch = prefetch
        self._run_seconds: float | None = None  # smoothed
        self._moved_at = 0.0  # when a slot was last free or filled

    def moved(self) -> None:
        """A slot was free when claims came for it."""
        self._moved_at = time.monotonic()

    def ended(self, started: float) -> None:
        """A run has ended that was started then."""
        now = self._moved_at = time.monotonic()
        took, usual = now - started, self._run_seconds
        self._run_seconds = took if usual is None else usual + 0.02 * (took - usual)

    def forget(self) -> None:
        """It was another one: whatever it is, the next run that ends tells it anew."""
        self._run_seconds = None

    def ahead(self, concurrency: int) -> int:
        """How many runs to hold beyond those that execute, so that no slot waits for the database."""
        if self._prefetch is not None:
            return self._prefetch
        if self._run_seconds is None:
            return 0
        return min(MAX_BATCH, int(concurrency * HOARD_SECONDS / max(self._run_seconds, 1e-6)))

    def stall_over(self) -> float:
        """In how many seconds what waits for a slot has waited too long; endless where it may wait."""
        return math.inf if self._prefetch is not None else self._moved_at + STALL_SECONDS - time.monotonic()
