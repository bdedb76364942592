"""What this process keeps so as not to make it again: pictures, known by what they show, and counts, for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    size: int
    until: float


class Cache:
    """Values by key, `limit` bytes of them at most: what was not asked for longest goes first.  0 keeps nothing."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = self._hits = self._misses = 0

    def get(self, key: str) -> Any:
        """The value; None if it is not there, or its time is over."""
        entry = self._entries.get(key)
        if entry is not None and entry.until <= self._clock():
            self._drop(key)
            entry = None
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: str, value: Any, size: int, seconds: float = float("inf")) -> None:
        """Keep a value of `size` bytes for so long; one that is larger than all may be is not kept."""
        self._drop(key)
        if size > self._limit:
            return
        self._entries[key] = _Entry(value, size, self._clock() + seconds)
        self._bytes += size
        while self._bytes > self._limit:
            self._drop(next(iter(self._entries)))

    def invalidate(self, pattern: str) -> int:
        """Forget the keys that are like a pattern (``*`` and ``?`` stand for anything); gives how many."""
        gone = [key for key in self._entries if fnmatchcase(key, pattern)]
        for key in gone:
            self._drop(key)
        return len(gone)

    def statistics(self) -> dict[str, int]:
        """How much is kept, and how often it was of use since the process began."""
        return {
            "entries": len(self._entries),
            "bytes": self._bytes,
            "limit_bytes": self._limit,
            "hits": self._hits,
            "misses": self._misses,
        }

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
