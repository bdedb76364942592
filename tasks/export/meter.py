"""How much is read and how fast, by all connections of an export together."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

PIECE_BYTES = 1 << 20
"""Bytes of the stream after which a decoder looks up: to tell, to wait, to stop."""


class StoppedError(Exception):
    """The export was told to stop while this thread was reading."""


class Meter:
    """Counts what is read, keeps it to a rate, and stops it; used by all threads of one export."""

    def __init__(
        self,
        limit_mib_per_second: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.stop = ctypes.c_int32(0)
        """Not 0 once the export is to stop; the compiled decoder looks at it."""
        self.rows = 0
        self.bytes = 0
        self._limit = limit_mib_per_second * (1 << 20) if limit_mib_per_second else None
        self.piece = PIECE_BYTES if self._limit is None else int(min(PIECE_BYTES, max(self._limit / 10, 1)))
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._clock = clock
        self._wait = wait or self._stopped.wait
        self._free_at = clock()

    def spend(self, size: int, rows: int) -> None:
        """Count what was read, and wait until more may be.  Raises StoppedError."""
        with self._lock:
            self.bytes += size
            self.rows += rows
            if self._limit is None:
                wait = 0.0
            else:  # time in which nothing was read is not made up for
                now = self._clock()
                self._free_at = max(self._free_at, now) + size / self._limit
                wait = self._free_at - now
        if wait > 0:
            self._wait(wait)
        self.check()

    def check(self) -> None:
        """Raise StoppedError once the export is to stop."""
        if self.stop.value:
            raise StoppedError

    def halt(self) -> None:
        """Make all threads stop soon."""
        self.stop.value = 1
        self._stopped.set()
