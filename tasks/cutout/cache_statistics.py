"""What a cache tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from absurd.tasks.cutout.cache_key import CacheKey


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """Of one kind of values, since the cache was made; `entries` and `bytes` are of its memory level, now."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    """From memory, from disk, or from a load of another thread."""
    disk_hits: int = 0
    """Values that were read from disk."""
    misses: int = 0
    evictions: int = 0
    """From memory, for room."""
    disk_evictions: int = 0
    expirations: int = 0
    """Were too old when they were asked for."""
    invalidations: int = 0
    """By call, or because a file had changed."""
    refused: int = 0
    """Too large to be kept."""

    @property
    def hit_rate(self) -> float:
        """Share of hits, 0 to 1; 0 before anything was asked."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Of a cache, by kind and in all."""

    kinds: Mapping[str, KindStatistics]
    max_entries: int
    max_bytes: int
    disk_bytes: int
    """Of all processes that share the folder; 0 without a disk level."""
    disk_max_bytes: int
    corrupt: int
    """Damaged files that were removed."""
    disk_error: str | None
    """What went wrong last on the disk."""

    @property
    def entries(self) -> int:
        return sum(each.entries for each in self.kinds.values())

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.kinds.values())

    @property
    def hits(self) -> int:
        return sum(each.hits for each in self.kinds.values())

    @property
    def misses(self) -> int:
        return sum(each.misses for each in self.kinds.values())

    @property
    def hit_rate(self) -> float:
        """Share of hits, 0 to 1; 0 before anything was asked."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


@dataclass(frozen=True, slots=True)
class MemoryAlert:
    """A limit of memory was reached, and the least recently used values went."""

    what: Literal["cache", "process"]
    """Whose bytes are too many: those of the cached values, or of the whole process."""
    used: int
    """Before anything went, bytes."""
    limit: int
    evicted: int


@dataclass(frozen=True, slots=True)
class Warmed:
    """What became of the keys that were to be warmed."""

    loaded: int
    present: int
    """Were there already."""
    failed: tuple[tuple[CacheKey, Exception], ...]
